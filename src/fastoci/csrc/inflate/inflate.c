/* Looking decoders up and trying them, and the choice between the two formats. */
#include "inflate/inflate.h"

#include "inflate/context.h"
#include "inflate/gzip.h"
#include "inflate/isal.h"
#include "inflate/zstd.h"

#include <dlfcn.h>
#include <stdlib.h>

static const uint8_t MEMBER[] = {
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x4b, 0x4b, 0x2c, 0x2e, 0xc9, 0x4f,
    0xce, 0x4c, 0x1b, 0xa5, 0x68, 0x41, 0x01, 0x00, 0xb3, 0xc4, 0xb6, 0x31, 0x5e, 0x01, 0x00, 0x00,
};
/* A head that gives the content's size; one block, the last, as it is. */
static const uint8_t FRAME[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 7, 0x39, 0, 0, 'f', 'a', 's', 't', 'o', 'c', 'i'};

static const struct {
    int (*bind)(void *library);
    int (*begin)(struct inflate *self, size_t window);
    const uint8_t *known; /* "fastoci", so many times */
    size_t size, times;
} FORMATS[] = {
    [INFLATE_GZIP] = {isal_bind, isal_begin, MEMBER, sizeof MEMBER, 50},
    [INFLATE_ZSTD] = {zstd_bind, zstd_begin, FRAME, sizeof FRAME, 1},
};

static int bound[sizeof FORMATS / sizeof *FORMATS]; /* by format; set by inflate_bind only */

/* Is the known stream decoded, from pieces and into windows of these sizes? */
static int try_pieces(enum inflate_format format, size_t piece, size_t window)
{
    const uint8_t *data = FORMATS[format].known;
    uint8_t out[512];
    size_t at = 0, made = 0, size = FORMATS[format].size, consumed, produced;
    struct inflate *self = inflate_new(format, 1 << 10);
    int ok = self != NULL;

    do {
        size_t next = at + piece < size ? at + piece : size;
        ok = ok && inflate_run(self, data + at, next - at, &consumed, out + made, window, &produced) == INFLATE_OK;
        at += ok ? consumed : 0;
        made += ok ? produced : 0;
    } while (ok && (at < size || produced == window) && made + window <= sizeof out);
    ok = ok && made == 7 * FORMATS[format].times && inflate_finish(self) == INFLATE_OK;
    for (size_t i = 0; ok && i < made; i++)
        ok = out[i] == (uint8_t) "fastoci"[i % 7];
    inflate_free(self);
    return ok;
}

int inflate_bind(enum inflate_format format, const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return -1;
    bound[format] = FORMATS[format].bind(library);
    /* byte by byte, and with a window that is full where the content ends */
    bound[format] = bound[format] && try_pieces(format, 1, 512 - 7 * FORMATS[format].times) &&
                    try_pieces(format, FORMATS[format].size, 7);
    return bound[format] ? 0 : -1;
}

int inflate_bound(enum inflate_format format)
{
    return bound[format];
}

struct inflate *inflate_new(enum inflate_format format, size_t window)
{
    struct inflate *self = bound[format] ? calloc(1, sizeof *self) : NULL;

    if (!self || FORMATS[format].begin(self, window))
        return self;
    free(self);
    return NULL;
}

struct inflate *inflate_new_over(const struct inflate_decoder *decoder, void *ctx)
{
    struct inflate *self = calloc(1, sizeof *self);

    if (self)
        gzip_begin(self, decoder, ctx);
    return self;
}

void inflate_free(struct inflate *self)
{
    if (!self)
        return;
    self->backend->free(self);
    free(self);
}

enum inflate_code inflate_run(struct inflate *self, const uint8_t *source, size_t size, size_t *consumed, uint8_t *out,
                              size_t room, size_t *produced)
{
    struct inflate_io io = {source, size, 0, out, room, 0};

    if (!self->failed)
        self->failed = self->backend->run(self, &io);
    *consumed = io.consumed;
    *produced = io.produced;
    return self->failed;
}

uint64_t inflate_demanded(const struct inflate *self)
{
    return self->demanded;
}

void inflate_allow(struct inflate *self, size_t window)
{
    self->backend->allow(self, window);
}

enum inflate_code inflate_finish(const struct inflate *self)
{
    return self->failed ? self->failed : self->backend->finish(self);
}
