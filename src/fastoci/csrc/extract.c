/* The extractor: one entry after the other, from the reader's callbacks to the tree.
 *
 * Rules: what is in the way is removed first, and nothing is ever written through what was there; the last of several entries
 * of a name counts; whiteouts remove what lower layers have, in whatever order they come; a refused entry stops the layer. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int extract_io(struct extract *ex)
{
    ex->value = errno;
    if (errno == ECANCELED)
        return EXTRACT_STOPPED;
    return errno == EXDEV || errno == EBUSY ? EXTRACT_MOUNT : EXTRACT_IO;
}

int extract_bad(struct extract *ex, int code, int64_t value)
{
    ex->value = value;
    return code;
}

int extract_worked(struct extract *ex)
{
    uint64_t limit = ex->options.max_work + WORK_ENTRY * ex->facts.entries;

    return ex->work <= limit ? TAR_OK : extract_bad(ex, EXTRACT_WORK, (int64_t)limit);
}

/* --- entries --- */

static int whiteout(struct extract *ex, const struct split_name *name, int opaque)
{
    struct node *dir;
    int code;

    if (!ex->options.base)
        return TAR_OK;
    code = tree_walk(ex, name->parent, name->parent_len, 0, &dir);
    if (code == WALK_MISSING || code == EXTRACT_NOT_DIRECTORY)
        return TAR_OK; /* nothing is there that could be hidden */
    if (code)
        return code;
    return opaque ? remove_lower(ex, dir) : remove_lower_name(ex, dir, name->base + strlen(".wh."));
}

int extract_apply(struct extract *ex, const struct tar_entry *entry)
{
    struct split_name name;
    enum verdict verdict;
    int code = extract_judge(ex, entry, &name, &verdict);

    if (code || verdict == VERDICT_NOTHING)
        return code;
    if (verdict == VERDICT_WHITEOUT || verdict == VERDICT_OPAQUE) {
        code = whiteout(ex, &name, verdict == VERDICT_OPAQUE);
        return code ? code : extract_worked(ex);
    }
    ex->entry = entry;
    code = verdict == VERDICT_ROOT ? make_root(ex, entry) : make_entry(ex, &name, entry);
    return code ? code : extract_worked(ex);
}

static int on_entry(void *ctx, const struct tar_entry *entry)
{
    return extract_apply(ctx, entry);
}

int extract_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len)
{
    struct extract *ex = ctx;

    if (ex->file < 0) /* the body of a whiteout */
        return TAR_OK;
    if (stop_asked(ex->options.stop))
        return EXTRACT_STOPPED;
    ex->facts.bytes += len;
    ex->work += ex->entry->sparse ? WORK_SEGMENT : 0;
    while (len) {
        ssize_t done;
        if (ex->entry->sparse)
            RETRY(done, pwrite(ex->file, data, len, (off_t)offset));
        else
            RETRY(done, write(ex->file, data, len));
        if (done == 0)
            errno = EIO; /* a file system that takes nothing would be asked for ever */
        if (done <= 0)
            return extract_io(ex);
        data += done;
        offset += (uint64_t)done;
        len -= (size_t)done;
    }
    return TAR_OK;
}

static int finish_file(struct extract *ex, int fd)
{
    struct timespec times[2];
    int failed = 0, code;

    if (ex->entry->sparse)
        RETRY(failed, ftruncate(fd, (off_t)ex->entry->size));
    if (failed)
        return extract_io(ex);
    code = meta_open(ex, fd, ex->entry, (struct origin){1, ex->file_inherits, ex->file_born}, (mode_t)ex->entry->mode);
    if (code)
        return code;
    meta_time(ex->entry, times);
    return futimens(fd, times) ? extract_io(ex) : TAR_OK;
}

int extract_file_end(struct extract *ex)
{
    int fd = ex->file, code;

    if (fd < 0)
        return TAR_OK;
    ex->file = -1;
    code = finish_file(ex, fd);
    if (close(fd) && errno != EINTR && !code)
        code = extract_io(ex);
    return code ? code : extract_worked(ex);
}

/* --- the interface --- */

static int on_entry_end(void *ctx)
{
    return extract_file_end(ctx);
}

/* The way to a directory that failed at the end, when the reader's entry is not the one at fault. */
static struct tar_bytes directory_path(const struct node *directory, char **memory)
{
    size_t len = 0, at;

    for (const struct node *node = directory; node->parent; node = node->parent)
        len += strlen(node->name) + 1;
    if (!(*memory = malloc(len + 1)))
        return (struct tar_bytes){NULL, 0};
    at = len;
    for (const struct node *node = directory; node->parent; node = node->parent) {
        at -= strlen(node->name) + 1;
        memcpy(*memory + at, node->name, strlen(node->name));
        (*memory)[at + strlen(node->name)] = '/';
    }
    return (struct tar_bytes){(const uint8_t *)*memory, len};
}

int extract_failed(struct extract *ex, int code, uint64_t offset, int64_t value, struct tar_bytes path)
{
    ex->facts.code = code;
    ex->facts.offset = offset;
    ex->facts.value = value;
    if (path.len && (ex->fault_path = malloc(path.len))) {
        memcpy(ex->fault_path, path.data, path.len);
        ex->facts.path = ex->fault_path;
        ex->facts.path_len = path.len;
    }
    return code;
}

