/* From the parent part of a name to a directory of the tree. */
#ifndef FASTOCI_EROFS_WALK_H
#define FASTOCI_EROFS_WALK_H

#include "erofs/context.h"

/* What a walk does about a directory that is missing: nothing; make it for what an entry puts there; make it for a whiteout, if a lower
 * layer may have it. */
enum erofs_create { CREATE_NOTHING, CREATE_IMPLIED, CREATE_PHANTOM };

/* TAR_OK, WALK_MISSING, or a code. */
int erofs_walk(struct erofs *e, struct tar_bytes path, enum erofs_create create, struct erofs_directory **out);

#endif
