/* What an entry hides of lower layers: taken out of the tree of an image, or said in the tree of a layer by itself. */
#ifndef FASTOCI_EROFS_LOWER_H
#define FASTOCI_EROFS_LOWER_H

#include "erofs/context.h"

/* A whiteout of one name of a directory: TAR_OK or a code. */
int erofs_hide_name(struct erofs *e, struct erofs_directory *directory, const char *text, size_t len);
/* An opaque directory: the same. */
int erofs_hide_all(struct erofs *e, struct erofs_directory *directory);

#endif
