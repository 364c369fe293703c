/* What an entry makes in the tree. What is in the way goes first; nothing is written through it. */
#ifndef FASTOCI_EXTRACT_MAKE_H
#define FASTOCI_EXTRACT_MAKE_H

#include "layer/check.h"
#include "extract/context.h"

/* All but the content of a file, which follows through the sink, unless the file is adopted. TAR_OK or a code. */
int make_entry(struct extract *ex, const struct split_name *name, const struct tar_entry *entry);
int make_root(struct extract *ex, const struct tar_entry *entry);

#endif
