/* Failures and limits: what is remembered of the first failure, and what other threads may see of it. */
#include "layer/context.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int layer_io(struct layer *layer)
{
    layer->value = errno;
    if (errno == ECANCELED)
        return LAYER_STOPPED;
    return errno == EXDEV || errno == EBUSY ? LAYER_MOUNT : LAYER_IO;
}

int layer_bad(struct layer *layer, int code, int64_t value)
{
    layer->value = value;
    return code;
}

int layer_worked(struct layer *layer)
{
    uint64_t limit = layer->limits.max_work + WORK_ENTRY * layer->facts.entries;

    return layer->work <= limit ? TAR_OK : layer_bad(layer, LAYER_WORK, (int64_t)limit);
}

int layer_count_extra(struct layer *layer, uint64_t bytes)
{
    if (bytes > layer->limits.max_bytes - layer->size)
        return layer_bad(layer, LAYER_BYTES, (int64_t)layer->limits.max_bytes);
    layer->size += bytes;
    layer->facts.extra += bytes;
    return TAR_OK;
}

int layer_count_implied(struct layer *layer)
{
    if (++layer->made > layer->limits.max_entries)
        return layer_bad(layer, LAYER_ENTRIES, (int64_t)layer->limits.max_entries);
    layer->work += WORK_IMPLIED;
    return layer_worked(layer);
}

int layer_failed(struct layer *layer, int code, uint64_t offset, int64_t value, struct tar_bytes path)
{
    char *copy;

    layer->facts.code = code;
    layer->facts.offset = offset;
    layer->facts.value = value;
    if (path.len && (copy = malloc(path.len))) {
        memcpy(copy, path.data, path.len);
        layer->facts.path = copy;
        layer->facts.path_len = path.len;
    }
    return code;
}

int layer_publish(struct layer *layer, int result)
{
    const struct layer_facts *facts = &layer->facts;
    struct layer_facts *published = &layer->published;

    __atomic_store_n(&published->entries, facts->entries, __ATOMIC_RELAXED);
    __atomic_store_n(&published->bytes, facts->bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&published->extra, facts->extra, __ATOMIC_RELAXED);
    __atomic_store_n(&published->skipped_owners, facts->skipped_owners, __ATOMIC_RELAXED);
    __atomic_store_n(&published->skipped_devices, facts->skipped_devices, __ATOMIC_RELAXED);
    __atomic_store_n(&published->skipped_xattrs, facts->skipped_xattrs, __ATOMIC_RELAXED);
    __atomic_store_n(&published->reasons, facts->reasons, __ATOMIC_RELAXED);
    __atomic_store_n(&published->names_root, facts->names_root, __ATOMIC_RELAXED);
    if (facts->code && !published->code) { /* what belongs to the code is whole before it is seen, and never changes */
        published->offset = facts->offset;
        published->value = facts->value;
        published->path = facts->path;
        published->path_len = facts->path_len;
        __atomic_store_n(&published->code, facts->code, __ATOMIC_RELEASE);
    }
    return result;
}

void layer_get_facts(const struct layer *layer, struct layer_facts *facts)
{
    const struct layer_facts *published = &layer->published;

    *facts = (struct layer_facts){
        .code = __atomic_load_n(&published->code, __ATOMIC_ACQUIRE),
        .entries = __atomic_load_n(&published->entries, __ATOMIC_RELAXED),
        .bytes = __atomic_load_n(&published->bytes, __ATOMIC_RELAXED),
        .extra = __atomic_load_n(&published->extra, __ATOMIC_RELAXED),
        .skipped_owners = __atomic_load_n(&published->skipped_owners, __ATOMIC_RELAXED),
        .skipped_devices = __atomic_load_n(&published->skipped_devices, __ATOMIC_RELAXED),
        .skipped_xattrs = __atomic_load_n(&published->skipped_xattrs, __ATOMIC_RELAXED),
        .reasons = __atomic_load_n(&published->reasons, __ATOMIC_RELAXED),
        .names_root = __atomic_load_n(&published->names_root, __ATOMIC_RELAXED),
    };
    if (!facts->code)
        return;
    facts->offset = published->offset;
    facts->value = published->value;
    facts->path = published->path;
    facts->path_len = published->path_len;
}

void layer_close(struct layer *layer)
{
    free(layer->walk[0].text);
    free(layer->walk[1].text);
    free(layer->last.text);
    layer->walk[0].text = layer->walk[1].text = layer->last.text = NULL;
    layer->last_directory = NULL;
}

void layer_free(struct layer *layer)
{
    layer_close(layer);
    free((void *)layer->facts.path);
}
