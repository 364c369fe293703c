/* The body of an entry, handed on to the sink: whole, or as the segments of a sparse file. */
#ifndef FASTOCI_TAR_BODY_H
#define FASTOCI_TAR_BODY_H

#include "tar/context.h"

/* The entry is known: hand it on. */
void tar_begin_body(struct tar *tar);

/* Hand on what of the data belongs to the body: so many bytes. */
size_t tar_feed_body(struct tar *tar, const uint8_t *data, size_t len);

/* As tar_skip. */
void tar_skip_body(struct tar *tar, uint64_t len);

#endif
