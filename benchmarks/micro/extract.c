/* What making small files costs at least: five system calls each, nothing read or parsed, a hundred to a directory.
 *
 * extract DIRECTORY FILES SIZE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int make(int directory, const char *name, const char *data, size_t size)
{
    struct timespec times[2] = {{.tv_sec = 1700000000}, {.tv_sec = 1700000000, .tv_nsec = 1000001}};
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    int status = write(fd, data, size) == (ssize_t)size && !fchmod(fd, 0644) && !futimens(fd, times) ? 0 : -1;
    return close(fd) ? -1 : status;
}

int main(int count, char **arguments)
{
    if (count != 4 || chdir(arguments[1]))
        return 2;
    int files = atoi(arguments[2]), directory = -1;
    size_t size = (size_t)atol(arguments[3]);
    char name[16], *data = calloc(1, size);
    for (int i = 0; data && i < files; i++) {
        if (i % 100 == 0) {
            if (directory >= 0)
                close(directory);
            snprintf(name, sizeof name, "%08d", i);
            if (mkdir(name, 0755) || (directory = open(name, O_DIRECTORY | O_CLOEXEC)) < 0)
                return 1;
        }
        snprintf(name, sizeof name, "%06d", i);
        if (make(directory, name, data, size))
            return 1;
    }
    return data ? 0 : 1;
}
