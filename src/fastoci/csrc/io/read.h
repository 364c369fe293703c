/* Reading a part of a file, whatever signals come and however little a file system gives at a time. */
#ifndef FASTOCI_IO_READ_H
#define FASTOCI_IO_READ_H

#include <stddef.h>
#include <stdint.h>

/* Read size bytes at offset, less at the end of the file; *got is set in any case. 0, or -errno after any part of them. */
int read_all(int fd, uint8_t *data, size_t size, int64_t offset, size_t *got);

#endif
