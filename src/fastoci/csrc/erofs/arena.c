/* Blocks of memory in a list, each filled from its beginning. */
#include "erofs/arena.h"

#include <stdlib.h>

enum { BLOCK_SIZE = 1 << 16, ALIGN = 8 };

struct erofs_block {
    struct erofs_block *older;
    uint8_t data[];
};

int erofs_count(struct erofs *e, uint64_t more, uint64_t less)
{
    struct erofs_arena *arena = &e->arena;

    if (more > arena->limit || arena->used > arena->limit - more)
        return -1;
    arena->used += more;
    arena->used -= less;
    return 0;
}

int erofs_no_memory(struct erofs *e)
{
    return layer_bad(&e->layer, LAYER_MEMORY, (int64_t)e->arena.limit);
}

static int add_block(struct erofs *e, size_t size)
{
    struct erofs_block *block;

    if (erofs_count(e, sizeof *block + size, 0) || !(block = calloc(1, sizeof *block + size)))
        return -1;
    block->older = e->arena.newest;
    e->arena.newest = block;
    e->arena.left = size;
    return 0;
}

/* The newest block is filled from its end, so that its size need not be known. */
void *erofs_take(struct erofs *e, size_t size)
{
    struct erofs_arena *arena = &e->arena;

    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    if (size > arena->left && add_block(e, size > BLOCK_SIZE ? size : BLOCK_SIZE))
        return NULL;
    arena->left -= size;
    return arena->newest->data + arena->left;
}

void erofs_arena_free(struct erofs_arena *arena)
{
    for (struct erofs_block *block = arena->newest, *older; block; block = older) {
        older = block->older;
        free(block);
    }
    arena->newest = NULL;
    arena->left = 0;
}
