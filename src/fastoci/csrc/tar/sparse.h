/* Sparse files: where the maps of the four forms are, and when a map is right. */
#ifndef FASTOCI_TAR_SPARSE_H
#define FASTOCI_TAR_SPARSE_H

#include "tar/context.h"

/* Each ends in tar_begin_body, a state that wants more blocks, or tar_fail: the entry with the header block of the old GNU form, */
void tar_begin_old_sparse(struct tar *tar, const uint8_t *block);
/* an extension block of that form, */
void tar_sparse_extension(struct tar *tar, const uint8_t *block);
/* an entry with pax records, which may say that it is sparse, */
void tar_begin_pax_entry(struct tar *tar);
/* and a block of the map in front of a body. */
void tar_sparse_block(struct tar *tar, const uint8_t *block);

#endif
