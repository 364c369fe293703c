/* The file that is being written. */
#ifndef FASTOCI_EXTRACT_FILE_H
#define FASTOCI_EXTRACT_FILE_H

#include "extract/context.h"

/* Make the file of an entry and open it as ex->file: 0, or -1 with errno. inherits: NODE_INHERITS of the directory. */
int file_make(struct extract *ex, int dir, unsigned inherits, const char *name, const struct tar_entry *entry);
/* A callback of the reader: write a piece of it, if there is one. */
int file_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len);
/* Give it its metadata and close it, if there is one. TAR_OK or a code. */
int file_end(struct extract *ex);

#endif
