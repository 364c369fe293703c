/* Directories when their layer is whole. */
#ifndef FASTOCI_EXTRACT_DIRECTORIES_H
#define FASTOCI_EXTRACT_DIRECTORIES_H

#include "extract/context.h"

/* Set their times and narrow modes: TAR_OK or a code. */
int directories_finish(struct extract *ex);

#endif
