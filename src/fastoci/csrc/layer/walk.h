/* From the parent part of a name in an archive to a directory: symbolic links are resolved inside the root, whatever the tree is. */
#ifndef FASTOCI_LAYER_WALK_H
#define FASTOCI_LAYER_WALK_H

#include "layer/context.h"

/* WALK_UNSEEN: it is missing, but lower layers, which are not there, may have it. */
enum { WALK_MISSING = -1, WALK_LINK = -2, WALK_UNSEEN = -3, WALK_TARGET_SIZE = 4096 };

/* A tree, as a walk sees it. Directories are its own. */
struct layer_tree {
    void *root;
    /* The directory above; NULL: it is the root. */
    void *(*parent)(const void *directory);
    /* One component that is neither "." nor "..". create: make what is missing. TAR_OK with *out, WALK_MISSING, WALK_UNSEEN, a code, or WALK_LINK
     * with the text of a symbolic link in target[WALK_TARGET_SIZE] and its length. */
    int (*enter)(void *ctx, void *directory, const char *name, size_t len, int create, void **out, char *target, size_t *target_len);
};

/* Where a parent part leads, and remember it. TAR_OK, WALK_MISSING, WALK_UNSEEN, or a code. */
int layer_walk(struct layer *layer, const struct layer_tree *tree, void *ctx, struct tar_bytes path, int create, void **out);

/* A directory that was remembered may have gone. */
void layer_forget(struct layer *layer);
/* Whether this parent part is the one that is remembered. */
int layer_remembers(const struct layer *layer, const uint8_t *path, size_t len);

#endif
