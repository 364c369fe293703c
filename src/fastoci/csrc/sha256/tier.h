/* A tier is one way to compress whole blocks: "sha-ni" (x86 SHA extensions), "sha-arm" (ARMv8 SHA2 instructions),
 * "openssl" (libcrypto's SHA256_Update, found in the process), "scalar". All give the same words. */
#ifndef FASTOCI_SHA256_TIER_H
#define FASTOCI_SHA256_TIER_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_LANES 3 /* streams that a kernel takes at most */

/* Advance each of n streams, n the index of the kernel, by the same number of whole blocks. */
typedef void (*sha256_kernel)(uint32_t *const *words, const uint8_t *const *data, size_t blocks);

struct sha256_tier {
    const char *name;
    sha256_kernel kernels[SHA256_LANES + 1]; /* by the number of streams; [1] is always there, NULL for none */
    int lanes;                               /* the number of streams that was fastest here, 0: not measured yet */
};

/* Fill in the tier called name, or the best one for NULL; -1 when it cannot run here. */
int sha256_choose(struct sha256_tier *tier, const char *name);
/* Find out, in about a millisecond, how many streams at a time are fastest; sets tier->lanes. */
void sha256_measure(struct sha256_tier *tier);

#endif
