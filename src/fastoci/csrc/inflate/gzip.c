/* The framing of gzip: headers, trailers, members. Spec: RFC 1952.
 *
 * A decoder of deflate data reads ahead, also beyond the end of the data, and hands bytes back that an earlier call took,
 * perhaps out of a buffer that is gone. So the last bytes that it consumed are kept here, and those that it hands back
 * are read again, from here, before new input. */
#include "inflate/gzip.h"

#include <string.h>

enum { FLAG_HEADER_CRC = 2, FLAG_EXTRA = 4, FLAG_NAME = 8, FLAG_COMMENT = 16, FLAGS_RESERVED = 0xE0 };

/* One byte more in a CRC-32, half a byte at a time: headers are short. */
static uint32_t crc_byte(uint32_t crc, uint8_t byte)
{
    static const uint32_t TABLE[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };

    crc = ~crc ^ byte;
    crc = crc >> 4 ^ TABLE[crc & 15];
    crc = crc >> 4 ^ TABLE[crc & 15];
    return ~crc;
}

static uint32_t number(const uint8_t *field)
{
    return field[0] | (uint32_t)field[1] << 8 | (uint32_t)field[2] << 16 | (uint32_t)field[3] << 24;
}

/* Begin what follows the header field that has just ended. */
static enum inflate_code next_field(struct inflate_gzip *self)
{
    enum inflate_field ended = self->next;

    self->have = 0;
    if (ended < EXTRA_SIZE && self->flags & FLAG_EXTRA)
        self->next = EXTRA_SIZE;
    else if (ended < NAME && self->flags & FLAG_NAME)
        self->next = NAME;
    else if (ended < COMMENT && self->flags & FLAG_COMMENT)
        self->next = COMMENT;
    else if (ended < HEADER_CRC && self->flags & FLAG_HEADER_CRC)
        self->next = HEADER_CRC;
    else {
        self->next = DEFLATE;
        self->content_size = 0;
        self->step = (struct inflate_step){0};
        self->kept = self->again;
        return self->decoder->begin(self->ctx);
    }
    return INFLATE_OK;
}

static enum inflate_code check_fixed(struct inflate_gzip *self)
{
    if (self->field[2] != 8 || self->field[3] & FLAGS_RESERVED)
        return INFLATE_BAD_HEADER;
    self->flags = self->field[3];
    return next_field(self);
}

static enum inflate_code check_trailer(struct inflate_gzip *self)
{
    if (number(self->field) != self->step.crc)
        return INFLATE_BAD_CHECKSUM;
    if (number(self->field + 4) != self->content_size)
        return INFLATE_BAD_LENGTH;
    self->next = BETWEEN;
    return INFLATE_OK;
}

/* A byte of a field of fixed size: 1 when that is all of it. */
static int gather(struct inflate_gzip *self, uint8_t byte, unsigned size)
{
    self->field[self->have++] = byte;
    return self->have == size;
}

/* One byte of a header or trailer. */
static enum inflate_code frame_byte(struct inflate_gzip *self, uint8_t byte)
{
    if (self->next == BETWEEN)
        self->next = FIXED, self->have = 0;
    if (self->next == FIXED && self->have == 0)
        self->header_crc = 0;
    if (self->next == FIXED && ((self->have == 0 && byte != 0x1f) || (self->have == 1 && byte != 0x8b)))
        return INFLATE_NOT_GZIP;
    if (self->next < HEADER_CRC)
        self->header_crc = crc_byte(self->header_crc, byte);
    switch (self->next) {
    case FIXED:
        return gather(self, byte, 10) ? check_fixed(self) : INFLATE_OK;
    case EXTRA_SIZE:
        if (!gather(self, byte, 2))
            return INFLATE_OK;
        self->extra = self->field[0] | (unsigned)self->field[1] << 8;
        self->next = EXTRA;
        return self->extra ? INFLATE_OK : next_field(self);
    case EXTRA:
        return --self->extra ? INFLATE_OK : next_field(self);
    case NAME:
    case COMMENT:
        return byte ? INFLATE_OK : next_field(self);
    case HEADER_CRC:
        if (!gather(self, byte, 2))
            return INFLATE_OK;
        if ((self->field[0] | (unsigned)self->field[1] << 8) != (self->header_crc & 0xFFFF))
            return INFLATE_BAD_HEADER;
        return next_field(self);
    default: /* TRAILER */
        return gather(self, byte, 8) ? check_trailer(self) : INFLATE_OK;
    }
}

