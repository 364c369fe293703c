/* What sha256_tier.c and the kernels share with sha256.c. */
#ifndef FASTOCI_SHA256_INTERNAL_H
#define FASTOCI_SHA256_INTERNAL_H

#include "sha256.h"

/* FIPS 180-4's 64 round constants, and the order of bytes in a word as a shuffle. */
extern const uint32_t sha256_constants[68];

/* The scalar twin of every kernel, for one stream. */
void sha256_scalar(uint32_t *const words[1], const uint8_t *const data[1], size_t blocks);

static inline uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void store32(uint8_t *p, uint32_t v)
{
    p[0] = v >> 24, p[1] = v >> 16, p[2] = v >> 8, p[3] = v;
}

#endif
