/* Which kernels this machine runs, tried against the scalar one, and how many lanes are fastest. */
#include "sha256/tier.h"

#include "sha256/context.h"
#include "sha256/scalar.h"

#include <dlfcn.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>

#include "sha256/x86.h"
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#include <sys/auxv.h>

#include "sha256/arm.h"
#endif

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
    uint32_t ours[SHA256_LANES][8], theirs[SHA256_LANES][8], *words[SHA256_LANES];
    const uint8_t *data[SHA256_LANES];

    for (int i = 0; i < SHA256_LANES; i++) {
        memcpy(ours[i], sha256_start, sizeof ours[i]);
        memcpy(theirs[i], sha256_start, sizeof theirs[i]);
        data[i] = (const uint8_t *)(sha256_constants + 16 * i);
        sha256_scalar((uint32_t *[]){ours[i]}, &data[i], i < lanes ? 2 : 0); /* the others stay as they are */
        words[i] = theirs[i];
    }
    kernel(words, data, 2);
    return memcmp(ours, theirs, sizeof ours) == 0;
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
 * others were interrupted. 64 times 3 turns of some 5 microseconds.
 *
 * Of kernels within 5 % of the fastest the one for most streams is taken. The more lanes, the more another thread of the
 * same core takes from them: for a whole measurement three can seem like two, and they are 13 % faster when it has gone.
 * Where they are no faster they cost little, since a worker joins only streams that would wait for it anyway. */
void sha256_measure(struct sha256_tier *tier)
{
    static const uint8_t zeros[SHA256_LANES][8192];
    uint32_t states[SHA256_LANES][8], *words[SHA256_LANES];
    const uint8_t *data[SHA256_LANES];
    double shortest[SHA256_LANES + 1], fastest = 0;
    for (int i = 0; i < SHA256_LANES; i++) {
        memcpy(states[i], sha256_start, sizeof states[i]);
        words[i] = states[i];
        data[i] = zeros[i];
        shortest[i + 1] = 1;
    }
    for (int turn = 0; turn < 64; turn++)
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
