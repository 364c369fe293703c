#include "sha256.h"

#include <dlfcn.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

static const uint32_t K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store32(uint8_t *p, uint32_t v)
{
    p[0] = v >> 24, p[1] = v >> 16, p[2] = v >> 8, p[3] = v;
}

static uint32_t rotr(uint32_t v, int n)
{
    return v >> n | v << (32 - n);
}

static void scalar_blocks(uint32_t words[8], const uint8_t *data, size_t blocks)
{
    for (; blocks; blocks--, data += 64) {
        uint32_t w[64], a = words[0], b = words[1], c = words[2], d = words[3];
        uint32_t e = words[4], f = words[5], g = words[6], h = words[7];
        for (int t = 0; t < 16; t++)
            w[t] = load32(data + 4 * t);
        for (int t = 16; t < 64; t++) {
            uint32_t s0 = rotr(w[t - 15], 7) ^ rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
            uint32_t s1 = rotr(w[t - 2], 17) ^ rotr(w[t - 2], 19) ^ w[t - 2] >> 10;
            w[t] = w[t - 16] + s0 + w[t - 7] + s1;
        }
        for (int t = 0; t < 64; t++) {
            uint32_t s1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25), ch = (e & f) ^ (~e & g);
            uint32_t t1 = h + s1 + ch + K[t] + w[t];
            uint32_t s0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22), maj = (a & b) ^ (a & c) ^ (b & c);
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + s0 + maj;
        }
        words[0] += a, words[1] += b, words[2] += c, words[3] += d;
        words[4] += e, words[5] += f, words[6] += g, words[7] += h;
    }
}

