/* Opens directories one name at a time: never through a symbolic link, never across a mount point. */
#ifndef FASTOCI_IO_DIRECTORY_H
#define FASTOCI_IO_DIRECTORY_H

#include <fcntl.h>

/* O_NOFOLLOW with O_DIRECTORY: a link answers ENOTDIR, a FIFO does not block. */
#define DIRECTORY_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* Open a directory, name being one component; of one's own that is closed to its owner, too. -1 with errno: ENOTDIR or ELOOP
 * (no directory), EXDEV (a mount point), or another. */
int directory_open(int parent, const char *name);

#endif
