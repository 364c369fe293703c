/* The metadata of a tree that is laid out, to the file. */
#ifndef FASTOCI_EROFS_EMIT_H
#define FASTOCI_EROFS_EMIT_H

#include "erofs/context.h"

/* TAR_OK or a code. */
int erofs_emit(struct erofs *e);

#endif
