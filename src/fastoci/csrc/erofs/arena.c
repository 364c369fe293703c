/* Memory is allocated up to the limit, of which the tree leaves a part to the table and to what is sorted. What is above is mapped from
 * the file: its disk is allocated before, so that a full one is an error and no signal. The end of the file cuts it off. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "erofs/arena.h"

#include "io/retry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    BLOCK_SIZE = 1 << 16,
    MAPPED_BLOCK = 1 << 20,
    UNIT = 1 << 16, /* of what is mapped: no page is larger */
    ALIGN = 8,
    OTHERS = 8, /* the part of the limit that is not for the tree: one eighth */
    MAPPED = 32 /* times the limit that may be in the file */
};

static const uint64_t MEMORY_AT = (uint64_t)1 << 40; /* in the file */

struct erofs_block {
    struct erofs_block *older;
    size_t size; /* with this */
    uint64_t at; /* in the file; 0: it is not in the file */
    uint8_t data[];
};

static struct erofs_block *allocated(struct erofs_arena *arena, size_t size, uint64_t limit)
{
    struct erofs_block *block;

    if (size > limit || arena->used > limit - size || !(block = calloc(1, size)))
        return NULL;
    arena->used += size;
    block->size = size;
    return block;
}

static struct erofs_block *mapped(struct erofs *e, size_t size)
{
    struct erofs_arena *arena = &e->arena;
    uint64_t at = MEMORY_AT + arena->mapped_end, most = arena->limit > UINT64_MAX / MAPPED ? UINT64_MAX : arena->limit * MAPPED;
    struct erofs_block *block;
    int error;

    size = erofs_round_up(size, UNIT);
    if (size > most || arena->mapped > most - size)
        return NULL;
    while ((error = posix_fallocate(e->fd, (off_t)at, (off_t)size)) == EINTR)
        ;
    block = error ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, e->fd, (off_t)at);
    if (block == MAP_FAILED) {
        error = error ? error : errno;
        if (error == ENOSPC || error == EDQUOT || error == EIO)
            arena->error = error;
        return NULL;
    }
    block->size = size;
    block->at = at;
    arena->mapped += size;
    arena->mapped_end += size;
    return block;
}

static struct erofs_block *new_block(struct erofs *e, size_t size, uint64_t limit, size_t mapped_size)
{
    struct erofs_block *block;

    if (size > SIZE_MAX / 2 || mapped_size > SIZE_MAX / 2)
        return NULL;
    block = allocated(&e->arena, sizeof *block + size, limit);
    return block ? block : mapped(e, sizeof *block + mapped_size);
}

int erofs_no_memory(struct erofs *e)
{
    if (e->arena.error) {
        errno = e->arena.error;
        return layer_io(&e->layer);
    }
    return layer_bad(&e->layer, LAYER_MEMORY, (int64_t)e->arena.limit);
}

int erofs_keep_off(struct erofs *e, uint64_t size)
{
    return e->arena.mapped_end && size > MEMORY_AT / 2 ? layer_bad(&e->layer, LAYER_FILE_SIZE, (int64_t)size) : TAR_OK;
}

static int add_block(struct erofs *e, size_t size)
{
    uint64_t limit = e->arena.limit - e->arena.limit / OTHERS;
    struct erofs_block *block = new_block(e, size > BLOCK_SIZE ? size : BLOCK_SIZE, limit, size > MAPPED_BLOCK ? size : MAPPED_BLOCK);

    if (!block)
        return -1;
    block->older = e->arena.newest;
    e->arena.newest = block;
    e->arena.left = block->size - sizeof *block;
    e->arena.left -= e->arena.left % ALIGN;
    return 0;
}

/* The newest block is filled from its end, so that its size need not be known. */
void *erofs_take(struct erofs *e, size_t size)
{
    struct erofs_arena *arena = &e->arena;

    if (size > SIZE_MAX / 2)
        return NULL;
    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    if (size > arena->left && add_block(e, size))
        return NULL;
    arena->left -= size;
    return arena->newest->data + arena->left;
}

void *erofs_alloc(struct erofs *e, size_t size)
{
    struct erofs_block *block = new_block(e, size, e->arena.limit, size);

    return block ? block->data : NULL;
}

static struct erofs_block *block_of(void *memory)
{
    return (struct erofs_block *)((uint8_t *)memory - offsetof(struct erofs_block, data));
}

static void release(struct erofs_block *block)
{
    if (block->at)
        (void)munmap(block, block->size);
    else
        free(block);
}

void erofs_drop(struct erofs *e, void *memory)
{
    struct erofs_block *block = memory ? block_of(memory) : NULL;
    size_t size = block ? block->size : 0;
    uint64_t at = block ? block->at : 0;
    int punched;

    if (!block)
        return;
    release(block);
    if (at) { /* its disk is free again, where the file system can do that; else at the end */
        e->arena.mapped -= size;
        RETRY(punched, fallocate(e->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)size));
    } else {
        e->arena.used -= size;
    }
}

void erofs_arena_free(struct erofs_arena *arena, void *table, void *pending)
{
    if (table)
        release(block_of(table));
    if (pending)
        release(block_of(pending));
    for (struct erofs_block *block = arena->newest, *older; block; block = older) {
        older = block->older;
        release(block);
    }
    arena->newest = NULL;
    arena->left = 0;
}