#if defined(__x86_64__)
/* The instructions keep the words as ABEF and CDGH; two rounds each, four words of schedule at a time. */
__attribute__((target("sha,sse4.1,ssse3"))) static void sha_ni_blocks(uint32_t words[8], const uint8_t *data, size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i dcba = _mm_loadu_si128((const __m128i *)words), hgfe = _mm_loadu_si128((const __m128i *)(words + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xB1), efgh = _mm_shuffle_epi32(hgfe, 0x1B);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);

    for (; blocks; blocks--, data += 64) {
        const __m128i abef0 = abef, cdgh0 = cdgh;
        __m128i w[4];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i < 4)
                w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), swap);
            __m128i rounds = _mm_add_epi32(w[i & 3], _mm_load_si128((const __m128i *)(K + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, rounds);
            if (i >= 3 && i < 15) { /* the next four words, made from the last sixteen */
                __m128i sum = _mm_sha256msg1_epu32(w[(i + 1) & 3], w[(i + 2) & 3]);
                sum = _mm_add_epi32(sum, _mm_alignr_epi8(w[i & 3], w[(i + 3) & 3], 4));
                w[(i + 1) & 3] = _mm_sha256msg2_epu32(sum, w[i & 3]);
            }
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(rounds, 0x0E));
        }
        abef = _mm_add_epi32(abef, abef0);
        cdgh = _mm_add_epi32(cdgh, cdgh0);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1B), dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)words, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(words + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static int have_sha_ni(void)
{
    unsigned a, b, c, d, leaf1_c;
    if (!__get_cpuid(1, &a, &b, &leaf1_c, &d) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    return (b >> 29 & 1) && (leaf1_c >> 19 & 1) && (leaf1_c >> 9 & 1); /* SHA, SSE4.1, SSSE3 */
}
#endif

/* libcrypto's public SHA256_CTX: the words come first. */
struct openssl_ctx {
    uint32_t words[8], low, high, data[16];
    unsigned used, digest_size;
};

static int (*openssl_update)(struct openssl_ctx *, const void *, size_t);

static void openssl_blocks(uint32_t words[8], const uint8_t *data, size_t blocks)
{
    struct openssl_ctx ctx = {.digest_size = 32};
    memcpy(ctx.words, words, sizeof ctx.words);
    openssl_update(&ctx, data, blocks * 64);
    memcpy(words, ctx.words, sizeof ctx.words);
}

/* A tier that gives other words than the scalar one is not used: its library has changed its shape. */
static int agrees(sha256_blocks_fn blocks)
{
    struct sha256 ours, theirs;
    sha256_init(&ours);
    sha256_init(&theirs);
    scalar_blocks(ours.words, (const uint8_t *)K, 4);
    blocks(theirs.words, (const uint8_t *)K, 4);
    return memcmp(ours.words, theirs.words, sizeof ours.words) == 0;
}

static int have_openssl(void)
{
    void *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return 0;
    void *symbol = dlsym(library, "SHA256_Update");
    memcpy(&openssl_update, &symbol, sizeof symbol);
    return openssl_update && agrees(openssl_blocks);
}

sha256_blocks_fn sha256_tier(const char *name, const char **found)
{
#if defined(__x86_64__)
    if ((!name || !strcmp(name, "sha-ni")) && have_sha_ni())
        return *found = "sha-ni", sha_ni_blocks;
#endif
    if ((!name || !strcmp(name, "openssl")) && have_openssl())
        return *found = "openssl", openssl_blocks;
    if (!name || !strcmp(name, "scalar"))
        return *found = "scalar", scalar_blocks;
    return NULL;
}

void sha256_init(struct sha256 *state)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memset(state, 0, sizeof *state);
    memcpy(state->words, start, sizeof start);
}

void sha256_update(struct sha256 *state, sha256_blocks_fn blocks, const uint8_t *data, size_t size)
{
    size_t used = state->count % 64;
    state->count += size;
    if (used) {
        size_t take = size < 64 - used ? size : 64 - used;
        memcpy(state->tail + used, data, take);
        data += take, size -= take;
        if (used + take < 64)
            return;
        blocks(state->words, state->tail, 1);
    }
    blocks(state->words, data, size / 64);
    if (size % 64)
        memcpy(state->tail, data + size / 64 * 64, size % 64);
}

void sha256_digest(const struct sha256 *state, sha256_blocks_fn blocks, uint8_t digest[32])
{
    uint32_t words[8];
    uint8_t end[128] = {0};
    size_t used = state->count % 64, size = used < 56 ? 64 : 128;
    memcpy(words, state->words, sizeof words);
    memcpy(end, state->tail, used);
    end[used] = 0x80;
    for (int i = 0; i < 8; i++)
        end[size - 1 - i] = state->count * 8 >> 8 * i;
    blocks(words, end, size / 64);
    for (int i = 0; i < 8; i++)
        store32(digest + 4 * i, words[i]);
}

void sha256_save(const struct sha256 *state, uint8_t saved[SHA256_STATE_SIZE])
{
    size_t used = state->count % 64;
    for (int i = 0; i < 8; i++)
        store32(saved + 4 * i, state->words[i]);
    store32(saved + 32, state->count >> 32);
    store32(saved + 36, (uint32_t)state->count);
    memset(saved + 40, 0, 64);
    memcpy(saved + 40, state->tail, used);
}

int sha256_restore(struct sha256 *state, const uint8_t saved[SHA256_STATE_SIZE])
{
    uint64_t count = (uint64_t)load32(saved + 32) << 32 | load32(saved + 36);
    for (size_t i = count % 64; i < 64; i++)
        if (saved[40 + i])
            return -1;
    for (int i = 0; i < 8; i++)
        state->words[i] = load32(saved + 4 * i);
    state->count = count;
    memcpy(state->tail, saved + 40, 64);
    return 0;
}

void sha256_update_many(struct sha256 **states, const uint8_t **data, const size_t *sizes, size_t count, sha256_blocks_fn blocks)
{
    for (size_t i = 0; i < count; i++)
        sha256_update(states[i], blocks, data[i], sizes[i]);
}
