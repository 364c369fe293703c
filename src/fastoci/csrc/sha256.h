/* SHA-256 (FIPS 180-4), streaming, with a state that can be saved.
 *
 * A tier is one way to compress whole blocks: "sha-ni" (x86 SHA extensions), "openssl" (libcrypto's SHA256_Update, found
 * in the process), "scalar". All give the same words. Knows no Python.
 */
#ifndef FASTOCI_SHA256_H
#define FASTOCI_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_STATE_SIZE 104 /* 8 words big-endian, the byte count big-endian, the tail */

typedef void (*sha256_blocks_fn)(uint32_t words[8], const uint8_t *data, size_t blocks);

struct sha256 {
    uint32_t words[8];
    uint64_t count; /* bytes so far; count % 64 of them are in tail */
    uint8_t tail[64];
};

/* The tier called name, or the best one for NULL; NULL when it cannot run here. *found gets its name. */
sha256_blocks_fn sha256_tier(const char *name, const char **found);

void sha256_init(struct sha256 *state);
void sha256_update(struct sha256 *state, sha256_blocks_fn blocks, const uint8_t *data, size_t size);
/* The digest so far; the state stays usable. */
void sha256_digest(const struct sha256 *state, sha256_blocks_fn blocks, uint8_t digest[32]);

void sha256_save(const struct sha256 *state, uint8_t saved[SHA256_STATE_SIZE]);
/* 0, or -1 when the bytes cannot be a state. */
int sha256_restore(struct sha256 *state, const uint8_t saved[SHA256_STATE_SIZE]);

/* Hash count distinct streams, each with its own data. */
void sha256_update_many(struct sha256 **states, const uint8_t **data, const size_t *sizes, size_t count, sha256_blocks_fn blocks);

#endif
