/* Records of pax extended headers: kept as raw bytes, and read as numbers and times. */
#ifndef FASTOCI_TAR_PAX_H
#define FASTOCI_TAR_PAX_H

#include "tar/context.h"

/* Parse len bytes of records. xattrs and segments (form 0.0) are refilled. TAR_OK or a code with *value. */
int tar_pax_parse(const uint8_t *data, size_t len, struct tar_pax *pax, struct tar_xattrs *xattrs, struct tar_segments *segments,
                  int64_t *value);

/* ASCII digits only, at most 2^63-1: 0 or -1. */
int tar_pax_number(struct tar_bytes text, int64_t *value);

/* A number or time ([-]digits[.digits], rounded towards the past to a nanosecond) that replaces a header's; an absent record
 * leaves it, a malformed one is tar_fail. */
void tar_apply_number(struct tar *tar, struct tar_bytes text, int64_t *field);
void tar_apply_time(struct tar *tar, struct tar_bytes text, int64_t *seconds, uint32_t *nanoseconds);

#endif
