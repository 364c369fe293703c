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

static const int64_t OWNER_MAX = 4294967294; /* 2^32-1 is "no change" to chown, and larger ones would wrap */

static const char WHITEOUT[] = ".wh.", OPAQUE[] = ".wh..wh..opq", AUFS[] = ".wh..wh.";

int extract_io(struct extract *ex)
{
    ex->value = errno;
    return EXTRACT_IO;
}

int extract_bad(struct extract *ex, int code, int64_t value)
{
    ex->value = value;
    return code;
}

static int begins(const uint8_t *text, size_t len, const char *prefix)
{
    return len >= strlen(prefix) && memcmp(text, prefix, strlen(prefix)) == 0;
}

/* --- names --- */

/* Every component of a parent part. *leftover: below a directory that AUFS left behind. */
static int check_parents(struct extract *ex, const uint8_t *at, size_t left, int *leftover)
{
    while (left) {
        const uint8_t *slash = memchr(at, '/', left);
        size_t len = slash ? (size_t)(slash - at) : left;
        if (len > NAME_LEN)
            return extract_bad(ex, EXTRACT_NAME_TOO_LONG, (int64_t)len);
        if (len == 2 && at[0] == '.' && at[1] == '.')
            return EXTRACT_DOTDOT;
        if (begins(at, len, AUFS))
            *leftover = 1;
        else if (begins(at, len, WHITEOUT))
            return EXTRACT_WHITEOUT;
        len += slash != NULL;
        at += len;
        left -= len;
    }
    return TAR_OK;
}

static size_t trimmed(const uint8_t *data, size_t len)
{
    for (;;) {
        if (len && data[len - 1] == '/')
            len--;
        else if (len && data[len - 1] == '.' && (len == 1 || data[len - 2] == '/'))
            len--;
        else
            return len;
    }
}

/* The parent part that was checked last is not checked again. */
int extract_split(struct extract *ex, struct tar_bytes path, struct split_name *out, int *leftover)
{
    size_t len = trimmed(path.data, path.len);
    const uint8_t *slash = len ? memrchr(path.data, '/', len) : NULL;
    const uint8_t *base = slash ? slash + 1 : path.data;

    *leftover = 0;
    out->parent = path.data;
    out->parent_len = slash ? (size_t)(slash - path.data) : 0;
    out->base_len = len - (size_t)(base - path.data);
    if (path.len == 0)
        return EXTRACT_EMPTY_NAME;
    if (out->base_len > NAME_LEN)
        return extract_bad(ex, EXTRACT_NAME_TOO_LONG, (int64_t)out->base_len);
    memcpy(out->base, base, out->base_len);
    out->base[out->base_len] = 0;
    if (strcmp(out->base, "..") == 0)
        return EXTRACT_DOTDOT;
    if (ex->cached_node && ex->cached_len == out->parent_len && memcmp(ex->cached.text, path.data, out->parent_len) == 0)
        return TAR_OK;
    return check_parents(ex, path.data, out->parent_len, leftover);
}

/* --- entries --- */

static int whiteout(struct extract *ex, const struct split_name *name)
{
    const char *hidden = name->base + strlen(WHITEOUT);
    struct node *dir;
    int code, opaque = strcmp(name->base, OPAQUE) == 0;

    if (!opaque && begins((const uint8_t *)name->base, name->base_len, AUFS))
        return TAR_OK;
    if (!opaque && (hidden[0] == 0 || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0))
        return EXTRACT_WHITEOUT;
    if (!ex->options.base)
        return TAR_OK;
    code = tree_walk(ex, name->parent, name->parent_len, 0, &dir);
    if (code == WALK_MISSING || code == EXTRACT_NOT_DIRECTORY)
        return TAR_OK; /* nothing is there that could be hidden */
    if (code)
        return code;
    return opaque ? remove_lower(ex, dir) : remove_lower_name(ex, dir, hidden);
}

static int check_owner(struct extract *ex, const struct tar_entry *entry)
{
    if (entry->uid < 0 || entry->uid > OWNER_MAX)
        return extract_bad(ex, EXTRACT_OWNER, entry->uid);
    if (entry->gid < 0 || entry->gid > OWNER_MAX)
        return extract_bad(ex, EXTRACT_OWNER, entry->gid);
    if (entry->type == 'l' && (entry->link.len == 0 || entry->link.len > EXTRACT_TARGET_MAX))
        return extract_bad(ex, EXTRACT_SYMLINK, (int64_t)entry->link.len);
    return TAR_OK;
}

static int count(struct extract *ex, const struct tar_entry *entry)
{
    ex->facts.entries++;
    if (++ex->made > ex->options.max_entries)
        return extract_bad(ex, EXTRACT_ENTRIES, (int64_t)ex->options.max_entries);
    if (entry->size > ex->options.max_bytes - ex->apparent)
        return extract_bad(ex, EXTRACT_BYTES, (int64_t)ex->options.max_bytes);
    ex->apparent += entry->size;
    return TAR_OK;
}

