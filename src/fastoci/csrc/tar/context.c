/* The first failure, the size of a body, and arrays that grow. */
#include "tar/context.h"

#include <stdlib.h>

void tar_fail(struct tar *tar, int code, int64_t value)
{
    if (!tar->code) {
        tar->code = code;
        tar->value = value;
    }
}

int tar_set_size(struct tar *tar, int64_t size)
{
    if (size < 0 || size > INT64_MAX - TAR_BLOCK)
        return tar_fail(tar, TAR_SIZE, size), TAR_SIZE;
    tar->left = (uint64_t)size;
    tar->padding = (uint32_t)(-(uint64_t)size & (TAR_BLOCK - 1));
    return TAR_OK;
}

int tar_grow(void **items, size_t *capacity, size_t count, size_t size)
{
    size_t wanted = *capacity ? *capacity * 2 : 16;
    void *bigger;

    if (count < *capacity)
        return TAR_OK;
    if (!(bigger = realloc(*items, wanted * size)))
        return TAR_MEMORY;
    *items = bigger;
    *capacity = wanted;
    return TAR_OK;
}

int tar_segments_add(struct tar_segments *segments, int64_t offset, int64_t length)
{
    void *items = segments->items;
    int code;

    if (segments->count >= TAR_SEGMENTS_MAX)
        return TAR_SPARSE_LIMIT;
    if ((code = tar_grow(&items, &segments->capacity, segments->count, sizeof *segments->items)))
        return code;
    segments->items = items;
    segments->items[segments->count].offset = (uint64_t)offset;
    segments->items[segments->count].length = (uint64_t)length;
    segments->count++;
    return TAR_OK;
}
