/* The lines that are made, in memory that grows. */
#ifndef FASTOCI_TARSPLIT_LINES_H
#define FASTOCI_TARSPLIT_LINES_H

#include <stddef.h>
#include <stdint.h>

struct lines {
    uint8_t *data;
    size_t len;
    size_t capacity;
    uint64_t count; /* of all that were made */
};

/* Append bytes: 0, or -1 without memory. */
int lines_put(struct lines *lines, const void *data, size_t len);

/* Append one line: 0, or -1 without memory. */
int lines_run(struct lines *lines, const uint8_t *data, size_t len);
int lines_file(struct lines *lines, const uint8_t *name, size_t len, uint64_t size, uint64_t crc);

#endif
