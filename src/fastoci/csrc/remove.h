/* Removes names and whole directories, however deep and wide: iterative, in time that is linear in what goes, with at most 32
 * descriptors and 1 MiB of memory. It never follows a symbolic link, and never enters or removes a mount point. */
#ifndef FASTOCI_REMOVE_H
#define FASTOCI_REMOVE_H

#include <stdint.h>
#include <sys/types.h>

enum { DENTS_SIZE = 32768 };

/* The kernel's own record of a directory; the libc wrapper is younger than the systems that are to be served. */
struct dent {
    uint64_t inode;
    int64_t next;
    uint16_t len;
    uint8_t type;
    char name[];
};

/* Fill a buffer of DENTS_SIZE: its bytes, 0 at the end, -1 with errno. */
ssize_t read_dents(int fd, char *buffer);
/* Whether a name is "." or "..". */
int is_dot(const char *name);

/* What may end a removal early: a request to stop (NULL: none), or a time of CLOCK_MONOTONIC in nanoseconds (0: none). */
struct remove_bounds {
    const int *stop;
    int64_t deadline;
};

/* Unlink: 0, or -errno: -EISDIR is a directory whatever the file system says, -EBUSY a mount point. */
int remove_file(int parent, const char *name);

/* Remove a directory and all below it: 0, or -errno. What can be removed goes, whatever the rest says; the error is the first:
 * -EBUSY: it is or holds a mount point; -ECANCELED, -ETIMEDOUT: the bounds, and the rest is as it was. */
int remove_directory(int parent, const char *name, const struct remove_bounds *bounds);

/* The one or the other; nothing there is fine. */
int remove_tree(int parent, const char *name, const struct remove_bounds *bounds);

#endif
