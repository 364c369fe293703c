/* Frames of zstd through libzstd, within the memory that is allowed. Spec: RFC 8878. */
#ifndef FASTOCI_INFLATE_ZSTD_H
#define FASTOCI_INFLATE_ZSTD_H

#include "inflate/context.h"

/* Look libzstd's symbols up: whether all are there. */
int zstd_bind(void *library);
/* A stream whose frames may demand windows of that many bytes: 1, or 0 without memory. */
int zstd_begin(struct inflate *stream, size_t window);

#endif
