/* One entry to the tree. */
#ifndef FASTOCI_EROFS_APPLY_H
#define FASTOCI_EROFS_APPLY_H

#include "erofs/context.h"

/* Check it and do what it asks for, as the extractor would; the content of a file follows through the sink. TAR_OK or a code. */
int erofs_apply(struct erofs *e, const struct tar_entry *entry);

#endif
