/* Calls of ISA-L, whose state is laid out here as its releases do; what it says is not trusted. */
#include "inflate/isal.h"

#include "inflate/gzip.h"

#include <stdlib.h>

/* ISA-L's inflate_state as its releases 2.30 to 2.32 lay it out: what we touch, and the size of the rest. inflate_bind
 * tries a known stream, so another layout is found out before it is used. */
#define ISAL_TABLES (18912 + 2208) /* the decoding tables between the head and block_state */
#define ISAL_SIZE (87368 + 4096)   /* sizeof, and slack */
#define ISAL_BLOCK_FINISH 5
#define ISAL_READ_IN_BITS 64
#define ISAL_END_INPUT 1
#define ISAL_OUT_OVERFLOW 2

struct isal_state {
    uint8_t *next_out;
    uint32_t avail_out, total_out;
    const uint8_t *next_in;
    uint64_t read_in; /* input bits that were read ahead: */
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

static enum inflate_code begin(void *ctx)
{
    isal.init(ctx);
    return INFLATE_OK;
}

/* How far a pointer that ISA-L moved is from where it was: negative for input that is handed back. It is not trusted, so
 * it is a number that is subtracted. */
static ptrdiff_t moved(const uint8_t *to, const uint8_t *from)
{
    return (ptrdiff_t)((uintptr_t)to - (uintptr_t)from);
}

static enum inflate_code run(void *ctx, struct inflate_step *step)
{
    struct isal_state *state = ctx;
    ptrdiff_t produced;
    int status;

    state->next_in = step->source;
    state->avail_in = step->size > UINT32_MAX ? UINT32_MAX : (uint32_t)step->size;
    state->next_out = step->out;
    state->avail_out = step->room > UINT32_MAX ? UINT32_MAX : (uint32_t)step->room;
    status = isal.inflate(state);
    step->consumed = moved(state->next_in, step->source);
    if (status != 0 && status != ISAL_END_INPUT && status != ISAL_OUT_OVERFLOW)
        return INFLATE_BAD_DATA; /* ISA-L counts what it copied from before the beginning, too: that is no content */
    produced = moved(state->next_out, step->out);
    if (produced < 0 || (size_t)produced > step->room)
        return INFLATE_BAD_DATA;
    step->produced = (size_t)produced;
    step->crc = isal.crc(step->crc, step->out, step->produced);
    step->ended = state->block_state == ISAL_BLOCK_FINISH;
    if (step->ended) {
        /* At its end, 2.32 hands back the whole bytes that it read ahead; up to 2.31 they stay in read_in. */
        if (state->read_in_length < 0 || state->read_in_length > ISAL_READ_IN_BITS)
            return INFLATE_BAD_DATA;
        step->consumed -= state->read_in_length / 8;
    }
    return INFLATE_OK;
}

static void free_state(struct inflate *self)
{
    free(self->gzip.ctx);
}

int isal_begin(struct inflate *self, size_t window)
{
    static const struct inflate_decoder DECODER = {begin, run};
    static const struct inflate_backend BACKEND = {gzip_run, gzip_finish, gzip_allow, free_state};
    void *state = calloc(1, ISAL_SIZE);

    (void)window;
    gzip_begin(self, &DECODER, state);
    self->backend = &BACKEND;
    return state != NULL;
}
