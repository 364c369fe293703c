/* What a file system is asked for beyond files: when one was born, whether another is mounted on a name, to write all out. */
#ifndef FASTOCI_IO_FILESYSTEM_H
#define FASTOCI_IO_FILESYSTEM_H

#include <stdint.h>

/* When the file or directory was made, in nanoseconds since 1970; 0 where that is not known. */
int64_t birth_time(int fd);

/* Whether something is mounted on a directory of this name, a bind mount included: 1, 0, or -errno. */
int is_mount_point(int parent, const char *name);

/* Wait until all that was written to the file system of fd is on its disk, whoever wrote it: 0, or -errno. */
int sync_filesystem(int fd);

#endif
