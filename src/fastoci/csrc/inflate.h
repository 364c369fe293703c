/* Bounded decompression of one gzip (RFC 1952) or zstd (RFC 8878) stream: every member and frame, to its demanded end.
 *
 * The decoders are ISA-L and libzstd, called through the symbols that the wheels of `isal` and `zstandard` export; they
 * are looked up once with inflate_bind, which also tries them. Framing of gzip is ours: a header of any length passes
 * through a fixed state, reserved bits are refused, trailers are checked. Knows no Python.
 */
#ifndef FASTOCI_INFLATE_H
#define FASTOCI_INFLATE_H

#include <stddef.h>
#include <stdint.h>

enum inflate_format { INFLATE_GZIP, INFLATE_ZSTD };

enum inflate_code {
    INFLATE_OK,
    INFLATE_NOT_GZIP,      /* no gzip magic where a member must begin */
    INFLATE_BAD_HEADER,    /* unknown method, reserved flags, header checksum */
    INFLATE_BAD_DATA,      /* the compressed data is damaged */
    INFLATE_BAD_CHECKSUM,  /* CRC-32 of the content */
    INFLATE_BAD_LENGTH,    /* ISIZE of the content */
    INFLATE_CUT,           /* the input ended inside a member or frame, or before the first */
    INFLATE_WINDOW,        /* a zstd frame demands more history than allowed */
    INFLATE_NO_MEMORY,
};

struct inflate; /* opaque */

/* Look the decoder's symbols up in the shared object at path and try them. 0, or -1: not usable. */
int inflate_bind(enum inflate_format format, const char *path);
int inflate_bound(enum inflate_format format);

/* NULL without memory or without a bound decoder. window: bytes of history a zstd frame may demand (a power of two). */
struct inflate *inflate_new(enum inflate_format format, size_t window);
void inflate_free(struct inflate *self);

/* Consume from source and produce into out until one of them is used up, or an error. *consumed and *produced are set in
 * any case. With all of source consumed, output may still be held back: call again with more room when out is full. */
enum inflate_code inflate_run(struct inflate *self, const uint8_t *source, size_t size, size_t *consumed, uint8_t *out,
                              size_t room, size_t *produced);
/* INFLATE_OK when the input may end here. */
enum inflate_code inflate_finish(const struct inflate *self);

#endif
