/* From a tar to what it has beside the content of its files: lines of JSON, out of which and the files the tar can be made again,
 * byte by byte. The form is that of tar-split, which containers/storage keeps beside each layer.
 *
 * A line is a run of bytes ("type" 2), or the name, size and CRC-64 of a file's content ("type" 1). Sparse files, and files without
 * content, are in the runs. What is refused, the reader of tars refuses. */
#ifndef FASTOCI_TARSPLIT_TARSPLIT_H
#define FASTOCI_TARSPLIT_TARSPLIT_H

#include "tar/sink.h"

#include <stddef.h>
#include <stdint.h>

struct tarsplit;

/* NULL: no memory, or no randomness. */
struct tarsplit *tarsplit_new(void);

/* Take len bytes of the tar; TAR_OK or a code. After a code every call returns that code. */
int tarsplit_feed(struct tarsplit *split, const uint8_t *data, size_t len);

/* The tar is over: TAR_OK when it may end here, else a code. */
int tarsplit_finish(struct tarsplit *split);

/* The lines since the last call of tarsplit_taken; they hold until the next call of any other function. */
struct tar_bytes tarsplit_lines(const struct tarsplit *split);
void tarsplit_taken(struct tarsplit *split);

/* Whether each content is what has its name in the tree: 0 when an entry replaces another, or a name leads upwards. */
int tarsplit_is_exact(const struct tarsplit *split);

/* The largest owner and group of an entry so far. */
void tarsplit_owners(const struct tarsplit *split, int64_t *uid, int64_t *gid);

void tarsplit_free(struct tarsplit *split);

#endif
