/* Mount points are recognised by openat2 (Linux 5.6), which knows bind mounts too, and else by the device number. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/directory.h"

#include "io/retry.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

enum { RESOLVE_BELOW = 0x01 | 0x02 | 0x04 }; /* RESOLVE_NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS */

/* As struct open_how, which is younger than the headers that are to be served. */
struct how {
    uint64_t flags, mode, resolve;
};

static int close_with(int fd, int error)
{
    close(fd);
    errno = error;
    return -1;
}

/* A kernel, or a sandbox, without openat2. */
static int open_by_device(int parent, const char *name, int flags)
{
    struct stat above, below;
    int fd;

    RETRY(fd, openat(parent, name, flags));
    if (fd < 0)
        return -1;
    if (fstatat(parent, ".", &above, 0) || fstat(fd, &below))
        return close_with(fd, errno);
    return above.st_dev == below.st_dev ? fd : close_with(fd, EXDEV);
}

static int open_below(int parent, const char *name, int flags)
{
    struct how how = {.flags = (uint64_t)flags, .resolve = RESOLVE_BELOW};
    long fd;

    do
        fd = syscall(SYS_openat2, parent, name, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return fd < 0 && (errno == ENOSYS || errno == EPERM) ? open_by_device(parent, name, flags) : (int)fd;
}

/* O_PATH pins the very directory, so that chmod, which follows links, cannot be led elsewhere. */
static int open_closed(int parent, const char *name)
{
    char path[64];
    struct stat st;
    int fd, pinned = open_below(parent, name, (DIRECTORY_FLAGS & ~O_RDONLY) | O_PATH);

    if (pinned < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", pinned);
    if (fstat(pinned, &st) || chmod(path, (st.st_mode & 07777) | 0700))
        return close_with(pinned, EACCES);
    RETRY(fd, openat(pinned, ".", DIRECTORY_FLAGS));
    if (fd >= 0) /* the caller sees the mode as it was */
        (void)!fchmod(fd, st.st_mode & 07777);
    close(pinned);
    return fd;
}

int directory_open(int parent, const char *name)
{
    int fd = open_below(parent, name, DIRECTORY_FLAGS);

    return fd < 0 && errno == EACCES ? open_closed(parent, name) : fd;
}
