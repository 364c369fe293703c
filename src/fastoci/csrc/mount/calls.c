/* The new calls have the same number on all architectures; mount and umount2 are as old as the libc. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mount/calls.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

enum number {
    NUMBER_OPEN_TREE = 428,
    NUMBER_MOVE_MOUNT = 429,
    NUMBER_FSOPEN = 430,
    NUMBER_FSCONFIG = 431,
    NUMBER_FSMOUNT = 432,
    NUMBER_MOUNT_SETATTR = 442,
};

enum {
    CLOSE_ON_EXEC = 1,
    FROM_EMPTY_PATH = 4,
    TO_EMPTY_PATH = 0x40,
    CLONE_TREE = 1,
    CLONE_CLOSE_ON_EXEC = 02000000,
    EMPTY_PATH = 0x1000,
    NO_FOLLOW = 8,
    PRIVATE = 1 << 18,
};

/* As struct mount_attr. */
struct attributes {
    uint64_t set;
    uint64_t clear;
    uint64_t propagation;
    uint64_t user_namespace;
};

static int answer(long result)
{
    return result < 0 ? -errno : (int)result;
}

int call_fsopen(const char *kind)
{
    return answer(syscall(NUMBER_FSOPEN, kind, CLOSE_ON_EXEC));
}

int call_fsconfig(int context, enum config_command command, const char *key, const char *value, int fd)
{
    return answer(syscall(NUMBER_FSCONFIG, context, command, key, value, fd));
}

int call_fsmount(int context, unsigned attributes)
{
    return answer(syscall(NUMBER_FSMOUNT, context, CLOSE_ON_EXEC, attributes));
}

int call_move_mount(int mount, int target)
{
    return answer(syscall(NUMBER_MOVE_MOUNT, mount, "", target, "", FROM_EMPTY_PATH | TO_EMPTY_PATH));
}

int call_clone(int fd)
{
    return answer(syscall(NUMBER_OPEN_TREE, fd, "", CLONE_TREE | CLONE_CLOSE_ON_EXEC | EMPTY_PATH));
}

int call_set_private(int mount)
{
    struct attributes given = {.propagation = PRIVATE};

    return answer(syscall(NUMBER_MOUNT_SETATTR, mount, "", EMPTY_PATH, &given, sizeof given));
}

int call_mount(const char *source, const char *target, const char *kind, unsigned long flags, const char *data)
{
    return answer(mount(source, target, kind, flags, data));
}

int call_unmount(const char *path)
{
    return answer(umount2(path, NO_FOLLOW));
}

size_t read_messages(int context, char *buffer, size_t size)
{
    size_t used = 0;
    ssize_t got;

    /* One message a read. It is ENODATA when there are no more, EMSGSIZE when one is longer than what is left. */
    while (size > used + 1 && (got = read(context, buffer + used, size - used - 1)) > 0) {
        used += (size_t)got;
        if (buffer[used - 1] != '\n')
            buffer[used++] = '\n';
    }
    return used;
}
