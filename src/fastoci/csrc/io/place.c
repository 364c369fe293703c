/* Small files by O_TMPFILE and linkat(2), and as few syncs of the disk's journal as many files need. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/retry.h"
#include "io/write.h"

static int fill(int nameless, struct placed *file)
{
    int code;

    RETRY(file->fd, openat(nameless, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (file->fd < 0)
        return -errno;
    code = write_all(file->fd, file->data, file->size, 0, 0);
    if (code == 0 && fchmod(file->fd, 0444))
        code = -errno;
    return code;
}

/* The blocks of all are on their way before the first sync, which then brings the journal of all. */
static void begin_writing(const struct placed *files, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (files[i].code == 0)
            (void)sync_file_range(files[i].fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static int name_it(int named, const struct placed *file)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/self/fd/%d", file->fd);
    return linkat(AT_FDCWD, path, named, file->name, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

static int sync_names(int named)
{
    int fd, code = 0;

    RETRY(fd, openat(named, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd < 0)
        return -errno;
    if (fsync(fd))
        code = -errno;
    close(fd);
    return code;
}

static int set_byte(int fd, int64_t byte, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

int byte_lock(int fd, int64_t byte)
{
    return set_byte(fd, byte, F_WRLCK);
}

int byte_unlock(int fd, int64_t byte)
{
    return set_byte(fd, byte, F_UNLCK);
}

int is_free(int directory, const char *name)
{
    struct stat info;

    if (fstatat(directory, name, &info, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    return errno == ENOENT ? 1 : -errno;
}

int place_all(int nameless, int named, struct placed *files, size_t count, int sync)
{
    size_t there = 0;

    for (size_t i = 0; i < count; i++)
        files[i].code = fill(nameless, &files[i]);
    if (sync && count > 1)
        begin_writing(files, count);
    for (size_t i = 0; i < count; i++)
        if (sync && files[i].code == 0 && fdatasync(files[i].fd))
            files[i].code = -errno;
    for (size_t i = 0; i < count; i++) {
        if (files[i].code == 0)
            files[i].code = name_it(named, &files[i]);
        there += files[i].code == 0;
        if (files[i].fd >= 0)
            close(files[i].fd);
    }
    return sync && there ? sync_names(named) : 0;
}
