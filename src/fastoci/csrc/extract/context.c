/* Failures and limits: what is remembered of the first failure, and what other threads may see of it. */
#include "extract/context.h"

#include "tar/tar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

int extract_count_extra(struct extract *ex, uint64_t bytes)
{
    if (bytes > ex->options.max_bytes - ex->size)
        return extract_bad(ex, EXTRACT_BYTES, (int64_t)ex->options.max_bytes);
    ex->size += bytes;
    ex->facts.extra += bytes;
    return TAR_OK;
}

/* The path of a directory that failed at the end, when the reader's entry is not the one at fault. */
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

int extract_failed_here(struct extract *ex, int code)
{
    struct tar_bytes path = tar_path(ex->tar);
    char *memory = NULL;

    if (!code || ex->facts.code)
        return ex->facts.code;
    if (ex->fault)
        path = directory_path(ex->fault, &memory);
    extract_failed(ex, code, tar_offset(ex->tar), code >= EXTRACT_IO ? ex->value : tar_value(ex->tar), path);
    free(memory);
    ex->writer->failed(ex);
    return code;
}

int extract_usable(struct extract *ex)
{
    if (ex->closed)
        return ex->facts.code ? ex->facts.code : (ex->facts.code = EXTRACT_CLOSED);
    ex->value = ex->start_error;
    return ex->start_error ? extract_failed_here(ex, EXTRACT_IO) : ex->facts.code;
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
