/* The kernels for x86: assembly in which two and three streams are interleaved. */
#include "sha256/x86.h"

#include "sha256/context.h"

#if defined(__x86_64__)

/* The instructions keep a stream's words as ABEF and CDGH: two registers, A and C below. */
static void pack(const uint32_t w[8], uint32_t state[8])
{
    const uint32_t packed[8] = {w[5], w[4], w[1], w[0], w[7], w[6], w[3], w[2]};
    for (int i = 0; i < 8; i++)
        state[i] = packed[i];
}

static void unpack(const uint32_t state[8], uint32_t w[8])
{
    const uint32_t words[8] = {state[3], state[2], state[7], state[6], state[1], state[0], state[5], state[4]};
    for (int i = 0; i < 8; i++)
        w[i] = words[i];
}

/* Whoever used AVX last may have left the upper halves of the registers in use (ISA-L does); then each of the
 * instructions below, which keep them, waits for them: a third of the speed. */
static void leave_avx(void)
{
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroupper");
}

/* %[k] is sha256_constants: sixteen groups of four, then the byte order of a word at 256. */

/* Four rounds: the message words W (plus their constants) into the state A, C. */
#define ROUNDS(n, W, A, C)                                                                                             \
    "movdqa " W ", %%xmm0\n\t"                                                                                         \
    "paddd " n "*16(%[k]), %%xmm0\n\t"                                                                                 \
    "sha256rnds2 %%xmm0, " A ", " C "\n\t"                                                                             \
    "pshufd $0x0E, %%xmm0, %%xmm0\n\t"                                                                                 \
    "sha256rnds2 %%xmm0, " C ", " A "\n\t"

/* The first sixteen message words, big-endian in the data. */
#define LOAD(n, P, W)                                                                                                  \
    "movdqu " n "*16(" P "), " W "\n\t"                                                                                \
    "pshufb 256(%[k]), " W "\n\t"

/* The next four message words in place of W0, from W0..W3, the last sixteen; T is scratch. */
#define SCHEDULE(W0, W1, W2, W3, T)                                                                                    \
    "sha256msg1 " W1 ", " W0 "\n\t"                                                                                    \
    "movdqa " W3 ", " T "\n\t"                                                                                         \
    "palignr $4, " W2 ", " T "\n\t"                                                                                    \
    "paddd " T ", " W0 "\n\t"                                                                                          \
    "sha256msg2 " W3 ", " W0 "\n\t"

#define CLOBBERS                                                                                                       \
    "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",  \
        "xmm12", "xmm13", "xmm14", "xmm15"

/* One lane: state in xmm1, xmm2, words in xmm3 to xmm6, scratch xmm7. */
#define ONE(n, W) ROUNDS(n, W, "%%xmm1", "%%xmm2")
#define ONE_NEXT(W0, W1, W2, W3) SCHEDULE(W0, W1, W2, W3, "%%xmm7")
#define W_ "%%xmm3"
#define X_ "%%xmm4"
#define Y_ "%%xmm5"
#define Z_ "%%xmm6"

