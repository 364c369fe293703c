/* The kernels for 64-bit ARM: each step for one, two or three streams before the next step. */
#include "sha256/arm.h"

#include "sha256/context.h"

#if defined(__aarch64__) && defined(__AARCH64EL__)

/* The vector registers of each lane: the state A (words a to d) and E (e to h), where both were when the block began (B
 * and F), the last sixteen message words in four groups, the scratch T and S. With v31 for the constants three lanes
 * fit, so nothing is spilled. */
#define A0 "0"
#define E0 "1"
#define A1 "2"
#define E1 "3"
#define A2 "4"
#define E2 "5"
#define B0 "6"
#define F0 "7"
#define B1 "8"
#define F1 "9"
#define B2 "10"
#define F2 "11"
#define W00 "12"
#define W01 "13"
#define W02 "14"
#define W03 "15"
#define W10 "16"
#define W11 "17"
#define W12 "18"
#define W13 "19"
#define W20 "20"
#define W21 "21"
#define W22 "22"
#define W23 "23"
#define T0 "24"
#define T1 "25"
#define T2 "26"
#define S0 "27"
#define S1 "28"
#define S2 "29"
#define CLOBBERS                                                                                                       \
    "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15",    \
        "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v31"

/* A step, done for each lane before the next step: a core that issues in order finds work while a result is late. */
#define ONE(step, ...) step(0, __VA_ARGS__)
#define TWO(step, ...) step(0, __VA_ARGS__) step(1, __VA_ARGS__)
#define THREE(step, ...) step(0, __VA_ARGS__) step(1, __VA_ARGS__) step(2, __VA_ARGS__)

/* The steps of lane l; i, j, k, m are groups of its message words, the oldest first. Where one is not used it is 0. */
#define BEGIN(l, i) "ld1 {v" A##l ".4s, v" E##l ".4s}, [%[words" #l "]]\n\t"
#define END(l, i) "st1 {v" A##l ".4s, v" E##l ".4s}, [%[words" #l "]]\n\t"
#define LOAD(l, i) "ld1 {v" W##l##0 ".16b-v" W##l##3 ".16b}, [%[data" #l "]], #64\n\t"
#define SWAP(l, i) "rev32 v" W##l##i ".16b, v" W##l##i ".16b\n\t"
#define KEEP(l, i) "mov v" B##l ".16b, v" A##l ".16b\n\tmov v" F##l ".16b, v" E##l ".16b\n\t"
#define SUM(l, i)                                                                                                      \
    "add v" A##l ".4s, v" A##l ".4s, v" B##l ".4s\n\tadd v" E##l ".4s, v" E##l ".4s, v" F##l ".4s\n\t"
#define ADD(l, i) "add v" T##l ".4s, v" W##l##i ".4s, v31.4s\n\t"
#define COPY(l, i) "mov v" S##l ".16b, v" A##l ".16b\n\t"
#define HASH(l, i) "sha256h q" A##l ", q" E##l ", v" T##l ".4s\n\t"
#define HASH2(l, i) "sha256h2 q" E##l ", q" S##l ", v" T##l ".4s\n\t"
#define NEXT0(l, i, j) "sha256su0 v" W##l##i ".4s, v" W##l##j ".4s\n\t"
#define NEXT1(l, i, k, m) "sha256su1 v" W##l##i ".4s, v" W##l##k ".4s, v" W##l##m ".4s\n\t"

/* Four rounds with group i of the words, the n-th group of constants; LAST makes no new words in their place. */
#define CONSTANTS(n) "ldr q31, [%[constants], #" #n "*16]\n\t"
#define LAST(LANES, n, i) CONSTANTS(n) LANES(ADD, i) LANES(COPY, i) LANES(HASH, i) LANES(HASH2, i)
#define ROUNDS(LANES, n, i, j, k, m)                                                                                   \
    CONSTANTS(n) LANES(ADD, i) LANES(COPY, i) LANES(NEXT0, i, j)                                                       \
    LANES(HASH, i) LANES(HASH2, i) LANES(NEXT1, i, k, m)
#define SIXTEEN(LANES, n0, n1, n2, n3)                                                                                 \
    ROUNDS(LANES, n0, 0, 1, 2, 3) ROUNDS(LANES, n1, 1, 2, 3, 0)                                                        \
    ROUNDS(LANES, n2, 2, 3, 0, 1) ROUNDS(LANES, n3, 3, 0, 1, 2)

#define BLOCKS(LANES)                                                                                                  \
    ".arch_extension sha2\n\t" LANES(BEGIN, 0)                                                                         \
    ".p2align 5\n"                                                                                                     \
    "1:\n\t"                                                                                                           \
    LANES(LOAD, 0) LANES(KEEP, 0) LANES(SWAP, 0) LANES(SWAP, 1) LANES(SWAP, 2) LANES(SWAP, 3)                          \
    SIXTEEN(LANES, 0, 1, 2, 3) SIXTEEN(LANES, 4, 5, 6, 7) SIXTEEN(LANES, 8, 9, 10, 11)                                 \
    LAST(LANES, 12, 0) LAST(LANES, 13, 1) LAST(LANES, 14, 2) LAST(LANES, 15, 3) LANES(SUM, 0)                          \
    "sub %[blocks], %[blocks], #1\n\t"                                                                                 \
    "cbnz %[blocks], 1b\n\t"                                                                                           \
    LANES(END, 0)

void sha256_arm_1(uint32_t *const words[1], const uint8_t *const data[1], size_t blocks)
{
    const uint8_t *p = data[0];
    if (blocks)
        __asm__ volatile(BLOCKS(ONE)
                         : [data0] "+r"(p), [blocks] "+r"(blocks)
                         : [constants] "r"(sha256_constants), [words0] "r"(words[0])
                         : CLOBBERS);
}

void sha256_arm_2(uint32_t *const words[2], const uint8_t *const data[2], size_t blocks)
{
    const uint8_t *p = data[0], *q = data[1];
    if (blocks)
        __asm__ volatile(BLOCKS(TWO)
                         : [data0] "+r"(p), [data1] "+r"(q), [blocks] "+r"(blocks)
                         : [constants] "r"(sha256_constants), [words0] "r"(words[0]), [words1] "r"(words[1])
                         : CLOBBERS);
}

void sha256_arm_3(uint32_t *const words[3], const uint8_t *const data[3], size_t blocks)
{
    const uint8_t *p = data[0], *q = data[1], *r = data[2];
    if (blocks)
        __asm__ volatile(BLOCKS(THREE)
                         : [data0] "+r"(p), [data1] "+r"(q), [data2] "+r"(r), [blocks] "+r"(blocks)
                         : [constants] "r"(sha256_constants), [words0] "r"(words[0]), [words1] "r"(words[1]),
                           [words2] "r"(words[2])
                         : CLOBBERS);
}

#endif
