/* The hash tree of a file whose first block comes last, while its bytes arrive. Knows no Python.
 *
 * A level is a row of hashes, cut into blocks that are filled up with zeros: level 0 has the hash of each block of data,
 * each other one the hash of each block of the level below, the last one has one block. The root is the hash of that; of a
 * file of one block it is the block's own hash. Each hash is SHA-256 of the salt and the block.
 *
 * The first block of data changes the first block of each level, and nothing else. So two blocks a level are kept, the
 * first and the one that is being filled, whatever the size of the file; and finish goes the way up once more. */
#ifndef FASTOCI_VERITY_VERITY_H
#define FASTOCI_VERITY_VERITY_H

#include "sha256/sha256.h"

#include <stddef.h>
#include <stdint.h>

#define VERITY_BLOCK 4096                 /* bytes of a block of data or of hashes */
#define VERITY_HASHES (VERITY_BLOCK / 32) /* of a block of hashes */
#define VERITY_LEVELS 8                   /* enough for 2^63 bytes: 2^51 blocks, 7 bits a level */
#define VERITY_SALT 32                    /* bytes at most */

struct verity_level {
    uint64_t hashes; /* of this level so far; the first one is set by finish */
    int64_t offset;  /* of the level in the file that it is written to */
    uint8_t first[VERITY_BLOCK], last[VERITY_BLOCK];
};

struct verity_tree {
    const struct sha256_tier *tier;
    struct sha256 salted; /* the state of a hash after the salt */
    int fd;               /* blocks of hashes are written to, or -1 */
    int code;             /* the first failure to write, -errno */
    size_t used;          /* bytes of a block that is not whole */
    uint8_t part[VERITY_BLOCK];
    struct verity_level levels[VERITY_LEVELS];
};

/* A tree of a file of which nothing is there yet. salt_size is at most VERITY_SALT. */
void verity_begin(struct verity_tree *tree, const struct sha256_tier *tier, const uint8_t *salt, size_t salt_size);

/* Write the blocks of hashes of a file of size bytes to fd as they become complete, at offset and behind it, the highest
 * level first; where they end. */
int64_t verity_write_to(struct verity_tree *tree, int fd, int64_t offset, uint64_t size);

/* The next bytes of the file, from VERITY_BLOCK on. */
void verity_feed(struct verity_tree *tree, const uint8_t *data, size_t size);

/* The end of the file: its first block, of size bytes (fewer than VERITY_BLOCK only when nothing was fed), and the root of
 * the tree. 0, or -errno when a block could not be written. */
int verity_finish(struct verity_tree *tree, const uint8_t *first, size_t size, uint8_t root[32]);

#endif
