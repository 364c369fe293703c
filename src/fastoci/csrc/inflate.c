#include "inflate.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

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

struct zstd_in { const void *src; size_t size, pos; };
struct zstd_out { void *dst; size_t size, pos; };
#define ZSTD_WINDOW_LOG_MAX 100
#define ZSTD_ERROR_WINDOW 16
#define ZSTD_ERROR_MEMORY 64

static struct {
    void (*init)(void *);
    int (*inflate)(void *);
    uint32_t (*crc)(uint32_t, uint8_t *, uint64_t);
    int bound;
} isal;

static struct {
    void *(*create)(void);
    size_t (*free)(void *);
    size_t (*set)(void *, int, int);
    size_t (*run)(void *, struct zstd_out *, struct zstd_in *);
    unsigned (*is_error)(size_t);
    int bound;
} zstd;

/* Where in a gzip member the next input byte belongs. */
enum place { FIXED, EXTRA_SIZE, EXTRA, NAME, COMMENT, HEADER_CRC, DEFLATE, TRAILER, BETWEEN };

struct inflate {
    enum inflate_format format;
    enum inflate_code failed;
    enum place place;
    uint8_t field[16]; /* the fixed-size field being gathered */
    unsigned have;     /* bytes of it */
    unsigned flags, extra;
    uint32_t header_crc, content_crc, content_size;
    uint8_t ahead[8]; /* bytes after the deflate data that ISA-L had read ahead: never more than the trailer */
    unsigned ahead_at, ahead_size;
    union {
        struct isal_state head;
        uint8_t all[ISAL_SIZE];
    } *isal;
    void *zstd;
    int between_frames, any_frame;
};

static int find(void *library, const char *name, void *pointer)
{
    void *symbol = dlsym(library, name);
    memcpy(pointer, &symbol, sizeof symbol);
    return symbol != NULL;
}

static int try_gzip(void)
{
    /* "fastoci" fifty times, by gzip -9n */
    static const uint8_t member[] = {
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x4b, 0x4b, 0x2c, 0x2e, 0xc9, 0x4f,
        0xce, 0x4c, 0x1b, 0xa5, 0x68, 0x41, 0x01, 0x00, 0xb3, 0xc4, 0xb6, 0x31, 0x5e, 0x01, 0x00, 0x00,
    };
    uint8_t out[512];
    size_t consumed, produced;
    struct inflate *self = inflate_new(INFLATE_GZIP, 0);
    if (!self)
        return 0;
    int ok = inflate_run(self, member, sizeof member, &consumed, out, sizeof out, &produced) == INFLATE_OK &&
             consumed == sizeof member && produced == 350 && inflate_finish(self) == INFLATE_OK;
    for (size_t i = 0; ok && i < produced; i++)
        ok = out[i] == (uint8_t) "fastoci"[i % 7];
    inflate_free(self);
    return ok;
}

int inflate_bind(enum inflate_format format, const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return -1;
    if (format == INFLATE_GZIP) {
        isal.bound = find(library, "isal_inflate_init", &isal.init) && find(library, "isal_inflate", &isal.inflate) &&
                     find(library, "crc32_gzip_refl", &isal.crc);
        isal.bound = isal.bound && try_gzip();
        return isal.bound ? 0 : -1;
    }
    zstd.bound = find(library, "ZSTD_createDCtx", &zstd.create) && find(library, "ZSTD_freeDCtx", &zstd.free) &&
                 find(library, "ZSTD_DCtx_setParameter", &zstd.set) && find(library, "ZSTD_decompressStream", &zstd.run) &&
                 find(library, "ZSTD_isError", &zstd.is_error);
    return zstd.bound ? 0 : -1;
}

int inflate_bound(enum inflate_format format)
{
    return format == INFLATE_GZIP ? isal.bound : zstd.bound;
}

