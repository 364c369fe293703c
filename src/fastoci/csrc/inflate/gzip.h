/* The framing of gzip: headers, trailers, members; a decoder makes the content. Spec: RFC 1952. */
#ifndef FASTOCI_INFLATE_GZIP_H
#define FASTOCI_INFLATE_GZIP_H

#include "inflate/context.h"

/* A stream over a decoder, which stays the caller's. */
void gzip_begin(struct inflate *stream, const struct inflate_decoder *decoder, void *ctx);

/* The functions of gzip_begin's backend, for one that owns its decoder. */
enum inflate_code gzip_run(struct inflate *stream, struct inflate_io *io);
enum inflate_code gzip_finish(const struct inflate *stream);
void gzip_allow(struct inflate *stream, size_t window);

#endif
