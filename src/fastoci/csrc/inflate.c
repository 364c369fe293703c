/* Looking decoders up and trying them, and the choice between the two formats. */
#include "inflate_internal.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static int bound[2]; /* by format; set by inflate_bind only */

int inflate_find(void *library, const char *name, void *pointer)
{
    void *symbol = dlsym(library, name);

    memcpy(pointer, &symbol, sizeof symbol);
    return symbol != NULL;
}

/* Does it decode a known stream, "fastoci" several times, from pieces and into windows of these sizes? */
static int try_pieces(enum inflate_format format, const uint8_t *data, size_t size, size_t times, size_t piece, size_t window)
{
    uint8_t out[512];
    size_t at = 0, made = 0, consumed, produced;
    struct inflate *self = inflate_new(format, 1 << 10);
    int ok = self != NULL;

    do {
        size_t next = at + piece < size ? at + piece : size;
        ok = ok && inflate_run(self, data + at, next - at, &consumed, out + made, window, &produced) == INFLATE_OK;
        at += ok ? consumed : 0;
        made += ok ? produced : 0;
    } while (ok && (at < size || produced == window) && made + window <= sizeof out);
    ok = ok && made == 7 * times && inflate_finish(self) == INFLATE_OK;
    for (size_t i = 0; ok && i < made; i++)
        ok = out[i] == (uint8_t) "fastoci"[i % 7];
    inflate_free(self);
    return ok;
}

/* Byte by byte, and with a window that is full where the content ends. */
static int try_format(enum inflate_format format, const uint8_t *data, size_t size, size_t times)
{
    return try_pieces(format, data, size, times, 1, 512 - 7 * times) && try_pieces(format, data, size, times, size, 7);
}

static int try_gzip(void)
{
    static const uint8_t member[] = {
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x4b, 0x4b, 0x2c, 0x2e, 0xc9, 0x4f,
        0xce, 0x4c, 0x1b, 0xa5, 0x68, 0x41, 0x01, 0x00, 0xb3, 0xc4, 0xb6, 0x31, 0x5e, 0x01, 0x00, 0x00,
    };

    return try_format(INFLATE_GZIP, member, sizeof member, 50);
}

static int try_zstd(void)
{
    /* a head that gives the content's size; one block, the last, as it is */
    static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 7, 0x39, 0, 0, 'f', 'a', 's', 't', 'o', 'c', 'i'};

    return try_format(INFLATE_ZSTD, frame, sizeof frame, 1);
}

int inflate_bind(enum inflate_format format, const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return -1;
    bound[format] = (format == INFLATE_GZIP ? isal_bind : zstd_bind)(library);
    bound[format] = bound[format] && (format == INFLATE_GZIP ? try_gzip : try_zstd)();
    return bound[format] ? 0 : -1;
}

int inflate_bound(enum inflate_format format)
{
    return bound[format];
}

struct inflate *inflate_new(enum inflate_format format, size_t window)
{
    struct inflate *self = bound[format] ? calloc(1, sizeof *self) : NULL;
    int ok;

    if (!self)
        return NULL;
    self->format = format;
    if (format == INFLATE_GZIP) {
        self->gzip.decoder = &isal_decoder;
        ok = (self->gzip.ctx = isal_new()) != NULL;
    } else {
        ok = zstd_init(&self->zstd, window);
    }
    if (!ok) {
        free(self);
        return NULL;
    }
    return self;
}

struct inflate *inflate_new_over(const struct inflate_decoder *decoder, void *ctx)
{
    struct inflate *self = calloc(1, sizeof *self);

    if (!self)
        return NULL;
    self->format = INFLATE_GZIP;
    self->gzip.decoder = decoder;
    self->gzip.ctx = ctx;
    return self;
}

void inflate_free(struct inflate *self)
{
    if (!self)
        return;
    if (self->format == INFLATE_ZSTD)
        zstd_free(&self->zstd);
    else if (self->gzip.decoder == &isal_decoder)
        free(self->gzip.ctx);
    free(self);
}

enum inflate_code inflate_run(struct inflate *self, const uint8_t *source, size_t size, size_t *consumed, uint8_t *out,
                              size_t room, size_t *produced)
{
    struct inflate_io io = {source, size, 0, out, room, 0};

    if (!self->failed)
        self->failed = self->format == INFLATE_GZIP ? gzip_run(&self->gzip, &io) : zstd_run(&self->zstd, &io);
    *consumed = io.consumed;
    *produced = io.produced;
    return self->failed;
}

uint64_t inflate_demanded(const struct inflate *self)
{
    return self->format == INFLATE_ZSTD ? self->zstd.demanded : 0;
}

void inflate_allow(struct inflate *self, size_t window)
{
    if (self->format == INFLATE_ZSTD)
        zstd_allow(&self->zstd, window);
}

enum inflate_code inflate_finish(const struct inflate *self)
{
    if (self->failed)
        return self->failed;
    return self->format == INFLATE_GZIP ? gzip_finish(&self->gzip) : zstd_finish(&self->zstd);
}
