/* SHA-256 (FIPS 180-4), streaming, with a state that can be saved, many streams at a time.
 *
 * A tier is one way to compress whole blocks: "sha-ni" (x86 SHA extensions), "sha-arm" (ARMv8 SHA2 instructions),
 * "openssl" (libcrypto's SHA256_Update, found in the process), "scalar". All give the same words. Knows no Python.
 */
#ifndef FASTOCI_SHA256_H
#define FASTOCI_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_STATE_SIZE 104 /* 8 words big-endian, the byte count big-endian, the tail */
#define SHA256_LANES 3        /* streams that a kernel takes at most */

/* Advance each of n streams, n the index of the kernel, by the same number of whole blocks. */
typedef void (*sha256_kernel)(uint32_t *const *words, const uint8_t *const *data, size_t blocks);

struct sha256_tier {
    const char *name;
    sha256_kernel kernels[SHA256_LANES + 1]; /* by the number of streams; [1] is always there, NULL for none */
    int lanes;                               /* the number of streams that was fastest here, 0: not measured yet */
};

struct sha256 {
    uint32_t words[8];
    uint64_t count; /* bytes so far; count % 64 of them are in tail */
    uint8_t tail[64];
};

/* Fill in the tier called name, or the best one for NULL; -1 when it cannot run here. */
int sha256_choose(struct sha256_tier *tier, const char *name);
/* Find out, in about a millisecond, how many streams at a time are fastest; sets tier->lanes. */
void sha256_measure(struct sha256_tier *tier);

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

#endif