void sha256_x86_1(uint32_t *const words[1], const uint8_t *const data[1], size_t blocks)
{
    uint32_t state[8] __attribute__((aligned(16)));
    const uint8_t *p = data[0];
    pack(words[0], state);
    leave_avx();
    if (blocks)
        __asm__ volatile("movdqa (%[s]), %%xmm1\n\t"
                         "movdqa 16(%[s]), %%xmm2\n\t"
                         ".p2align 5\n"
                         "1:\n\t"
                         "movdqa %%xmm1, %%xmm8\n\t"
                         "movdqa %%xmm2, %%xmm9\n\t"
                         LOAD("0", "%[p]", W_) ONE("0", W_) LOAD("1", "%[p]", X_) ONE("1", X_)
                         LOAD("2", "%[p]", Y_) ONE("2", Y_) LOAD("3", "%[p]", Z_) ONE("3", Z_)
                         ONE_NEXT(W_, X_, Y_, Z_) ONE("4", W_) ONE_NEXT(X_, Y_, Z_, W_) ONE("5", X_)
                         ONE_NEXT(Y_, Z_, W_, X_) ONE("6", Y_) ONE_NEXT(Z_, W_, X_, Y_) ONE("7", Z_)
                         ONE_NEXT(W_, X_, Y_, Z_) ONE("8", W_) ONE_NEXT(X_, Y_, Z_, W_) ONE("9", X_)
                         ONE_NEXT(Y_, Z_, W_, X_) ONE("10", Y_) ONE_NEXT(Z_, W_, X_, Y_) ONE("11", Z_)
                         ONE_NEXT(W_, X_, Y_, Z_) ONE("12", W_) ONE_NEXT(X_, Y_, Z_, W_) ONE("13", X_)
                         ONE_NEXT(Y_, Z_, W_, X_) ONE("14", Y_) ONE_NEXT(Z_, W_, X_, Y_) ONE("15", Z_)
                         "paddd %%xmm8, %%xmm1\n\t"
                         "paddd %%xmm9, %%xmm2\n\t"
                         "add $64, %[p]\n\t"
                         "dec %[n]\n\t"
                         "jnz 1b\n\t"
                         "movdqa %%xmm1, (%[s])\n\t"
                         "movdqa %%xmm2, 16(%[s])\n\t"
                         : [p] "+r"(p), [n] "+r"(blocks)
                         : [k] "r"(sha256_constants), [s] "r"(state)
                         : CLOBBERS);
    unpack(state, words[0]);
}

/* Two lanes: states in xmm1, xmm2 and xmm3, xmm4, words in xmm5 to xmm8 and xmm9 to xmm12, scratch xmm13. */
#define TWO(n, W, V) ROUNDS(n, W, "%%xmm1", "%%xmm2") ROUNDS(n, V, "%%xmm3", "%%xmm4")
#define TWO_LOAD(n, W, V) LOAD(n, "%[p]", W) LOAD(n, "%[q]", V) TWO(n, W, V)
#define TWO_NEXT(n, W0, W1, W2, W3, V0, V1, V2, V3)                                                                    \
    SCHEDULE(W0, W1, W2, W3, "%%xmm13") SCHEDULE(V0, V1, V2, V3, "%%xmm13") TWO(n, W0, V0)
#define A0 "%%xmm5"
#define A1 "%%xmm6"
#define A2 "%%xmm7"
#define A3 "%%xmm8"
#define B0 "%%xmm9"
#define B1 "%%xmm10"
#define B2 "%%xmm11"
#define B3 "%%xmm12"
#define TWO_SIXTEEN(n0, n1, n2, n3)                                                                                    \
    TWO_NEXT(n0, A0, A1, A2, A3, B0, B1, B2, B3)                                                                       \
    TWO_NEXT(n1, A1, A2, A3, A0, B1, B2, B3, B0)                                                                       \
    TWO_NEXT(n2, A2, A3, A0, A1, B2, B3, B0, B1)                                                                       \
    TWO_NEXT(n3, A3, A0, A1, A2, B3, B0, B1, B2)

