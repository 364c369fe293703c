/* Extended attributes as they are on the disk. */
#ifndef FASTOCI_EROFS_XATTR_H
#define FASTOCI_EROFS_XATTR_H

#include "erofs/context.h"

enum { XATTR_HEAD = 12, XATTR_OVERLAY = 20 }; /* bytes in front of all, and of each of overlay's */

/* Give an inode, whose mode is set, those of an entry that an extractor could have set; the rest is counted as skipped. */
int erofs_set_xattrs(struct erofs *e, struct erofs_inode *inode, const struct tar_entry *entry);

/* Bytes in an inode, overlay's among them. */
uint32_t erofs_xattr_size(const struct erofs *e, const struct erofs_inode *inode);
/* Write these bytes. */
void erofs_put_xattrs(const struct erofs *e, const struct erofs_inode *inode, uint8_t *out);

#endif
