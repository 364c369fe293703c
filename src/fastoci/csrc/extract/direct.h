/* The writer that makes the tree while the layer is fed. */
#ifndef FASTOCI_EXTRACT_DIRECT_H
#define FASTOCI_EXTRACT_DIRECT_H

#include "extract/context.h"

extern const struct extract_writer direct_writer;

/* Callbacks of the reader, for whoever makes what entries say at once. */
int direct_entry(void *ctx, const struct tar_entry *entry);
int direct_entry_end(void *ctx);
/* What has been made is the caller's to remove. */
void direct_failed(struct extract *ex);

#endif
