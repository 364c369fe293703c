/* Bounded decompression of one gzip (RFC 1952) or zstd (RFC 8878) stream: every member and frame, to its demanded end.
 *
 * The decoders are ISA-L and libzstd, called through the symbols that the wheels of `isal` and `zstandard` export; they
 * are looked up once with inflate_bind, which also tries them. Framing of gzip is ours: a header of any length passes
 * through a fixed state, reserved bits are refused, trailers are checked; another decoder of raw deflate data can stand
 * in for ISA-L. The head of a zstd frame is read here before libzstd has it: it says how large a window the frame
 * demands. Knows no Python. */
#ifndef FASTOCI_INFLATE_INFLATE_H
#define FASTOCI_INFLATE_INFLATE_H

#include "inflate/code.h"
#include "inflate/decoder.h"

#include <stddef.h>
#include <stdint.h>

enum inflate_format { INFLATE_GZIP, INFLATE_ZSTD };

/* Look the decoder's symbols up in the shared object at path and try them. 0, or -1: not usable. */
int inflate_bind(enum inflate_format format, const char *path);
int inflate_bound(enum inflate_format format);

struct inflate; /* opaque */

/* NULL without memory or without a bound decoder. window: bytes that a zstd frame may demand for its own. */
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
/* Bytes of window that the frame whose head was just read demands beyond what is allowed; 0: it may go on. */
uint64_t inflate_demanded(const struct inflate *self);
/* Frames may demand window bytes from now on, 2 GiB at most; it never shrinks. libzstd never allocates more than that and
 * INFLATE_OVERHEAD. */
void inflate_allow(struct inflate *self, size_t window);
/* INFLATE_OK when the input may end here. */
enum inflate_code inflate_finish(const struct inflate *self);

#endif