/* Keep the last of the bytes that the decoder consumed. */
static void keep(struct inflate_gzip *self, const uint8_t *bytes, size_t size)
{
    size_t added = size < INFLATE_TAIL ? size : INFLATE_TAIL, old = INFLATE_TAIL - added;

    memmove(self->tail, self->tail + added, old);
    memcpy(self->tail + old, bytes + size - added, added);
    self->kept = self->kept + added < INFLATE_TAIL ? self->kept + (unsigned)added : INFLATE_TAIL;
}

/* Can a decoder have done what this one says? It can hand back only what is kept, and a call makes progress. */
static int plausible(const struct inflate_gzip *self, const struct inflate_step *step)
{
    ptrdiff_t consumed = step->consumed;

    if (consumed < 0 ? consumed < -(ptrdiff_t)(self->kept - self->again) : (size_t)consumed > step->size)
        return 0;
    if (step->produced > step->room)
        return 0;
    return step->ended || step->produced || consumed > 0 || (consumed == 0 && step->size == 0);
}

/* Deflate data, as far as input and room go. *stuck: only more input helps. */
static enum inflate_code run_deflate(struct inflate_gzip *self, struct inflate_io *io, int *stuck)
{
    struct inflate_step *step = &self->step;
    int again = self->again > 0;
    enum inflate_code code;

    step->source = again ? self->tail + INFLATE_TAIL - self->again : io->source + io->consumed;
    step->size = again ? self->again : io->size - io->consumed;
    step->out = io->out + io->produced;
    step->room = io->room - io->produced;
    step->consumed = 0;
    step->produced = 0;
    code = self->decoder->run(self->ctx, step);
    if (!plausible(self, step))
        return code == INFLATE_OK ? INFLATE_BAD_DATA : code;
    *stuck = !step->ended && !step->consumed && !step->produced;
    if (step->consumed < 0 || again) {
        self->again -= (unsigned)step->consumed; /* more of them when it is negative */
    } else if (step->consumed) {
        keep(self, step->source, (size_t)step->consumed);
        io->consumed += (size_t)step->consumed;
    }
    io->produced += step->produced;
    self->content_size += (uint32_t)step->produced;
    if (step->ended) {
        self->next = TRAILER;
        self->have = 0;
    }
    return code;
}

enum inflate_code gzip_run(struct inflate *stream, struct inflate_io *io)
{
    struct inflate_gzip *self = &stream->gzip;
    enum inflate_code code = INFLATE_OK;
    int stuck = 0;

    while (code == INFLATE_OK && !stuck) {
        if (self->next == DEFLATE) {
            if (io->produced == io->room)
                break;
            code = run_deflate(self, io, &stuck);
        } else if (self->again) {
            code = frame_byte(self, self->tail[INFLATE_TAIL - self->again--]);
        } else if (io->consumed < io->size) {
            code = frame_byte(self, io->source[io->consumed++]);
        } else {
            break;
        }
    }
    return code;
}

enum inflate_code gzip_finish(const struct inflate *stream)
{
    return stream->gzip.next == BETWEEN && !stream->gzip.again ? INFLATE_OK : INFLATE_CUT;
}

/* Deflate's window is 32 KiB. */
void gzip_allow(struct inflate *stream, size_t window)
{
    (void)stream, (void)window;
}

static void free_nothing(struct inflate *stream)
{
    (void)stream;
}

void gzip_begin(struct inflate *stream, const struct inflate_decoder *decoder, void *ctx)
{
    static const struct inflate_backend BACKEND = {gzip_run, gzip_finish, gzip_allow, free_nothing};

    stream->backend = &BACKEND;
    stream->gzip.decoder = decoder;
    stream->gzip.ctx = ctx;
}
