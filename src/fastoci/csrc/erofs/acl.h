/* Access control lists, as the kernel takes them from an extended attribute. */
#ifndef FASTOCI_EROFS_ACL_H
#define FASTOCI_EROFS_ACL_H

#include <stddef.h>
#include <stdint.h>

/* Make of a list what a file with this mode would have after setxattr and chmod; access: not the default one of a directory.
 * 1: it is in out[size]; 0: there is none, since the mode says as much; -1: the kernel would refuse it. */
int erofs_acl(const uint8_t *value, size_t size, uint16_t mode, int access, uint8_t *out);

#endif
