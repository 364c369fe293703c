/* Trees of files of many sizes, fed in pieces and without their first block, against the definition: level by level over
 * all that there is. What is written is what dm-verity reads: all levels, the highest first. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "support/check.h"
#include "verity/verity.h"

#include <unistd.h>

#define MOST (VERITY_HASHES * VERITY_HASHES + 2) /* blocks: three levels */

static struct sha256_tier tier;
static struct verity_tree tree;
static uint8_t *data, *levels, *written;

static void digest_of(const uint8_t *salt, size_t salt_size, const uint8_t *block, uint8_t digest[32])
{
    struct sha256 state;

    sha256_init(&state);
    sha256_update(&state, &tier, salt, salt_size);
    sha256_update(&state, &tier, block, VERITY_BLOCK);
    sha256_digest(&state, &tier, digest);
}

/* The root of the data, whose end is zeros; the levels, the lowest first, and how many bytes they have. */
static size_t plainly(const uint8_t *salt, size_t salt_size, size_t blocks, uint8_t root[32])
{
    uint8_t *below = data, *level = levels;

    digest_of(salt, salt_size, data, root);
    while (blocks > 1) {
        size_t above = (blocks + VERITY_HASHES - 1) / VERITY_HASHES;
        memset(level, 0, above * VERITY_BLOCK);
        for (size_t i = 0; i < blocks; i++)
            digest_of(salt, salt_size, below + i * VERITY_BLOCK, level + i * 32);
        digest_of(salt, salt_size, level, root);
        below = level, level += above * VERITY_BLOCK, blocks = above;
    }
    return (size_t)(level - levels);
}

static void compare(size_t size, size_t piece, size_t salt_size)
{
    static const uint8_t SALT[VERITY_SALT] = {1, 2, 3};
    uint8_t ours[32], theirs[32];
    size_t first = size < VERITY_BLOCK ? size : VERITY_BLOCK, blocks = (size + VERITY_BLOCK - 1) / VERITY_BLOCK;
    size_t total, done = 0;
    FILE *file = tmpfile();

    CHECK(file);
    memset(data + size, 0, VERITY_BLOCK);
    total = plainly(SALT, salt_size, blocks, theirs);
    verity_begin(&tree, &tier, SALT, salt_size);
    CHECK(verity_write_to(&tree, fileno(file), 512, size) == 512 + (int64_t)total);
    for (size_t at = first; at < size; at += piece)
        verity_feed(&tree, data + at, size - at < piece ? size - at : piece);
    CHECK(verity_finish(&tree, data, first, ours) == 0);
    CHECK(!memcmp(ours, theirs, 32));
    for (size_t level = (blocks + VERITY_HASHES - 1) / VERITY_HASHES; blocks > 1 && done < total;) {
        done += level * VERITY_BLOCK; /* the lowest level is the last one of the file */
        CHECK(pread(fileno(file), written, level * VERITY_BLOCK, 512 + (off_t)(total - done)) > 0);
        CHECK(!memcmp(written, levels + done - level * VERITY_BLOCK, level * VERITY_BLOCK));
        level = (level + VERITY_HASHES - 1) / VERITY_HASHES;
    }
    CHECK(lseek(fileno(file), 0, SEEK_END) == (total ? 512 + (off_t)total : 0));
    fclose(file);
}

static void a_disk_that_is_full(void)
{
    uint8_t root[32];

    verity_begin(&tree, &tier, NULL, 0);
    verity_write_to(&tree, -2, 0, 2 * VERITY_BLOCK); /* below zero: nothing is written */
    verity_feed(&tree, data, VERITY_BLOCK);
    CHECK(verity_finish(&tree, data, VERITY_BLOCK, root) == 0);
    verity_begin(&tree, &tier, NULL, 0);
    verity_write_to(&tree, 1000, 0, 2 * VERITY_BLOCK); /* no such descriptor */
    verity_feed(&tree, data, VERITY_BLOCK);
    CHECK(verity_finish(&tree, data, VERITY_BLOCK, root) < 0);
}

int main(void)
{
    static const size_t BLOCKS[] = {1, 2, 3, 127, 128, 129, 130, 255, 256, 257, 384};
    size_t count = sizeof BLOCKS / sizeof *BLOCKS;

    data = malloc((MOST + 1) * VERITY_BLOCK);
    levels = malloc(2 * MOST * 32 + 8 * VERITY_BLOCK);
    written = malloc(2 * MOST * 32 + 8 * VERITY_BLOCK);
    CHECK(data && levels && written);
    CHECK(sha256_choose(&tier, NULL) == 0);
    sha256_measure(&tier);
    for (size_t i = 0; i < (MOST + 1) * VERITY_BLOCK; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t i = 0; i < count; i++) {
        compare(BLOCKS[i] * VERITY_BLOCK, 1 << 20, 0);
        compare(BLOCKS[i] * VERITY_BLOCK - 1, 7777, 32);
    }
    if (!is_short()) { /* 64 MiB each */
        compare((MOST - 2) * VERITY_BLOCK, 1 << 20, 0);
        compare((MOST - 1) * VERITY_BLOCK - 1, 1 << 20, 32);
    }
    compare(1, 1, 0);
    for (size_t size = 4000; size < 14000; size += 499)
        compare(size, 61, 32);
    a_disk_that_is_full();
    free(data), free(levels), free(written);
    printf("test_verity: ok: %s\n", tier.name);
    return 0;
}
