/* An incremental tar reader: bytes in, entries out, as Go's archive/tar reads them, or a refusal.
 *
 * It knows no files, no paths inside a root and no policy: names come out as the archive spells them. POSIX ustar and pax,
 * v7, star, GNU long names and all four sparse forms. Windows of any size give the same result. Memory is bounded
 * whatever the headers say: 1 MiB for each kind of special header, 64 Ki segments for a sparse map. */
#ifndef FASTOCI_TAR_TAR_H
#define FASTOCI_TAR_TAR_H

#include "tar/code.h"
#include "tar/sink.h"

#include <stddef.h>
#include <stdint.h>

struct tar;

/* A reader that calls sink with ctx; sink is copied. NULL: no memory. */
struct tar *tar_new(const struct tar_sink *sink, void *ctx);

/* Parse len bytes; TAR_OK or a code. After a code every call returns that code. After the end of the archive bytes are ignored. */
int tar_feed(struct tar *tar, const uint8_t *data, size_t len);

/* The stream is over: TAR_OK when it may end here, else a code. */
int tar_finish(struct tar *tar);

/* Bytes of the current body that are still to come; 0: none is under way. */
uint64_t tar_body_left(const struct tar *tar);
/* Pass over so many bytes, all of the body that is under way or a part of it; the sink's data learns nothing of any of its rest. */
void tar_skip(struct tar *tar, uint64_t len);

void tar_free(struct tar *tar);

/* Facts, at any time: the code, the offset of the current (or faulty) header, the wrong number, the current entry's name. */
int tar_status(const struct tar *tar);
uint64_t tar_offset(const struct tar *tar);
int64_t tar_value(const struct tar *tar);
struct tar_bytes tar_path(const struct tar *tar); /* holds until the next tar_feed or tar_free */
int tar_ended(const struct tar *tar);             /* 1 once the end marker has been read */

#endif
