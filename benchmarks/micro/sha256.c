/* SHA-256 of the core without Python, for sha256.py: what the same sources make of another compiler's flags.
 *
 *   sha256 stream TIER SECONDS          bytes a second of sha256_update, from a piece in the cache
 *   sha256 buffers TIER SECONDS COUNT     bytes a second of COUNT streams together, a full buffer of 1 MiB each
 *   sha256 lanes TIER                   how many lanes the measurement at the start chooses
 *
 * A second is one of CPU time. */
#include "sha256/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PIECE (256 << 10)
#define SPAN (1 << 20)

static struct sha256 states[SHA256_LANES];
static uint8_t *memory[SHA256_LANES];

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void stream(const struct sha256_tier *tier)
{
    sha256_update(&states[0], tier, memory[0], PIECE);
}

static void buffers(const struct sha256_tier *tier)
{
    struct sha256 *each[SHA256_LANES];
    const uint8_t *data[SHA256_LANES];
    size_t sizes[SHA256_LANES];
    for (int i = 0; i < tier->lanes; i++)
        each[i] = &states[i], data[i] = memory[i], sizes[i] = SPAN;
    sha256_update_many(each, data, sizes, (size_t)tier->lanes, tier);
}

static double rate(void (*work)(const struct sha256_tier *), const struct sha256_tier *tier, double bytes, double limit)
{
    double began, spent, done = 0;
    for (int warm = 0; warm < 8; warm++)
        work(tier);
    began = cpu_seconds();
    while ((spent = cpu_seconds() - began) < limit) {
        work(tier);
        done += bytes;
    }
    return done / spent;
}

int main(int argc, char **argv)
{
    struct sha256_tier tier;
    if (argc < 3 || sha256_choose(&tier, argv[2]))
        return 1;
    for (int i = 0; i < SHA256_LANES; i++) {
        sha256_init(&states[i]);
        memory[i] = malloc(SPAN);
        if (!memory[i])
            return 1;
        memset(memory[i], 0x5a + i, SPAN);
    }
    if (!strcmp(argv[1], "stream") && argc == 4)
        return printf("%.0f\n", rate(stream, &tier, PIECE, atof(argv[3]))) < 0;
    if (!strcmp(argv[1], "buffers") && argc == 5) {
        tier.lanes = atoi(argv[4]);
        if (tier.lanes < 1 || tier.lanes > SHA256_LANES || !tier.kernels[tier.lanes])
            return 1;
        return printf("%.0f\n", rate(buffers, &tier, (double)SPAN * tier.lanes, atof(argv[3]))) < 0;
    }
    if (!strcmp(argv[1], "lanes") && argc == 3) {
        sha256_measure(&tier);
        return printf("%d\n", tier.lanes) < 0;
    }
    return 1;
}
