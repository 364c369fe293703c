/* A file is new and has one holder from its making to its close: it is made with O_EXCL, filled, and given its metadata. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/file.h"

#include "extract/meta.h"
#include "extract/mode.h"
#include "io/retry.h"
#include "io/stop.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int file_make(struct extract *ex, int dir, unsigned inherits, const char *name, const struct tar_entry *entry)
{
    mode_t born = mode_at_birth(ex, meta_mode(ex, entry), inherits, entry->xattr_count);

    RETRY(ex->file, openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, born ? born : 0600));
    if (ex->file < 0)
        return -1;
    ex->file_inherits = inherits;
    ex->file_born = mode_believed(ex, ex->file, born);
    return 0;
}

int file_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len)
{
    struct extract *ex = ctx;

    if (ex->file < 0) /* the body of a whiteout */
        return TAR_OK;
    if (stop_asked(ex->layer.limits.stop))
        return LAYER_STOPPED;
    ex->layer.facts.bytes += len;
    ex->layer.work += ex->entry->sparse ? WORK_SEGMENT : 0;
    while (len) {
        ssize_t done;
        if (ex->entry->sparse)
            RETRY(done, pwrite(ex->file, data, len, (off_t)offset));
        else
            RETRY(done, write(ex->file, data, len));
        if (done == 0)
            errno = EIO; /* else a file system that accepts nothing would be tried for ever */
        if (done <= 0)
            return layer_io(&ex->layer);
        data += done;
        offset += (uint64_t)done;
        len -= (size_t)done;
    }
    return TAR_OK;
}

static int set_metadata(struct extract *ex, int fd)
{
    struct timespec times[2];
    int failed = 0, code;

    if (ex->entry->sparse)
        RETRY(failed, ftruncate(fd, (off_t)ex->entry->size));
    if (failed)
        return layer_io(&ex->layer);
    code = meta_open(ex, fd, ex->entry, (struct origin){1, ex->file_inherits, ex->file_born}, meta_mode(ex, ex->entry));
    if (code)
        return code;
    meta_time(ex->entry, times);
    return futimens(fd, times) ? layer_io(&ex->layer) : TAR_OK;
}

int file_end(struct extract *ex)
{
    int fd = ex->file, code;

    if (fd < 0)
        return TAR_OK;
    ex->file = -1;
    code = set_metadata(ex, fd);
    if (close(fd) && errno != EINTR && !code)
        code = layer_io(&ex->layer);
    return code ? code : layer_worked(&ex->layer);
}
