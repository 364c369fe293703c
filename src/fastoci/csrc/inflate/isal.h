/* ISA-L as a decoder of raw deflate data, and gzip over it. */
#ifndef FASTOCI_INFLATE_ISAL_H
#define FASTOCI_INFLATE_ISAL_H

#include "inflate/context.h"

/* Look its symbols up: whether all are there. */
int isal_bind(void *library);
/* A stream of gzip: 1, or 0 without memory. window is of no use to it. */
int isal_begin(struct inflate *self, size_t window);

#endif
