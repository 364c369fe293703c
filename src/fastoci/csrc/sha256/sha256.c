/* Streams cut into blocks: what is left of one waits in its tail. Many streams are hashed side by side, in lanes. */
#include "sha256/sha256.h"

#include "sha256/context.h"

#include <string.h>

void sha256_init(struct sha256 *state)
{
    memset(state, 0, sizeof *state);
    memcpy(state->words, sha256_start, sizeof sha256_start);
}

static void run_one(struct sha256 *state, const struct sha256_tier *tier, const uint8_t *data, size_t blocks)
{
    tier->kernels[1]((uint32_t *[]){state->words}, &data, blocks);
}

/* Fill and hash a tail that is begun; the bytes taken, after which either the tail is empty or the data is used up. */
static size_t fill_tail(struct sha256 *state, const struct sha256_tier *tier, const uint8_t *data, size_t size)
{
    size_t used = state->count % 64, take = size < 64 - used ? size : 64 - used;
    if (!used)
        return 0;
    memcpy(state->tail + used, data, take);
    state->count += take;
    if (used + take == 64)
        run_one(state, tier, state->tail, 1);
    return take;
}

/* The end of the data, less than a block, waits in the tail. */
static void keep_tail(struct sha256 *state, const uint8_t *data, size_t size)
{
    memcpy(state->tail, data, size);
    state->count += size;
}

void sha256_update(struct sha256 *state, const struct sha256_tier *tier, const uint8_t *data, size_t size)
{
    size_t took = fill_tail(state, tier, data, size);
    data += took, size -= took;
    if (!size)
        return;
    run_one(state, tier, data, size / 64);
    state->count += size / 64 * 64;
    keep_tail(state, data + size / 64 * 64, size % 64);
}

/* The last one or two blocks of a stream of count bytes, whose last count % 64 are in tail; how many they are. */
static size_t pad(const uint8_t *tail, uint64_t count, uint8_t end[128])
{
    size_t used = count % 64, size = used < 56 ? 64 : 128;
    memset(end, 0, 128);
    memcpy(end, tail, used);
    end[used] = 0x80;
    for (int i = 0; i < 8; i++)
        end[size - 1 - i] = (uint8_t)(count * 8 >> 8 * i);
    return size / 64;
}

static void store_words(const uint32_t words[8], uint8_t digest[32])
{
    for (int i = 0; i < 8; i++)
        store32(digest + 4 * i, words[i]);
}

void sha256_digest(const struct sha256 *state, const struct sha256_tier *tier, uint8_t digest[32])
{
    uint32_t words[8];
    uint8_t end[128];
    memcpy(words, state->words, sizeof words);
    size_t blocks = pad(state->tail, state->count, end);
    tier->kernels[1]((uint32_t *[]){words}, (const uint8_t *[]){end}, blocks);
    store_words(words, digest);
}

/* As many messages as the tier has lanes, or fewer: what is left of the begun block, whole blocks, the padding. */
static void digest_lanes(const struct sha256 *begun, const struct sha256_tier *tier, const uint8_t *data, size_t size,
                         size_t lanes, uint8_t *digests)
{
    uint32_t states[SHA256_LANES][8], *words[SHA256_LANES] = {NULL};
    uint8_t ends[SHA256_LANES][128];
    const uint8_t *from[SHA256_LANES] = {NULL};
    size_t used = begun->count % 64, head = used ? 64 - used : 0, blocks = (size - head) / 64, rest = (size - head) % 64;

    for (size_t lane = 0; lane < lanes; lane++) {
        words[lane] = memcpy(states[lane], begun->words, sizeof begun->words);
        from[lane] = memcpy(ends[lane], begun->tail, used);
        memcpy(ends[lane] + used, data + lane * size, head);
    }
    tier->kernels[lanes](words, from, used != 0);
    for (size_t lane = 0; lane < lanes; lane++)
        from[lane] = data + lane * size + head;
    tier->kernels[lanes](words, from, blocks);
    for (size_t lane = 0; lane < lanes; lane++) {
        blocks = pad(data + (lane + 1) * size - rest, begun->count + size, ends[lane]);
        from[lane] = ends[lane];
    }
    tier->kernels[lanes](words, from, blocks);
    for (size_t lane = 0; lane < lanes; lane++)
        store_words(words[lane], digests + 32 * lane);
}

void sha256_digests(const struct sha256 *begun, const struct sha256_tier *tier, const uint8_t *data, size_t size, size_t count,
                    uint8_t *digests)
{
    while (count) {
        size_t lanes = tier->lanes > 1 ? (size_t)tier->lanes : 1;
        lanes = count < lanes ? count : lanes;
        digest_lanes(begun, tier, data, size, lanes, digests);
        data += lanes * size, count -= lanes, digests += 32 * lanes;
    }
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

/* The longest streams that have a whole block, at most as many as there are lanes: their indices, the longest first. */
static int choose_longest(const size_t *sizes, size_t count, int lanes, size_t *chosen)
{
    int found = 0;

    for (size_t i = 0; i < count; i++) {
        if (sizes[i] < 64)
            continue;
        int at = found < lanes ? found++ : found;
        while (at > 0 && sizes[chosen[at - 1]] < sizes[i]) { /* insertion into the few longest */
            if (at < lanes)
                chosen[at] = chosen[at - 1];
            at--;
        }
        if (at < lanes)
            chosen[at] = i;
    }
    return found;
}

void sha256_update_many(struct sha256 **states, const uint8_t **data, size_t *sizes, size_t count,
                        const struct sha256_tier *tier)
{
    size_t chosen[SHA256_LANES];
    int lanes;

    for (size_t i = 0; i < count; i++) {
        size_t took = fill_tail(states[i], tier, data[i], sizes[i]);
        data[i] += took, sizes[i] -= took;
    }
    while ((lanes = choose_longest(sizes, count, tier->lanes, chosen))) { /* together as far as the shortest goes */
        uint32_t *words[SHA256_LANES];
        const uint8_t *from[SHA256_LANES];
        size_t blocks = sizes[chosen[lanes - 1]] / 64;
        for (int lane = 0; lane < lanes; lane++) {
            words[lane] = states[chosen[lane]]->words;
            from[lane] = data[chosen[lane]];
        }
        tier->kernels[lanes](words, from, blocks);
        for (int lane = 0; lane < lanes; lane++) {
            states[chosen[lane]]->count += blocks * 64;
            data[chosen[lane]] += blocks * 64;
            sizes[chosen[lane]] -= blocks * 64;
        }
    }
    for (size_t i = 0; i < count; i++)
        if (sizes[i])
            keep_tail(states[i], data[i], sizes[i]);
}
