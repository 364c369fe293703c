/* Blocks of data are hashed in lanes, straight into the block of hashes that they belong to. */
#include "verity/verity.h"

#include "io/write.h"

#include <string.h>

void verity_begin(struct verity_tree *tree, const struct sha256_tier *tier, const uint8_t *salt, size_t salt_size)
{
    memset(tree, 0, sizeof *tree);
    tree->tier = tier;
    tree->fd = -1;
    sha256_init(&tree->salted);
    sha256_update(&tree->salted, tier, salt, salt_size);
    for (int level = 0; level < VERITY_LEVELS; level++)
        tree->levels[level].hashes = 1; /* the first one is not known before the end */
}

static uint64_t pieces(uint64_t size, uint64_t piece)
{
    return size / piece + (size % piece != 0);
}

int64_t verity_write_to(struct verity_tree *tree, int fd, int64_t offset, uint64_t size)
{
    uint64_t blocks[VERITY_LEVELS], hashes = pieces(size, VERITY_BLOCK);
    int levels = 0;

    for (; hashes > 1; hashes = blocks[levels++])
        blocks[levels] = pieces(hashes, VERITY_HASHES);
    tree->fd = fd;
    while (levels--) {
        tree->levels[levels].offset = offset;
        offset += (int64_t)blocks[levels] * VERITY_BLOCK;
    }
    return offset;
}

static void hash_blocks(const struct verity_tree *tree, const uint8_t *data, size_t blocks, uint8_t *hashes)
{
    sha256_digests(&tree->salted, tree->tier, data, VERITY_BLOCK, blocks, hashes);
}

static void write_block(struct verity_tree *tree, const struct verity_level *level, const uint8_t *block, uint64_t index)
{
    if (tree->fd >= 0 && !tree->code)
        tree->code = write_all(tree->fd, block, VERITY_BLOCK, level->offset + (int64_t)index * VERITY_BLOCK, 0);
}

/* Where the next hash of a level goes. */
static uint8_t *next_hash(struct verity_level *level)
{
    uint8_t *block = level->hashes < VERITY_HASHES ? level->first : level->last;
    return block + 32 * (level->hashes % VERITY_HASHES);
}

/* The block that a level is at is as full as it gets: its hash goes to the level above. The first block waits for finish. */
static void close_block(struct verity_tree *tree, struct verity_level *level)
{
    struct verity_level *above = level + 1;
    if (level->hashes <= VERITY_HASHES)
        return;
    hash_blocks(tree, level->last, 1, next_hash(above));
    write_block(tree, level, level->last, (level->hashes - 1) / VERITY_HASHES);
    memset(level->last, 0, VERITY_BLOCK);
    if (++above->hashes % VERITY_HASHES == 0)
        close_block(tree, above);
}

static void add_blocks(struct verity_tree *tree, const uint8_t *data, size_t blocks)
{
    struct verity_level *level = tree->levels;
    while (blocks) {
        size_t free = VERITY_HASHES - level->hashes % VERITY_HASHES, take = blocks < free ? blocks : free;
        hash_blocks(tree, data, take, next_hash(level));
        level->hashes += take;
        if (take == free)
            close_block(tree, level);
        data += take * VERITY_BLOCK, blocks -= take;
    }
}

void verity_feed(struct verity_tree *tree, const uint8_t *data, size_t size)
{
    if (tree->used) {
        size_t free = VERITY_BLOCK - tree->used, take = size < free ? size : free;
        memcpy(tree->part + tree->used, data, take);
        tree->used += take, data += take, size -= take;
        if (tree->used < VERITY_BLOCK)
            return;
        add_blocks(tree, tree->part, 1);
        tree->used = 0;
    }
    add_blocks(tree, data, size / VERITY_BLOCK);
    tree->used = size % VERITY_BLOCK;
    memcpy(tree->part, data + size - tree->used, tree->used);
}

int verity_finish(struct verity_tree *tree, const uint8_t *first, size_t size, uint8_t root[32])
{
    uint8_t block[VERITY_BLOCK] = {0};
    if (tree->used) {
        memset(tree->part + tree->used, 0, VERITY_BLOCK - tree->used);
        add_blocks(tree, tree->part, 1);
        tree->used = 0;
    }
    memcpy(block, first, size);
    hash_blocks(tree, block, 1, root);
    for (struct verity_level *level = tree->levels; level < tree->levels + VERITY_LEVELS && level->hashes > 1; level++) {
        if (level->hashes % VERITY_HASHES)
            close_block(tree, level);
        memcpy(level->first, root, 32);
        write_block(tree, level, level->first, 0);
        hash_blocks(tree, level->first, 1, root);
    }
    return tree->code;
}
