/* Writing a large file from front to back: past the page cache where the kernel can, in blocks taken beforehand. Knows no
 * Python; the caller chooses the file and the way of writing. */
#ifndef FASTOCI_IO_WRITE_H
#define FASTOCI_IO_WRITE_H

#include <stddef.h>
#include <stdint.h>

/* Write all of data at offset: 0, or -errno after any part of it.
 *
 * uncached: each part is on its way to the disk when the call returns, and leaves the page cache when it is there
 * (RWF_DONTCACHE, Linux 6.14). -EOPNOTSUPP, -EINVAL or -ENOSYS with nothing written: kernel or file system cannot. */
int write_all(int fd, const uint8_t *data, size_t size, int64_t offset, int uncached);

/* Take blocks for [offset, offset + size) beyond the end of the file, whose length stays: 0, or -errno after any part. */
int write_reserve(int fd, int64_t offset, int64_t size);

#endif
