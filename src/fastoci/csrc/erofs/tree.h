/* Names of the tree: found by a hash table, listed by their directories. */
#ifndef FASTOCI_EROFS_TREE_H
#define FASTOCI_EROFS_TREE_H

#include "erofs/context.h"

/* The root, as an empty directory that no entry names: TAR_OK or a code. */
int erofs_tree_init(struct erofs *e);
void erofs_tree_free(struct erofs *e);
/* Forget how names are found; they are still listed. */
void erofs_tree_seal(struct erofs *e);

/* The name, though nothing may have it; NULL: it was never there. */
struct erofs_name *erofs_find(const struct erofs *e, const struct erofs_directory *directory, const char *text, size_t len);
/* Give a name of a directory to an inode, whatever had it: TAR_OK or a code. */
int erofs_name(struct erofs *e, struct erofs_directory *directory, const char *text, size_t len, struct erofs_inode *inode);
/* Take a name away. */
void erofs_unname(struct erofs *e, struct erofs_name *name);

/* A new directory, in no other's names yet. NULL: no memory. */
struct erofs_directory *erofs_new_directory(struct erofs *e, struct erofs_directory *parent, size_t len);
/* As an implied directory: 0755, root, no xattrs, no time. */
void erofs_imply(struct erofs_inode *inode);
/* The directory that an inode is, or NULL. */
struct erofs_directory *erofs_directory_of(struct erofs_inode *inode);
/* Make its flags speak of the layer at hand. */
void erofs_touch(struct erofs *e, struct erofs_directory *directory);
/* Note that it holds content of the layer at hand. */
void erofs_hold(struct erofs *e, struct erofs_directory *directory);
/* Whether lower layers cannot show in it. */
int erofs_cut(const struct erofs_directory *directory);
/* Whether a directory may have a name of so many bytes: TAR_OK or a code. */
int erofs_fits(struct erofs *e, const struct erofs_directory *directory, size_t len);

#endif
