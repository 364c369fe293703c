/* The writer that makes the tree from what a stager made before. */
#ifndef FASTOCI_EXTRACT_ADOPT_H
#define FASTOCI_EXTRACT_ADOPT_H

#include "extract/context.h"

/* Do with the next entries of a stager what feeding them would do: 1 when there are more, 0, or a negative code. */
int adopt_entries(struct extract *ex, const struct extract *stager, uint64_t count);

#endif
