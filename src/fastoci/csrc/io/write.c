/* Writing past the page cache by pwritev2, whose flag older headers lack, and taking blocks by fallocate. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/write.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define DONTCACHE 0x80 /* RWF_DONTCACHE, which older headers lack */

/* By the system call: old C libraries lack pwritev2, newer ones answer for a kernel that lacks it. */
static ssize_t write_uncached(int fd, const uint8_t *data, size_t size, int64_t offset)
{
#ifdef SYS_pwritev2
    struct iovec part = {.iov_base = (void *)data, .iov_len = size};

    return syscall(SYS_pwritev2, fd, &part, 1, (long)offset, 0L, DONTCACHE);
#else
    (void)fd, (void)data, (void)size, (void)offset;
    errno = ENOSYS;
    return -1;
#endif
}

int write_all(int fd, const uint8_t *data, size_t size, int64_t offset, int uncached)
{
    size_t done = 0;

    while (done < size) {
        int64_t at = offset + (int64_t)done;
        ssize_t n = uncached ? write_uncached(fd, data + done, size - done, at) : pwrite(fd, data + done, size - done, at);

        if (n > 0)
            done += (size_t)n;
        else if (n == 0)
            return -EIO; /* else a file system that accepts nothing would be tried for ever */
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int write_reserve(int fd, int64_t offset, int64_t size)
{
    while (fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, size))
        if (errno != EINTR)
            return -errno;
    return 0;
}
