/* One entry to the tree. */
#ifndef FASTOCI_EXTRACT_APPLY_H
#define FASTOCI_EXTRACT_APPLY_H

#include "extract/context.h"

/* Check it and do what it asks for; the content of a file follows through the sink, unless it is adopted. TAR_OK or a code. */
int apply_entry(struct extract *ex, const struct tar_entry *entry);
/* Remove what a whiteout hides, of lower layers that are in the tree. TAR_OK or a code. */
int apply_whiteout(struct extract *ex, const struct split_name *name, int opaque);

#endif
