/* pread until all is there, or the end of the file. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/read.h"

#include "io/retry.h"

#include <unistd.h>

int read_all(int fd, uint8_t *data, size_t size, int64_t offset, size_t *got)
{
    ssize_t n = 1;

    for (*got = 0; *got < size && n > 0; *got += n > 0 ? (size_t)n : 0)
        RETRY(n, pread(fd, data + *got, size - *got, (off_t)(offset + (int64_t)*got)));
    return n < 0 ? -errno : 0;
}
