/* From names to directories: descriptors of nodes, and the directory that a name in the archive leads to. */
#ifndef FASTOCI_EXTRACT_WALK_H
#define FASTOCI_EXTRACT_WALK_H

#include "extract/context.h"
#include "layer/walk.h"

/* A descriptor that holds until another node's is asked for; opens what is closed on the path to it. -1 with errno. */
int walk_fd(struct extract *ex, struct node *node);
/* Make a directory and its node, with this mode (node.born) or 0700 for now. TAR_OK, LAYER_IO (errno EEXIST is for the
 * caller) or a code. */
int walk_make(struct extract *ex, struct node *parent, const char *name, mode_t mode, struct node **out);
/* Where a parent part leads, links resolved inside the root. create: make what is missing.
 * TAR_OK, WALK_MISSING, WALK_UNSEEN, or a code. */
int walk_to(struct extract *ex, struct tar_bytes path, int create, struct node **out);

#endif
