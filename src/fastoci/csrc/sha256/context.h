/* What the files of SHA-256 share: the constants of the standard, words in memory. Not for other units. */
#ifndef FASTOCI_SHA256_CONTEXT_H
#define FASTOCI_SHA256_CONTEXT_H

#include <stdint.h>

/* FIPS 180-4's 64 round constants, and the order of bytes in a word as a shuffle. */
extern const uint32_t sha256_constants[68];
/* The words before the first block. */
extern const uint32_t sha256_start[8];

static inline uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void store32(uint8_t *p, uint32_t v)
{
    p[0] = v >> 24, p[1] = v >> 16, p[2] = v >> 8, p[3] = v;
}

#endif
