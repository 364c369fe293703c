/* The block in front of all, and the table of devices. */
#ifndef FASTOCI_EROFS_SUPER_H
#define FASTOCI_EROFS_SUPER_H

#include "erofs/context.h"

/* Bytes of the table of devices, which lies behind the first block. */
uint64_t erofs_devices_size(const struct erofs *e);
/* Each: TAR_OK or a code. */
int erofs_put_devices(struct erofs *e);
/* Write the first block, which makes the file one that mounts: the last of all. */
int erofs_put_super(struct erofs *e);

#endif
