/* Sparse files: chunks of one size, each somewhere in the image or a hole. */
#ifndef FASTOCI_EROFS_SPARSE_H
#define FASTOCI_EROFS_SPARSE_H

#include "erofs/context.h"

/* Keep the pieces of an entry, and choose how its chunks lie: TAR_OK or a code. */
int erofs_set_sparse(struct erofs *e, struct erofs_inode *inode, const struct tar_entry *entry);
/* Chunks of the whole file. */
uint64_t erofs_chunk_count(const struct erofs_inode *inode);
/* Blocks that a copy takes. */
uint64_t erofs_copied_blocks(const struct erofs *e, const struct erofs_inode *inode);

/* Chunks in ascending order. */
struct erofs_chunks {
    const struct erofs_inode *inode;
    uint32_t segment; /* the first that does not end before the chunk */
    uint64_t before;  /* bytes of the segments before it */
    uint64_t run;     /* chunks that were no holes */
};
/* The block of the next chunk, or EROFS_NO_BLOCK. */
uint64_t erofs_next_chunk(const struct erofs *e, struct erofs_chunks *chunks, uint64_t chunk);

#endif
