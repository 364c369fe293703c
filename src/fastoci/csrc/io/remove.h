/* Removes names and whole directories, however deep and wide: iterative, in time that is linear in what goes, with at most 32
 * descriptors and 1 MiB of memory. It never follows a symbolic link, and never enters or removes a mount point. */
#ifndef FASTOCI_IO_REMOVE_H
#define FASTOCI_IO_REMOVE_H

#include <stdint.h>

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