static int failed(struct extract *ex, int code)
{
    struct tar_bytes path = tar_path(ex->tar);
    char *memory = NULL;

    if (!code || ex->facts.code)
        return ex->facts.code;
    if (ex->fault)
        path = directory_path(ex->fault, &memory);
    extract_failed(ex, code, tar_offset(ex->tar), code >= EXTRACT_IO ? ex->value : tar_value(ex->tar), path);
    free(memory);
    if (ex->stage)
        stage_failed(ex);
    return code;
}

struct extract *extract_create(const struct extract_options *options, const struct tar_sink *sink)
{
    struct extract *ex = calloc(1, sizeof *ex);

    if (!ex)
        return NULL;
    ex->options = *options;
    ex->uid = geteuid();
    ex->gid = getegid();
    ex->file = -1;
    if (!(ex->tar = tar_new(sink, ex))) {
        free(ex);
        return NULL;
    }
    return ex;
}

struct extract *extract_new(int root_fd, const struct extract_options *options)
{
    static const struct tar_sink SINK = {on_entry, extract_data, on_entry_end};
    struct extract *ex = extract_create(options, &SINK);

    if (ex && tree_init(ex, root_fd))
        ex->start_error = errno;
    return ex;
}

int extract_usable(struct extract *ex)
{
    if (ex->closed)
        return ex->facts.code ? ex->facts.code : (ex->facts.code = EXTRACT_CLOSED);
    ex->value = ex->start_error;
    return ex->start_error ? failed(ex, EXTRACT_IO) : ex->facts.code;
}

int extract_publish(struct extract *ex, int result)
{
    const struct extract_facts *facts = &ex->facts;
    struct extract_facts *published = &ex->published;

    __atomic_store_n(&published->entries, facts->entries, __ATOMIC_RELAXED);
    __atomic_store_n(&published->bytes, facts->bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&published->extra, facts->extra, __ATOMIC_RELAXED);
    __atomic_store_n(&published->skipped_owners, facts->skipped_owners, __ATOMIC_RELAXED);
    __atomic_store_n(&published->skipped_devices, facts->skipped_devices, __ATOMIC_RELAXED);
    __atomic_store_n(&published->skipped_xattrs, facts->skipped_xattrs, __ATOMIC_RELAXED);
    if (facts->code && !published->code) { /* what belongs to the code is whole before it is seen, and never changes */
        published->offset = facts->offset;
        published->value = facts->value;
        published->path = facts->path;
        published->path_len = facts->path_len;
        __atomic_store_n(&published->code, facts->code, __ATOMIC_RELEASE);
    }
    return result;
}

static int feed(struct extract *ex, const uint8_t *data, size_t len)
{
    int code = extract_usable(ex);

    if (code)
        return code;
    code = failed(ex, tar_feed(ex->tar, data, len));
    mode_restore(ex);
    return code;
}

static int finish(struct extract *ex)
{
    int code = extract_usable(ex);

    if (code || (code = failed(ex, tar_finish(ex->tar))))
        return code;
    if (ex->stage)
        return failed(ex, stage_finish(ex));
    return failed(ex, adopt_ended(ex) ? meta_directories(ex) : TAR_TRUNCATED);
}

int extract_feed(struct extract *ex, const uint8_t *data, size_t len)
{
    return extract_publish(ex, feed(ex, data, len));
}

int extract_finish(struct extract *ex)
{
    return extract_publish(ex, finish(ex));
}

void extract_close(struct extract *ex)
{
    if (ex->closed)
        return;
    ex->closed = 1;
    if (ex->file >= 0)
        close(ex->file);
    ex->file = -1;
    tar_free(ex->tar);
    ex->tar = NULL;
    tree_free(ex);
    stage_free(ex);
    adopt_free(ex);
    free(ex->dents);
    free(ex->pending);
    ex->dents = NULL;
    ex->pending = NULL;
}

void extract_free(struct extract *ex)
{
    if (!ex)
        return;
    extract_close(ex);
    free(ex->fault_path);
    free(ex);
}

void extract_get_facts(const struct extract *ex, struct extract_facts *facts)
{
    const struct extract_facts *published = &ex->published;

    *facts = (struct extract_facts){
        .code = __atomic_load_n(&published->code, __ATOMIC_ACQUIRE),
        .entries = __atomic_load_n(&published->entries, __ATOMIC_RELAXED),
        .bytes = __atomic_load_n(&published->bytes, __ATOMIC_RELAXED),
        .extra = __atomic_load_n(&published->extra, __ATOMIC_RELAXED),
        .skipped_owners = __atomic_load_n(&published->skipped_owners, __ATOMIC_RELAXED),
        .skipped_devices = __atomic_load_n(&published->skipped_devices, __ATOMIC_RELAXED),
        .skipped_xattrs = __atomic_load_n(&published->skipped_xattrs, __ATOMIC_RELAXED),
    };
    if (!facts->code)
        return;
    facts->offset = published->offset;
    facts->value = published->value;
    facts->path = published->path;
    facts->path_len = published->path_len;
}
