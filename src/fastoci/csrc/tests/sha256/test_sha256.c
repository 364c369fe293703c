/* SHA-256 by every tier that this machine can run, against the scalar twin and known answers. Files of NIST's CAVP with
 * Len, Msg and MD, given as arguments, are checked too. Prints the tiers, the one that is chosen first. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "sha256/sha256.h"
#include "support/check.h"

#include <dlfcn.h>
#include <sys/auxv.h>

#define STREAMS 7
#define ROOM 2048

static struct sha256_tier scalar;
static uint8_t text[STREAMS][ROOM];

#if defined(__aarch64__)
static unsigned long hidden; /* capabilities of the processor that the kernel does not tell */

unsigned long getauxval(unsigned long type)
{
    static unsigned long (*real)(unsigned long);
    void *symbol;

    if (!real) {
        symbol = dlsym(RTLD_NEXT, "getauxval");
        memcpy(&real, &symbol, sizeof real);
    }
    return type == AT_HWCAP ? real(type) & ~hidden : real(type);
}
#endif

static uint32_t chance(uint32_t below)
{
    static uint64_t seed = 20260101;

    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

static void digest_of(const struct sha256_tier *tier, const uint8_t *data, size_t size, uint8_t digest[32])
{
    struct sha256 state;

    sha256_init(&state);
    sha256_update(&state, tier, data, size);
    sha256_digest(&state, tier, digest);
}

static int unhex(const char *hex, uint8_t *bytes, size_t size)
{
    unsigned byte;

    for (size_t i = 0; i < size; i++) {
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
            return -1;
        bytes[i] = (uint8_t)byte;
    }
    return 0;
}

static int is(const struct sha256_tier *tier, const uint8_t *data, size_t size, const char *hex)
{
    uint8_t digest[32], wanted[32];

    digest_of(tier, data, size, digest);
    return !unhex(hex, wanted, 32) && !memcmp(digest, wanted, 32);
}

static void known_answers(const struct sha256_tier *tier)
{
    static const char *const ANSWERS[][2] = {
        /* FIPS 180-4's examples */
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    uint8_t *as = malloc(1000000);

    for (size_t i = 0; i < sizeof ANSWERS / sizeof *ANSWERS; i++)
        CHECK(is(tier, (const uint8_t *)ANSWERS[i][0], strlen(ANSWERS[i][0]), ANSWERS[i][1]));
    CHECK(as);
    memset(as, 'a', 1000000);
    CHECK(is(tier, as, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"));
    free(as);
}

/* Two pieces split anywhere, at any alignment; between them the state is saved, and the other tier takes it up. */
static void splits(const struct sha256_tier *first, const struct sha256_tier *second)
{
    uint8_t ours[32], theirs[32], saved[SHA256_STATE_SIZE], again[SHA256_STATE_SIZE];
    struct sha256 state, other;

    for (size_t size = 0; size <= 260; size++) {
        const uint8_t *data = text[size % STREAMS] + size % 17;
        digest_of(&scalar, data, size, theirs);
        for (size_t at = 0; at <= size; at++) {
            sha256_init(&state);
            sha256_update(&state, first, data, at);
            sha256_save(&state, saved);
            memset(&other, 0xa5, sizeof other);
            CHECK(sha256_restore(&other, saved) == 0);
            sha256_save(&other, again);
            CHECK(!memcmp(saved, again, sizeof saved));
            sha256_update(&other, second, data + at, size - at);
            sha256_digest(&other, second, ours);
            CHECK(!memcmp(ours, theirs, 32));
            sha256_update(&state, first, data + at, size - at); /* saving and digests change nothing */
            sha256_digest(&state, first, ours);
            sha256_digest(&state, first, ours);
            CHECK(!memcmp(ours, theirs, 32));
        }
    }
}

static void no_states(void)
{
    struct sha256 state;
    uint8_t saved[SHA256_STATE_SIZE];

    for (size_t size = 0; size < 64; size++) {
        sha256_init(&state);
        sha256_update(&state, &scalar, text[0], size);
        for (size_t at = size; at < 64; at++) {
            sha256_save(&state, saved);
            saved[40 + at] = 1; /* beyond the tail */
            CHECK(sha256_restore(&state, saved) == -1);
        }
    }
}

/* One call for some streams, each anywhere in its data; afterwards each is where it would be alone. */
static void mix(const struct sha256_tier *tier, size_t count)
{
    struct sha256 states[STREAMS], *each[STREAMS];
    size_t before[STREAMS], sizes[STREAMS], after[STREAMS];
    const uint8_t *data[STREAMS];
    uint8_t ours[32], theirs[32];

    for (size_t i = 0; i < count; i++) {
        before[i] = chance(3) ? chance(200) : 0;
        after[i] = sizes[i] = chance(4) ? chance(ROOM - 200) : 64 * chance(4);
        each[i] = &states[i];
        data[i] = text[i] + before[i];
        sha256_init(&states[i]);
        sha256_update(&states[i], &scalar, text[i], before[i]);
    }
    sha256_update_many(each, data, sizes, count, tier);
    for (size_t i = 0; i < count; i++) {
        CHECK(states[i].count == before[i] + after[i]);
        sha256_digest(&states[i], tier, ours);
        digest_of(&scalar, text[i], before[i] + after[i], theirs);
        CHECK(!memcmp(ours, theirs, 32));
    }
}

/* Every kernel leaves the words that the scalar twin leaves, for any number of blocks, none too, and no others. */
static void kernels(const struct sha256_tier *tier, int lanes)
{
    uint32_t ours[SHA256_LANES][10], theirs[SHA256_LANES][10], *words[SHA256_LANES];
    const uint8_t *data[SHA256_LANES];

    for (size_t blocks = 0; blocks < 20; blocks++) {
        for (int i = 0; i < lanes; i++) {
            for (int word = 0; word < 10; word++)
                ours[i][word] = theirs[i][word] = chance(0x7fffffff) * 2u + 1;
            words[i] = ours[i] + 1;
            data[i] = text[i] + 3 * i + blocks;
            scalar.kernels[1]((uint32_t *[]){theirs[i] + 1}, &data[i], blocks);
        }
        tier->kernels[lanes](words, data, blocks);
        CHECK(!memcmp(ours, theirs, sizeof *ours * (size_t)lanes));
    }
}

/* Messages of one size that begin alike, side by side: each has the digest that it has alone. */
static void messages(const struct sha256_tier *tier, size_t begun)
{
    static uint8_t alone[STREAMS * ROOM];
    struct sha256 state;
    uint8_t ours[STREAMS * 32], theirs[32];

    for (size_t size = 64; size < 200; size++) {
        sha256_init(&state);
        sha256_update(&state, &scalar, text[3], begun);
        sha256_digests(&state, tier, text[0], size, STREAMS, ours);
        for (size_t i = 0; i < STREAMS; i++) {
            memcpy(alone, text[3], begun);
            memcpy(alone + begun, text[0] + i * size, size);
            digest_of(&scalar, alone, begun + size, theirs);
            CHECK(!memcmp(ours + 32 * i, theirs, 32));
        }
    }
}

static void known_file(const struct sha256_tier *tier, const char *path)
{
    static char line[1 << 20];
    static uint8_t message[1 << 19];
    size_t bits = 0, seen = 0;
    FILE *file = fopen(path, "r");

    CHECK(file);
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "Len = %zu", &bits) == 1)
            CHECK(bits % 8 == 0 && bits / 8 <= sizeof message);
        else if (!strncmp(line, "Msg = ", 6))
            CHECK(!unhex(line + 6, message, bits / 8));
        else if (!strncmp(line, "MD = ", 5) && ++seen)
            CHECK(is(tier, message, bits / 8, line + 5));
    }
    fclose(file);
    CHECK(seen >= 64);
}

static void choices(const char *const *names, int count)
{
    struct sha256_tier tier, best;

    CHECK(sha256_choose(&tier, "nonsense") == -1);
    CHECK(sha256_choose(&tier, "") == -1);
    CHECK(sha256_choose(&best, NULL) == 0 && !strcmp(best.name, names[0]));
    if (!best.lanes)
        sha256_measure(&best);
    CHECK(best.lanes >= 1 && best.lanes <= SHA256_LANES && best.kernels[best.lanes]);
#if defined(__aarch64__)
    hidden = HWCAP_SHA2;
    CHECK(sha256_choose(&tier, "sha-arm") == -1);
    CHECK(sha256_choose(&tier, NULL) == 0 && !strcmp(tier.name, names[!strcmp(names[0], "sha-arm")]));
    hidden = 0;
#endif
    printf("test_sha256: ok:");
    for (int i = 0; i < count; i++)
        printf(" %s", names[i]);
    printf("\n");
}

int main(int argc, char **argv)
{
    static const char *const NAMES[] = {"sha-ni", "sha-arm", "openssl", "scalar"};
    const char *found[4];
    struct sha256_tier tier;
    int count = 0;

    CHECK(sha256_choose(&scalar, "scalar") == 0 && scalar.lanes == 1);
    for (size_t i = 0; i < sizeof text; i++)
        text[i / ROOM][i % ROOM] = (uint8_t)chance(256);
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        if (sha256_choose(&tier, NAMES[i]))
            continue;
        CHECK(!strcmp(tier.name, NAMES[i]));
        found[count++] = tier.name;
        for (int file = 1; file < argc; file++)
            known_file(&tier, argv[file]);
        if (argc > 1) /* these alone */
            continue;
        known_answers(&tier);
        splits(&tier, &scalar);
        splits(&scalar, &tier);
        for (int lanes = 1; lanes <= SHA256_LANES && tier.kernels[lanes]; lanes++) {
            kernels(&tier, lanes);
            tier.lanes = lanes;
            for (int round = 0; round < (is_short() ? 100 : 400); round++)
                mix(&tier, chance(STREAMS + 1));
            for (size_t begun = 0; begun < 130; begun += begun ? 33 : 32)
                messages(&tier, begun);
        }
    }
    no_states();
    choices(found, count);
    return 0;
}
