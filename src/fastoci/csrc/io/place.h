/* Writes small files that are seen as a whole or not at all: each has its name when all of it is there. Knows no Python. */
#ifndef FASTOCI_IO_PLACE_H
#define FASTOCI_IO_PLACE_H

#include <stddef.h>
#include <stdint.h>

struct placed {
    const uint8_t *data;
    size_t size;
    const char *name; /* one component */
    int fd;           /* while it has no name */
    int code;         /* 0, or -errno: it has no name then */
};

/* Make files without names in one directory, of mode 0444, and give them names in another, never in place of what is there.
 * sync: what is in a file is on the disk before it has its name, and the names are when this returns. Nothing is left of a
 * process that dies meanwhile but files that have their names.
 * 0, or -errno of the sync of the names: all that have one may lose it in a power cut. */
int place_all(int nameless, int named, struct placed *files, size_t count, int sync);

/* Lock one byte of an open file, without waiting: 0, -EAGAIN while somebody else has it, or -errno. */
int byte_lock(int fd, int64_t byte);

/* Let go of it: 0, or -errno. */
int byte_unlock(int fd, int64_t byte);

/* Whether nothing has a name in a directory: 1, 0, or -errno. */
int is_free(int directory, const char *name);

#endif
