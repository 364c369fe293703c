/* The content of files: where it lies in the tar, what is copied behind it, and content without a tar. */
#ifndef FASTOCI_EROFS_DATA_H
#define FASTOCI_EROFS_DATA_H

#include "erofs/context.h"

/* A file whose content follows: TAR_OK or a code. */
int erofs_begin_file(struct erofs *e, struct erofs_inode *inode, const struct tar_entry *entry);
/* Callbacks of the reader. */
int erofs_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len);
int erofs_entry_end(void *ctx);
int erofs_padding(void *ctx, const uint8_t *data, size_t len);

/* The tar at hand has so many bytes: give its copies their places behind it, the same whoever asks. The block behind them. */
uint64_t erofs_place_copies(struct erofs *e, uint64_t tar_size);
/* Make these copies from the tar, which is in the file: TAR_OK or a code. */
int erofs_write_copies(struct erofs *e);

#endif
