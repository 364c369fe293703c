/* Directories of the tree: which ones this layer has touched, their descriptors, and what else this layer made. */
#ifndef FASTOCI_EXTRACT_TREE_H
#define FASTOCI_EXTRACT_TREE_H

#include "extract/context.h"

int tree_init(struct extract *ex, int root_fd);
void tree_free(struct extract *ex);
/* The node of a child, or NULL when this layer has not touched it. */
struct node *tree_find(struct extract *ex, const struct node *dir, const char *name);
/* Register an open directory; existing: fstat it for its time and mode. NULL with errno; fd is then closed. */
struct node *tree_add(struct extract *ex, struct node *parent, const char *name, int fd, int existing);
/* Forget a directory that is about to go, and all below it. */
void tree_drop(struct extract *ex, struct node *node);
/* The descriptor of a node: give it up, take a new one, mark it as just used. */
void tree_shut(struct extract *ex, struct node *node);
/* Close the one that was used longest ago. */
void tree_shut_stale(struct extract *ex);
void tree_keep_open(struct extract *ex, struct node *node, int fd);
void tree_used(struct extract *ex, struct node *node);
/* Note content of this layer. */
void tree_hold(struct node *node);
int tree_own(struct extract *ex, struct node *dir, const char *name);
int tree_owns(struct extract *ex, const struct node *dir, const char *name);

/* Whether there may be this name in a directory; as a directory of its own: TAR_OK or a code. */
int tree_fits(struct extract *ex, const struct node *dir, size_t len, int directory);

#endif
