/* Where each inode lies, and how large all is: before anything is written. */
#ifndef FASTOCI_EROFS_LAYOUT_H
#define FASTOCI_EROFS_LAYOUT_H

#include "erofs/context.h"

enum { INODE_SIZE = 64 };

/* Give each inode its slot, count links, drop what cannot be seen, and set the sizes of the file, whose metadata begin at metadata_at:
 * TAR_OK or a code. */
int erofs_lay_out(struct erofs *e, uint64_t metadata_at);
/* Blocks of a directory before its last one. */
uint64_t erofs_whole_blocks(const struct erofs *e, const struct erofs_directory *directory);

#endif
