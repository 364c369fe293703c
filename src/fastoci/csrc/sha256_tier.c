#include "sha256_internal.h"

#include <dlfcn.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>

#include "sha256_x86.h"
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#include <sys/auxv.h>

#include "sha256_arm.h"
#endif

const uint32_t sha256_constants[68] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    0x00010203, 0x04050607, 0x08090a0b, 0x0c0d0e0f, /* the big-endian order of bytes, for pshufb */
};

static uint32_t rotr(uint32_t v, int n)
{
    return v >> n | v << (32 - n);
}

void sha256_scalar(uint32_t *const all_words[1], const uint8_t *const all_data[1], size_t blocks)
{
    uint32_t *words = *all_words;
    for (const uint8_t *data = *all_data; blocks; blocks--, data += 64) {
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
            uint32_t t1 = h + s1 + ch + sha256_constants[t] + w[t];
            uint32_t s0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22), maj = (a & b) ^ (a & c) ^ (b & c);
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + s0 + maj;
        }
        words[0] += a, words[1] += b, words[2] += c, words[3] += d;
        words[4] += e, words[5] += f, words[6] += g, words[7] += h;
    }
}

/* The tier of this processor's own instructions; 0 when it has none. */
static int own_instructions(struct sha256_tier *tier)
{
#if defined(__x86_64__)
    unsigned a, b, c, d, leaf1_c;
    if (!__get_cpuid(1, &a, &b, &leaf1_c, &d) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    *tier = (struct sha256_tier){"sha-ni", {NULL, sha256_x86_1, sha256_x86_2, sha256_x86_3}, 0};
    return (b >> 29 & 1) && (leaf1_c >> 19 & 1) && (leaf1_c >> 9 & 1); /* SHA, SSE4.1, SSSE3 */
#elif defined(__aarch64__) && defined(__AARCH64EL__)
    *tier = (struct sha256_tier){"sha-arm", {NULL, sha256_arm_1, sha256_arm_2, sha256_arm_3}, 0};
    return (getauxval(AT_HWCAP) & HWCAP_SHA2) != 0;
#else
    (void)tier;
    return 0;
#endif
}

/* libcrypto's public SHA256_CTX: the words come first. */
struct openssl_ctx {
    uint32_t words[8], low, high, data[16];
    unsigned used, digest_size;
};

static int (*openssl_update)(struct openssl_ctx *, const void *, size_t);

static void openssl_blocks(uint32_t *const *words, const uint8_t *const *data, size_t blocks)
{
    struct openssl_ctx ctx = {.digest_size = 32};
    memcpy(ctx.words, *words, sizeof ctx.words);
    if (openssl_update(&ctx, *data, blocks * 64) == 1)
        memcpy(*words, ctx.words, sizeof ctx.words);
    else
        sha256_scalar(words, data, blocks);
}

static int have_openssl(void)
{
    void *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return 0;
    void *symbol = dlsym(library, "SHA256_Update");
    memcpy(&openssl_update, &symbol, sizeof symbol);
    return openssl_update != NULL;
}

/* A kernel that gives other words than the scalar one is not used: its library has changed its shape. */
static int agrees(sha256_kernel kernel, int lanes)
{
    struct sha256 ours[SHA256_LANES], theirs[SHA256_LANES];
    uint32_t *words[SHA256_LANES];
    const uint8_t *data[SHA256_LANES];
    int same = 1;
    for (int i = 0; i < SHA256_LANES; i++) {
        sha256_init(&ours[i]);
        sha256_init(&theirs[i]);
        data[i] = (const uint8_t *)(sha256_constants + 16 * i);
        sha256_scalar((uint32_t *[]){ours[i].words}, &data[i], i < lanes ? 2 : 0); /* the others stay as they are */
        words[i] = theirs[i].words;
    }
    kernel(words, data, 2);
    for (int i = 0; i < SHA256_LANES; i++)
        same &= memcmp(ours[i].words, theirs[i].words, sizeof ours[i].words) == 0;
    return same;
}

static int usable(struct sha256_tier *tier)
{
    for (int lanes = 1; lanes <= SHA256_LANES; lanes++)
        if (tier->kernels[lanes] && !agrees(tier->kernels[lanes], lanes))
            return 0;
    return 1;
}

int sha256_choose(struct sha256_tier *tier, const char *name)
{
    if (own_instructions(tier) && (!name || !strcmp(name, tier->name)) && usable(tier))
        return 0;
    if ((!name || !strcmp(name, "openssl")) && have_openssl()) {
        *tier = (struct sha256_tier){"openssl", {NULL, openssl_blocks}, 1};
        if (usable(tier))
            return 0;
    }
    *tier = (struct sha256_tier){"scalar", {NULL, sha256_scalar}, 1};
    return !name || !strcmp(name, "scalar") ? 0 : -1;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The kernels take turns, so that a slower or busier while meets them all, and the shortest turn of each counts: the
 * others were interrupted. 64 rounds of 3 turns of some 5 microseconds.
 *
 * Of kernels within 5 % of the fastest the one for most streams is taken. The more lanes, the more another thread of the
 * same core takes from them: for a whole measurement three can look like two, and they are 13 % faster when it has gone.
 * Where they are no faster they cost little, since a worker joins only streams that would wait for it anyway. */
void sha256_measure(struct sha256_tier *tier)
{
    static const uint8_t zeros[SHA256_LANES][8192];
    struct sha256 states[SHA256_LANES];
    uint32_t *words[SHA256_LANES];
    const uint8_t *data[SHA256_LANES];
    double shortest[SHA256_LANES + 1], fastest = 0;
    for (int i = 0; i < SHA256_LANES; i++) {
        sha256_init(&states[i]);
        words[i] = states[i].words;
        data[i] = zeros[i];
        shortest[i + 1] = 1;
    }
    for (int round = 0; round < 64; round++)
        for (int lanes = 1; lanes <= SHA256_LANES && tier->kernels[lanes]; lanes++) {
            double began = seconds();
            tier->kernels[lanes](words, data, sizeof zeros[0] / 64);
            double took = seconds() - began;
            shortest[lanes] = took < shortest[lanes] ? took : shortest[lanes];
        }
    for (int lanes = 1; lanes <= SHA256_LANES && tier->kernels[lanes]; lanes++)
        fastest = lanes / shortest[lanes] > fastest ? lanes / shortest[lanes] : fastest;
    for (int lanes = 1; lanes <= SHA256_LANES && tier->kernels[lanes]; lanes++)
        if (lanes / shortest[lanes] > 0.95 * fastest)
            tier->lanes = lanes;
}
