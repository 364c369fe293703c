/* One 512-byte header block into numbers and names, read exactly as Go's archive/tar reads it. No state, no streams. */
#ifndef FASTOCI_TAR_BLOCK_H
#define FASTOCI_TAR_BLOCK_H

#include "tar/context.h"

/* A header field: octal as Go trims it, or base-256. 0, or -1 when malformed or beyond int64. */
int tar_number(const uint8_t *field, size_t len, int64_t *value);

/* Decode one header block whose checksum holds; TAR_OK, TAR_CHECKSUM or TAR_NUMBER with *value. */
int tar_block_decode(const uint8_t *block, struct tar_header *header, int64_t *value);

#endif