void sha256_x86_2(uint32_t *const words[2], const uint8_t *const data[2], size_t blocks)
{
    uint32_t state[32] __attribute__((aligned(16))); /* two states, and where they were when the block began */
    const uint8_t *p = data[0], *q = data[1];
    pack(words[0], state);
    pack(words[1], state + 8);
    leave_avx();
    if (blocks)
        __asm__ volatile("movdqa (%[s]), %%xmm1\n\t"
                         "movdqa 16(%[s]), %%xmm2\n\t"
                         "movdqa 32(%[s]), %%xmm3\n\t"
                         "movdqa 48(%[s]), %%xmm4\n\t"
                         ".p2align 5\n"
                         "1:\n\t"
                         "movdqa %%xmm1, %%xmm14\n\t"
                         "movdqa %%xmm2, %%xmm15\n\t"
                         "movdqa %%xmm3, 64(%[s])\n\t"
                         "movdqa %%xmm4, 80(%[s])\n\t"
                         TWO_LOAD("0", A0, B0) TWO_LOAD("1", A1, B1) TWO_LOAD("2", A2, B2) TWO_LOAD("3", A3, B3)
                         TWO_SIXTEEN("4", "5", "6", "7")
                         TWO_SIXTEEN("8", "9", "10", "11")
                         TWO_SIXTEEN("12", "13", "14", "15")
                         "paddd %%xmm14, %%xmm1\n\t"
                         "paddd %%xmm15, %%xmm2\n\t"
                         "paddd 64(%[s]), %%xmm3\n\t"
                         "paddd 80(%[s]), %%xmm4\n\t"
                         "add $64, %[p]\n\t"
                         "add $64, %[q]\n\t"
                         "dec %[n]\n\t"
                         "jnz 1b\n\t"
                         "movdqa %%xmm1, (%[s])\n\t"
                         "movdqa %%xmm2, 16(%[s])\n\t"
                         "movdqa %%xmm3, 32(%[s])\n\t"
                         "movdqa %%xmm4, 48(%[s])\n\t"
                         : [p] "+r"(p), [q] "+r"(q), [n] "+r"(blocks)
                         : [k] "r"(sha256_constants), [s] "r"(state)
                         : CLOBBERS);
    unpack(state, words[0]);
    unpack(state + 8, words[1]);
}

/* Three lanes: states in xmm1 to xmm6. The message words do not fit in registers: they live in a ring on the stack at
 * %[w], four groups of 16 bytes a lane, and only the newest group stays in a register, where the next one needs it at
 * once (through memory it would come too late). Even groups of the lanes are made in xmm7 to xmm9, odd ones in xmm10 to
 * xmm12; xmm13 is scratch. */
#define RING(lane, i) lane "*64+" i "*16(%[w])"
#define THREE_LOAD1(n, lane, P, A, C, T) LOAD(n, P, T) "movdqa " T ", " RING(lane, n) "\n\t" ROUNDS(n, T, A, C)
#define THREE_LOAD(n, T0, T1, T2)                                                                                      \
    THREE_LOAD1(n, "0", "%[p]", "%%xmm1", "%%xmm2", T0)                                                                \
    THREE_LOAD1(n, "1", "%[q]", "%%xmm3", "%%xmm4", T1)                                                                \
    THREE_LOAD1(n, "2", "%[r]", "%%xmm5", "%%xmm6", T2)
#define THREE_NEXT1(n, lane, i0, i1, i2, A, C, T, LAST)                                                                \
    "movdqa " RING(lane, i0) ", " T "\n\t"                                                                             \
    "sha256msg1 " RING(lane, i1) ", " T "\n\t"                                                                         \
    "movdqa " LAST ", %%xmm13\n\t"                                                                                     \
    "palignr $4, " RING(lane, i2) ", %%xmm13\n\t"                                                                      \
    "paddd %%xmm13, " T "\n\t"                                                                                         \
    "sha256msg2 " LAST ", " T "\n\t"                                                                                   \
    "movdqa " T ", " RING(lane, i0) "\n\t" ROUNDS(n, T, A, C)
#define THREE_NEXT(n, i0, i1, i2, T0, T1, T2, L0, L1, L2)                                                              \
    THREE_NEXT1(n, "0", i0, i1, i2, "%%xmm1", "%%xmm2", T0, L0)                                                        \
    THREE_NEXT1(n, "1", i0, i1, i2, "%%xmm3", "%%xmm4", T1, L1)                                                        \
    THREE_NEXT1(n, "2", i0, i1, i2, "%%xmm5", "%%xmm6", T2, L2)
