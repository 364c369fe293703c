/* The device that LOOP_CTL_GET_FREE names may be another's before it is opened: LOOP_CONFIGURE, which sets all at once, then
 * says EBUSY, and the next one is asked for. Spec: loop(4). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mount/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* As <linux/loop.h> has them from 5.8 on. */
enum { CONFIGURE = 0x4C0A, GET_FREE = 0x4C82, READ_ONLY = 1, AUTOCLEAR = 4, TRIES = 64 };

struct info {
    uint64_t device, inode, rdevice, offset, size_limit;
    uint32_t number, encrypt_type, encrypt_key_size, flags;
    uint8_t file_name[64], crypt_name[64], encrypt_key[32];
    uint64_t init[2];
};

struct configuration {
    uint32_t file, block_size;
    struct info info;
    uint64_t reserved[8];
};

static int try_next(int control, const struct configuration *wanted, int writable, int *number)
{
    char path[32];
    int fd, failed = 0;

    *number = ioctl(control, GET_FREE);
    if (*number < 0)
        return -errno;
    snprintf(path, sizeof path, "/dev/loop%d", *number);
    fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (ioctl(fd, CONFIGURE, wanted)) {
        failed = -errno;
        close(fd);
    }
    return failed ? failed : fd;
}

int loop_attach(int file, uint32_t block_size, int writable, int *number)
{
    struct configuration wanted;
    int fd = -EBUSY, control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

    if (control < 0)
        return -errno;
    memset(&wanted, 0, sizeof wanted);
    wanted.file = (uint32_t)file;
    wanted.block_size = block_size;
    wanted.info.flags = AUTOCLEAR | (writable ? 0 : READ_ONLY);
    for (int tries = 0; fd == -EBUSY && tries < TRIES; tries++)
        fd = try_next(control, &wanted, writable, number);
    close(control);
    return fd;
}