struct inflate *inflate_new(enum inflate_format format, size_t window)
{
    if (!inflate_bound(format))
        return NULL;
    struct inflate *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->format = format;
    if (format == INFLATE_GZIP) {
        self->isal = calloc(1, sizeof *self->isal);
    } else if ((self->zstd = zstd.create())) {
        int log = 0;
        while (window >> (log + 1))
            log++;
        if (zstd.is_error(zstd.set(self->zstd, ZSTD_WINDOW_LOG_MAX, log)))
            zstd.free(self->zstd), self->zstd = NULL;
    }
    if (!self->isal && !self->zstd) {
        free(self);
        return NULL;
    }
    return self;
}

void inflate_free(struct inflate *self)
{
    if (!self)
        return;
    free(self->isal);
    if (self->zstd)
        zstd.free(self->zstd);
    free(self);
}

/* Begin what follows the header field that has just ended. */
static void next_place(struct inflate *self)
{
    self->have = 0;
    switch (self->place) {
    case FIXED:
        if (self->flags & 4) {
            self->place = EXTRA_SIZE;
            return;
        } /* fall through */
    case EXTRA:
        if (self->flags & 8) {
            self->place = NAME;
            return;
        } /* fall through */
    case NAME:
        if (self->flags & 16) {
            self->place = COMMENT;
            return;
        } /* fall through */
    case COMMENT:
        if (self->flags & 2) {
            self->place = HEADER_CRC;
            return;
        } /* fall through */
    default:
        self->place = DEFLATE;
        self->content_crc = self->content_size = 0;
        isal.init(self->isal);
    }
}

static enum inflate_code check_fixed(struct inflate *self)
{
    if (self->field[2] != 8 || self->field[3] & 0xE0)
        return INFLATE_BAD_HEADER;
    self->flags = self->field[3];
    next_place(self);
    return INFLATE_OK;
}

static enum inflate_code check_trailer(struct inflate *self)
{
    const uint8_t *f = self->field;
    if ((f[0] | f[1] << 8 | f[2] << 16 | (uint32_t)f[3] << 24) != self->content_crc)
        return INFLATE_BAD_CHECKSUM;
    if ((f[4] | f[5] << 8 | f[6] << 16 | (uint32_t)f[7] << 24) != self->content_size)
        return INFLATE_BAD_LENGTH;
    self->place = BETWEEN;
    self->have = 0;
    return INFLATE_OK;
}

/* One byte of a header or trailer. */
static enum inflate_code frame_byte(struct inflate *self, uint8_t byte)
{
    if (self->place == BETWEEN) {
        self->place = FIXED;
        self->have = 0;
    }
    if (self->place == FIXED && self->have == 0)
        self->header_crc = 0;
    if (self->place == FIXED && ((self->have == 0 && byte != 0x1f) || (self->have == 1 && byte != 0x8b)))
        return INFLATE_NOT_GZIP;
    if (self->place < HEADER_CRC)
        self->header_crc = isal.crc(self->header_crc, &byte, 1);
    switch (self->place) {
    case FIXED:
        self->field[self->have++] = byte;
        return self->have == 10 ? check_fixed(self) : INFLATE_OK;
    case EXTRA_SIZE:
        self->field[self->have++] = byte;
        if (self->have == 2) {
            self->extra = self->field[0] | self->field[1] << 8;
            self->place = EXTRA;
            self->have = 0;
            if (!self->extra)
                next_place(self);
        }
        return INFLATE_OK;
    case EXTRA:
        if (!--self->extra)
            next_place(self);
        return INFLATE_OK;
    case NAME:
    case COMMENT:
        if (!byte)
            next_place(self);
        return INFLATE_OK;
    case HEADER_CRC:
        self->field[self->have++] = byte;
        if (self->have < 2)
            return INFLATE_OK;
        if ((self->field[0] | self->field[1] << 8) != (int)(self->header_crc & 0xFFFF))
            return INFLATE_BAD_HEADER;
        next_place(self);
        return INFLATE_OK;
    default: /* TRAILER */
        self->field[self->have++] = byte;
        return self->have == 8 ? check_trailer(self) : INFLATE_OK;
    }
}