#define EVEN "%%xmm7", "%%xmm8", "%%xmm9"
#define ODD "%%xmm10", "%%xmm11", "%%xmm12"
#define THREE_WITH(macro, ...) macro(__VA_ARGS__)
#define THREE_SIXTEEN(n0, n1, n2, n3)                                                                                  \
    THREE_WITH(THREE_NEXT, n0, "0", "1", "2", EVEN, ODD)                                                               \
    THREE_WITH(THREE_NEXT, n1, "1", "2", "3", ODD, EVEN)                                                               \
    THREE_WITH(THREE_NEXT, n2, "2", "3", "0", EVEN, ODD)                                                               \
    THREE_WITH(THREE_NEXT, n3, "3", "0", "1", ODD, EVEN)

/* A block of each lane; the states as they were when it began are added at its end. */
#define THREE_BLOCK                                                                                                    \
    "movdqa %%xmm1, %%xmm14\n\t"                                                                                       \
    "movdqa %%xmm2, %%xmm15\n\t"                                                                                       \
    "movdqa %%xmm3, 144(%[s])\n\t"                                                                                     \
    "movdqa %%xmm4, 96(%[s])\n\t"                                                                                      \
    "movdqa %%xmm5, 112(%[s])\n\t"                                                                                     \
    "movdqa %%xmm6, 128(%[s])\n\t"                                                                                     \
    THREE_WITH(THREE_LOAD, "0", EVEN) THREE_WITH(THREE_LOAD, "1", ODD)                                                 \
    THREE_WITH(THREE_LOAD, "2", EVEN) THREE_WITH(THREE_LOAD, "3", ODD)                                                 \
    THREE_SIXTEEN("4", "5", "6", "7")                                                                                  \
    THREE_SIXTEEN("8", "9", "10", "11")                                                                                \
    THREE_SIXTEEN("12", "13", "14", "15")                                                                              \
    "paddd %%xmm14, %%xmm1\n\t"                                                                                        \
    "paddd %%xmm15, %%xmm2\n\t"                                                                                        \
    "paddd 144(%[s]), %%xmm3\n\t"                                                                                      \
    "paddd 96(%[s]), %%xmm4\n\t"                                                                                       \
    "paddd 112(%[s]), %%xmm5\n\t"                                                                                      \
    "paddd 128(%[s]), %%xmm6\n\t"

void sha256_x86_3(uint32_t *const words[3], const uint8_t *const data[3], size_t blocks)
{
    uint32_t state[48] __attribute__((aligned(16)));
    uint32_t ring[48] __attribute__((aligned(16)));
    const uint8_t *p = data[0], *q = data[1], *r = data[2];
    for (int lane = 0; lane < 3; lane++)
        pack(words[lane], state + 8 * lane);
    leave_avx();
    if (blocks)
        __asm__ volatile("movdqa (%[s]), %%xmm1\n\t"
                         "movdqa 16(%[s]), %%xmm2\n\t"
                         "movdqa 32(%[s]), %%xmm3\n\t"
                         "movdqa 48(%[s]), %%xmm4\n\t"
                         "movdqa 64(%[s]), %%xmm5\n\t"
                         "movdqa 80(%[s]), %%xmm6\n\t"
                         ".p2align 5\n"
                         "1:\n\t"
                         THREE_BLOCK
                         "add $64, %[p]\n\t"
                         "add $64, %[q]\n\t"
                         "add $64, %[r]\n\t"
                         "dec %[n]\n\t"
                         "jnz 1b\n\t"
                         "movdqa %%xmm1, (%[s])\n\t"
                         "movdqa %%xmm2, 16(%[s])\n\t"
                         "movdqa %%xmm3, 32(%[s])\n\t"
                         "movdqa %%xmm4, 48(%[s])\n\t"
                         "movdqa %%xmm5, 64(%[s])\n\t"
                         "movdqa %%xmm6, 80(%[s])\n\t"
                         : [p] "+r"(p), [q] "+r"(q), [r] "+r"(r), [n] "+r"(blocks)
                         : [k] "r"(sha256_constants), [s] "r"(state), [w] "r"(ring)
                         : CLOBBERS);
    for (int lane = 0; lane < 3; lane++)
        unpack(state + 8 * lane, words[lane]);
}

#endif
