/* What making small files costs at least: a tar is read and each file takes four system calls, nothing is parsed,
 * and a hundred files are in a directory.
 *
 * extract DIRECTORY FILES SIZE TAR: SIZE on average, evenly from half of it to one and a half, as the files of the tar.
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
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    int status = write(fd, data, size) == (ssize_t)size && !futimens(fd, times) ? 0 : -1;
    return close(fd) ? -1 : status;
}

static int read_all(const char *path)
{
    enum { WINDOW = 1 << 20 };
    char *window = malloc(WINDOW);
    ssize_t got = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (window && fd >= 0 && (got = read(fd, window, WINDOW)) > 0)
        ;
    free(window);
    return got ? -1 : close(fd);
}

int main(int count, char **arguments)
{
    if (count != 5 || read_all(arguments[4]) || chdir(arguments[1]))
        return 2;
    umask(0);
    int files = atoi(arguments[2]), directory = -1;
    size_t size = (size_t)atol(arguments[3]);
    char name[16], *data = calloc(2, size);
    for (int i = 0; data && i < files; i++) {
        if (i % 100 == 0) {
            if (directory >= 0)
                close(directory);
            snprintf(name, sizeof name, "%08d", i);
            if (mkdir(name, 0755) || (directory = open(name, O_DIRECTORY | O_CLOEXEC)) < 0)
                return 1;
        }
        snprintf(name, sizeof name, "%06d", i);
        if (make(directory, name, data, size / 2 + (size_t)i * 7919 % size))
            return 1;
    }
    return data ? 0 : 1;
}