/* The deflate data has ended: the whole bytes that ISA-L had read ahead, at most eight, belong to the trailer. */
static void end_deflate(struct inflate *self)
{
    struct isal_state *state = &self->isal->head;
    int bits = state->read_in_length;
    uint64_t ahead = state->read_in >> (bits % 8);
    self->ahead_at = 0;
    self->ahead_size = bits / 8;
    for (unsigned i = 0; i < self->ahead_size; i++)
        self->ahead[i] = ahead >> 8 * i;
    self->place = TRAILER;
    self->have = 0;
}

static enum inflate_code run_deflate(struct inflate *self, const uint8_t *source, size_t size, size_t *consumed, uint8_t *out,
                                     size_t room, size_t *produced)
{
    struct isal_state *state = &self->isal->head;
    state->next_in = source;
    state->avail_in = size > UINT32_MAX ? UINT32_MAX : size;
    state->next_out = out;
    state->avail_out = room > UINT32_MAX ? UINT32_MAX : room;
    int status = isal.inflate(state);
    *consumed = state->next_in - source;
    *produced = state->next_out - out;
    self->content_crc = isal.crc(self->content_crc, out, *produced);
    self->content_size += *produced;
    if (status != 0 && status != ISAL_END_INPUT && status != ISAL_OUT_OVERFLOW)
        return INFLATE_BAD_DATA;
    if (state->block_state == ISAL_BLOCK_FINISH)
        end_deflate(self);
    return INFLATE_OK;
}

static enum inflate_code run_gzip(struct inflate *self, const uint8_t *source, size_t size, size_t *consumed, uint8_t *out,
                                  size_t room, size_t *produced)
{
    enum inflate_code code = INFLATE_OK;
    while (code == INFLATE_OK) {
        if (self->place == DEFLATE) {
            size_t used, made;
            if (*produced == room)
                break;
            code = run_deflate(self, source + *consumed, size - *consumed, &used, out + *produced, room - *produced, &made);
            *consumed += used;
            *produced += made;
            if (self->place == DEFLATE && ((*consumed == size && *produced < room) || (!used && !made)))
                break; /* only more input helps */
        } else if (self->ahead_at < self->ahead_size) {
            code = frame_byte(self, self->ahead[self->ahead_at++]);
        } else if (*consumed < size) {
            code = frame_byte(self, source[(*consumed)++]);
        } else {
            break;
        }
    }
    return code;
}

static enum inflate_code run_zstd(struct inflate *self, const uint8_t *source, size_t size, size_t *consumed, uint8_t *out,
                                  size_t room, size_t *produced)
{
    struct zstd_in in = {source, size, 0};
    struct zstd_out to = {out, room, 0};
    enum inflate_code code = INFLATE_OK;
    while (code == INFLATE_OK && to.pos < to.size) {
        size_t in_before = in.pos, out_before = to.pos;
        if (self->between_frames && in.pos == in.size)
            break;
        size_t status = zstd.run(self->zstd, &to, &in);
        if (zstd.is_error(status)) {
            unsigned error = -status;
            code = error == ZSTD_ERROR_WINDOW   ? INFLATE_WINDOW
                   : error == ZSTD_ERROR_MEMORY ? INFLATE_NO_MEMORY
                                                : INFLATE_BAD_DATA;
        } else if (in.pos == in_before && to.pos == out_before) {
            break;
        } else {
            self->between_frames = status == 0;
            self->any_frame |= status == 0;
        }
    }
    *consumed = in.pos;
    *produced = to.pos;
    return code;
}

enum inflate_code inflate_run(struct inflate *self, const uint8_t *source, size_t size, size_t *consumed, uint8_t *out,
                              size_t room, size_t *produced)
{
    *consumed = *produced = 0;
    if (self->failed)
        return self->failed;
    self->failed = (self->format == INFLATE_GZIP ? run_gzip : run_zstd)(self, source, size, consumed, out, room, produced);
    return self->failed;
}

enum inflate_code inflate_finish(const struct inflate *self)
{
    if (self->failed)
        return self->failed;
    if (self->format == INFLATE_GZIP)
        return self->place == BETWEEN && self->ahead_at == self->ahead_size ? INFLATE_OK : INFLATE_CUT;
    return self->between_frames && self->any_frame ? INFLATE_OK : INFLATE_CUT;
}