static int on_entry(void *ctx, const struct tar_entry *entry)
{
    struct extract *ex = ctx;
    struct split_name name;
    int leftover, code;

    ex->value = 0;
    if ((code = count(ex, entry)) || (code = extract_split(ex, entry->path, &name, &leftover)) || leftover)
        return code;
    if (begins((const uint8_t *)name.base, name.base_len, WHITEOUT))
        return whiteout(ex, &name);
    if ((code = check_owner(ex, entry)))
        return code;
    ex->entry = entry;
    if (name.base_len)
        return make_entry(ex, &name, entry);
    return entry->type == 'd' ? make_root(ex, entry) : EXTRACT_ROOT;
}

static int on_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len)
{
    struct extract *ex = ctx;

    if (ex->file < 0) /* the body of a whiteout */
        return TAR_OK;
    ex->facts.bytes += len;
    while (len) {
        ssize_t done;
        if (ex->entry->sparse)
            RETRY(done, pwrite(ex->file, data, len, (off_t)offset));
        else
            RETRY(done, write(ex->file, data, len));
        if (done < 0)
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
    if ((code = meta_open(ex, fd, ex->entry, 1, (ex->file_dir->flags & NODE_SETGID) != 0, (mode_t)ex->entry->mode)))
        return code;
    meta_time(ex->entry, times);
    return futimens(fd, times) ? extract_io(ex) : TAR_OK;
}

static int on_entry_end(void *ctx)
{
    struct extract *ex = ctx;
    int fd = ex->file, code;

    if (fd < 0)
        return TAR_OK;
    ex->file = -1;
    code = finish_file(ex, fd);
    if (close(fd) && errno != EINTR && !code)
        code = extract_io(ex);
    return code;
}

/* --- the interface --- */

static void set_fault(struct extract *ex, char *path, size_t len)
{
    ex->fault_path = path;
    ex->facts.path = path;
    ex->facts.path_len = path ? len : 0;
}

/* The way to a directory that failed at the end, when the reader's entry is not the one at fault. */
static void set_fault_directory(struct extract *ex)
{
    size_t len = 0, at;

    for (const struct node *node = ex->fault; node->parent; node = node->parent)
        len += strlen(node->name) + 1;
    set_fault(ex, malloc(len + 1), len);
    at = len;
    for (const struct node *node = ex->fault; ex->fault_path && node->parent; node = node->parent) {
        at -= strlen(node->name) + 1;
        memcpy(ex->fault_path + at, node->name, strlen(node->name));
        ex->fault_path[at + strlen(node->name)] = '/';
    }
}

static int failed(struct extract *ex, int code)
{
    struct tar_bytes path = tar_path(ex->tar);
    char *copy;

    if (!code || ex->facts.code)
        return ex->facts.code;
    ex->facts.code = code;
    ex->facts.offset = tar_offset(ex->tar);
    ex->facts.value = code >= EXTRACT_IO ? ex->value : tar_value(ex->tar);
    if (ex->fault) {
        set_fault_directory(ex);
    } else if (path.len && (copy = malloc(path.len))) {
        memcpy(copy, path.data, path.len);
        set_fault(ex, copy, path.len);
    }
    return code;
}

struct extract *extract_new(int root_fd, const struct extract_options *options)
{
    static const struct tar_sink SINK = {on_entry, on_data, on_entry_end};
    struct extract *ex = calloc(1, sizeof *ex);

    if (!ex)
        return NULL;
    ex->options = *options;
    ex->uid = geteuid();
    ex->gid = getegid();
    ex->file = -1;
    if (!(ex->tar = tar_new(&SINK, ex))) {
        free(ex);
        return NULL;
    }
    if (tree_init(ex, root_fd))
        ex->start_error = errno;
    return ex;
}

static int usable(struct extract *ex)
{
    if (ex->closed)
        return ex->facts.code ? ex->facts.code : (ex->facts.code = EXTRACT_CLOSED);
    ex->value = ex->start_error;
    return ex->start_error ? failed(ex, EXTRACT_IO) : ex->facts.code;
}

int extract_feed(struct extract *ex, const uint8_t *data, size_t len)
{
    int code = usable(ex);

    return code ? code : failed(ex, tar_feed(ex->tar, data, len));
}

int extract_finish(struct extract *ex)
{
    int code = usable(ex);

    if (code || (code = failed(ex, tar_finish(ex->tar))))
        return code;
    return failed(ex, meta_directories(ex));
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
    free(ex->dents);
    free(ex->remove_dents);
    ex->dents = ex->remove_dents = NULL;
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
    *facts = ex->facts;
}
