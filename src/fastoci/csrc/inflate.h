/* Bounded decompression of one gzip (RFC 1952) or zstd (RFC 8878) stream: every member and frame, to its demanded end.
 *
 * The decoders are ISA-L and libzstd, called through the symbols that the wheels of `isal` and `zstandard` export; they
 * are looked up once with inflate_bind, which also tries them. Framing of gzip is ours: a header of any length passes
 * through a fixed state, reserved bits are refused, trailers are checked; another decoder of raw deflate data can stand
 * in for ISA-L. The head of a zstd frame is read here before libzstd has it: it says how much history the frame demands.
 * Knows no Python. */
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

/* One call of a decoder of raw deflate data (RFC 1951). */
struct inflate_step {
    const uint8_t *source;
    size_t size;
    uint8_t *out;
    size_t room;
    /* Set by the decoder. It may read ahead, and hand back what it did not need: the last bytes that it consumed, in this
     * call or in earlier ones. consumed is negative when it hands back more than it took in this call. */
    ptrdiff_t consumed;
    size_t produced;
    uint32_t crc; /* CRC-32 of the member's content so far; the decoder counts what it produced in */
    int ended;    /* the deflate data is over, and all bytes behind it are handed back */
};

/* A decoder that stands in for ISA-L. Both answer INFLATE_OK, INFLATE_BAD_DATA or INFLATE_NO_MEMORY. A run that neither
 * consumes nor produces nor ends is for want of input. What a run says is checked, not believed: counts that cannot be
 * are INFLATE_BAD_DATA. */
struct inflate_decoder {
    enum inflate_code (*begin)(void *ctx); /* a member begins */
    enum inflate_code (*run)(void *ctx, struct inflate_step *step);
};

/* Look the decoder's symbols up in the shared object at path and try them. 0, or -1: not usable. */
int inflate_bind(enum inflate_format format, const char *path);
int inflate_bound(enum inflate_format format);

/* NULL without memory or without a bound decoder. window: bytes of history that a zstd frame may demand. */
struct inflate *inflate_new(enum inflate_format format, size_t window);
/* gzip over another decoder, which stays the caller's and must outlive the stream. NULL: no memory. */
struct inflate *inflate_new_over(const struct inflate_decoder *decoder, void *ctx);
void inflate_free(struct inflate *self);

/* Consume from source and produce into out until one of them is used up, a demand, or an error. *consumed and *produced
 * are set in any case; the call that finds damage may make nothing. With all of source consumed, output may still be held
 * back: call again with more room when out is full. INFLATE_OK with inflate_demanded: a frame waits for inflate_allow;
 * without it the next call is INFLATE_WINDOW. */
enum inflate_code inflate_run(struct inflate *self, const uint8_t *source, size_t size, size_t *consumed, uint8_t *out,
                              size_t room, size_t *produced);
/* Bytes of history that the frame whose head was just read demands beyond what is allowed; 0: it may go on. */
uint64_t inflate_demanded(const struct inflate *self);
/* Frames may demand window bytes from now on, 2 GiB at most; it never shrinks. What libzstd allocates never exceeds that and INFLATE_OVERHEAD. */
void inflate_allow(struct inflate *self, size_t window);
#define INFLATE_OVERHEAD (1 << 20) /* libzstd's context of 160 KiB, and three blocks of 128 KiB beside the history */
/* INFLATE_OK when the input may end here. */
enum inflate_code inflate_finish(const struct inflate *self);

#endif
