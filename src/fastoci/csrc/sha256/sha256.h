/* SHA-256 (FIPS 180-4), streaming, with a state that can be saved, many streams at a time. Knows no Python. */
#ifndef FASTOCI_SHA256_SHA256_H
#define FASTOCI_SHA256_SHA256_H

#include "sha256/tier.h"

#include <stddef.h>
#include <stdint.h>

#define SHA256_STATE_SIZE 104 /* 8 words big-endian, the byte count big-endian, the tail */

struct sha256 {
    uint32_t words[8];
    uint64_t count; /* bytes so far; count % 64 of them are in tail */
    uint8_t tail[64];
};

void sha256_init(struct sha256 *state);
void sha256_update(struct sha256 *state, const struct sha256_tier *tier, const uint8_t *data, size_t size);
/* The digest so far; the state stays usable. */
void sha256_digest(const struct sha256 *state, const struct sha256_tier *tier, uint8_t digest[32]);

void sha256_save(const struct sha256 *state, uint8_t saved[SHA256_STATE_SIZE]);
/* 0, or -1 when the bytes cannot be a state. */
int sha256_restore(struct sha256 *state, const uint8_t saved[SHA256_STATE_SIZE]);

/* Hash count distinct streams, each with its own data, in lanes. Scratch: count entries of each array may be changed. */
void sha256_update_many(struct sha256 **states, const uint8_t **data, size_t *sizes, size_t count,
                        const struct sha256_tier *tier);

/* The digests of count messages in lanes: each is what begun has seen, then its own size bytes (64 at least) of data, where
 * one message is behind the other. */
void sha256_digests(const struct sha256 *begun, const struct sha256_tier *tier, const uint8_t *data, size_t size, size_t count,
                    uint8_t *digests);

#endif
