/* ISA-L as a decoder of raw deflate data. */
#include "inflate_internal.h"

#include <stdlib.h>

/* ISA-L's inflate_state as its releases 2.30 to 2.32 lay it out: what we touch, and the size of the rest. inflate_bind
 * tries a known stream, so another layout is found out before it is used. */
#define ISAL_TABLES (18912 + 2208) /* the decoding tables between the head and block_state */
#define ISAL_SIZE (87368 + 4096)   /* sizeof, and slack */
#define ISAL_BLOCK_FINISH 5
#define ISAL_END_INPUT 1
#define ISAL_OUT_OVERFLOW 2

struct isal_state {
    uint8_t *next_out;
    uint32_t avail_out, total_out;
    const uint8_t *next_in;
    uint64_t read_in; /* input bits that were read ahead */
    uint32_t avail_in;
    int32_t read_in_length;
    uint8_t tables[ISAL_TABLES];
    int block_state;
};

static struct {
    void (*init)(void *);
    int (*inflate)(void *);
    uint32_t (*crc)(uint32_t, uint8_t *, uint64_t);
} isal;

int isal_bind(void *library)
{
    return inflate_find(library, "isal_inflate_init", &isal.init) && inflate_find(library, "isal_inflate", &isal.inflate) &&
           inflate_find(library, "crc32_gzip_refl", &isal.crc);
}

void *isal_new(void)
{
    return calloc(1, ISAL_SIZE);
}

static enum inflate_code begin(void *ctx)
{
    isal.init(ctx);
    return INFLATE_OK;
}

/* The deflate data has ended: the whole bytes that were read ahead, at most eight, belong to the trailer. */
static void end(const struct isal_state *state, struct inflate_step *step)
{
    int bits = state->read_in_length;
    uint64_t ahead = state->read_in >> (bits % 8);

    step->ahead_size = bits < 0 ? 0 : bits > 64 ? 8 : (unsigned)bits / 8;
    for (unsigned i = 0; i < step->ahead_size; i++)
        step->ahead[i] = (uint8_t)(ahead >> 8 * i);
    step->ended = 1;
}

static enum inflate_code run(void *ctx, struct inflate_step *step)
{
    struct isal_state *state = ctx;
    int status;

    state->next_in = step->source;
    state->avail_in = step->size > UINT32_MAX ? UINT32_MAX : (uint32_t)step->size;
    state->next_out = step->out;
    state->avail_out = step->room > UINT32_MAX ? UINT32_MAX : (uint32_t)step->room;
    status = isal.inflate(state);
    step->consumed = (size_t)(state->next_in - step->source);
    if (status != 0 && status != ISAL_END_INPUT && status != ISAL_OUT_OVERFLOW)
        return INFLATE_BAD_DATA; /* ISA-L counts what it copied from before the beginning, too: that is no content */
    step->produced = (size_t)(state->next_out - step->out);
    step->crc = isal.crc(step->crc, step->out, step->produced);
    if (state->block_state == ISAL_BLOCK_FINISH)
        end(state, step);
    return INFLATE_OK;
}

const struct inflate_decoder isal_decoder = {begin, run};
