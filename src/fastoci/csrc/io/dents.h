/* Reads the names in a directory into a buffer of the caller's. */
#ifndef FASTOCI_IO_DENTS_H
#define FASTOCI_IO_DENTS_H

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

#endif
