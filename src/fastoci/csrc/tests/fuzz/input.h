/* What the fuzz targets share: windows chosen by the input itself, memory that ends at a forbidden page, sums. */
#ifndef FASTOCI_FUZZ_H
#define FASTOCI_FUZZ_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEMAND(condition)                                                                                                        \
    do {                                                                                                                         \
        if (!(condition)) {                                                                                                      \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #condition);                                        \
            abort(); /* which libFuzzer reports with the input */                                                                \
        }                                                                                                                        \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static inline uint64_t mix(uint64_t sum, const void *data, size_t len)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < len; i++)
        sum = (sum ^ bytes[i]) * 1099511628211u;
    return sum;
}

/* The next window: often a few bytes, sometimes up to max. The same input gives the same ones. */
static inline size_t next_window(uint64_t *state, size_t max)
{
    uint64_t bits = (*state = *state * 6364136223846793005u + 1442695040888963407u) >> 33;

    return 1 + (bits >> 2) % (bits % 4 ? max : max < 16 ? max : 16);
}

enum { GUARDED_MAX = 1 << 20 };

/* len bytes that end where the next page may not be touched: finds what a library without a sanitizer does, too. */
static inline uint8_t *guarded(uint8_t **area, size_t len)
{
    if (!*area) {
        *area = mmap(NULL, GUARDED_MAX + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        DEMAND(*area != MAP_FAILED && mprotect(*area + GUARDED_MAX, 4096, PROT_NONE) == 0);
    }
    DEMAND(len <= GUARDED_MAX);
    return *area + GUARDED_MAX - len;
}

/* What comes next of an input, in guarded memory: a window of at most 2000 bytes, or all, when state is NULL. */
static inline uint8_t *next_piece(const uint8_t *data, size_t left, uint64_t *state, size_t *size)
{
    static uint8_t *area;

    *size = state ? next_window(state, 2000) : left;
    *size = *size < left ? *size : left;
    return memcpy(guarded(&area, *size), data, *size);
}

/* Changes when a descriptor was leaked. */
static inline int next_fd(void)
{
    int fd = dup(2);

    close(fd);
    return fd;
}

/* For targets that read tar: checksums would stop nearly every mutation, so most mutants get right ones. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed);

#define TAR_MUTATOR                                                                                                              \
    size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed)                                         \
    {                                                                                                                            \
        len = LLVMFuzzerMutate(data, len, max);                                                                                  \
        for (size_t at = 0; seed % 8 && at + 512 <= len; at += 512)                                                              \
            if (memcmp(data + at + 257, "ustar", 5) == 0)                                                                        \
                seal(data + at);                                                                                                 \
        return len;                                                                                                              \
    }

#endif
