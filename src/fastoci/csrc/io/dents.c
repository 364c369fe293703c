/* The names in a directory, by the system call: old C libraries lack getdents64. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/dents.h"

#include "io/retry.h"

#include <sys/syscall.h>
#include <unistd.h>

ssize_t read_dents(int fd, char *buffer)
{
    long got;

    RETRY(got, syscall(SYS_getdents64, fd, buffer, DENTS_SIZE));
    return got;
}

int is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}
