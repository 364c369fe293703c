/* Loop devices: a file as a block device, which is gone when the last user lets go of it. */
#ifndef FASTOCI_MOUNT_LOOP_H
#define FASTOCI_MOUNT_LOOP_H

#include <stdint.h>

/* Make a free device show a file, read-only unless writable. A descriptor of the device, which keeps it until it is mounted, and its number;
 * or -errno: -ENOENT, -EACCES, -EPERM where there are none for this process. */
int loop_attach(int file, uint32_t block_size, int writable, int *number);

#endif
