/* Files and directories that have their mode when they are made, so that no chmod is needed. */
#ifndef FASTOCI_EXTRACT_MODE_H
#define FASTOCI_EXTRACT_MODE_H

#include "extract/context.h"

/* The mode to make a file or directory with so that it needs no chmod; 0: it does, and is made private until then. */
mode_t mode_at_birth(struct extract *ex, mode_t mode, unsigned inherits, size_t xattrs);
/* What has been made with mode_at_birth's answer: the mode it certainly has, or 0. */
mode_t mode_believed(struct extract *ex, int fd, mode_t mode);
/* At the end of every call that may have made something. */
void mode_restore(struct extract *ex);

#endif
