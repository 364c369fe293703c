/* Times first, since a narrow mode may keep us out. A directory that something is made in has the time of that until then. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/directories.h"

#include "extract/walk.h"
#include "io/stop.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

/* Parents are older than children, so this order opens each directory once. A time that only is put back may fail. */
static int set_times(struct extract *ex)
{
    for (struct node *node = ex->oldest; node; node = node->newer) {
        struct timespec times[2] = {{0, UTIME_OMIT}, {(time_t)node->mtime, (long)node->mtime_ns}};
        int fd, failed;
        if (stop_asked(ex->layer.limits.stop))
            return LAYER_STOPPED;
        if (!(node->flags & NODE_NAMED) && (node->flags & (NODE_MADE | NODE_DIRTY)) != NODE_DIRTY)
            continue;
        if (node->fd >= 0)
            failed = futimens(node->fd, times);
        else if ((fd = walk_fd(ex, node->parent)) < 0)
            failed = -1;
        else
            failed = utimensat(fd, node->name, times, AT_SYMLINK_NOFOLLOW);
        if (failed && node->flags & NODE_NAMED) {
            ex->fault = node;
            return layer_io(&ex->layer);
        }
    }
    return TAR_OK;
}

/* Children are younger than parents: from the newest, so that a closed directory is not needed any more. */
static int set_modes(struct extract *ex)
{
    for (struct node *node = ex->newest; node; node = node->older) {
        int fd;
        if (stop_asked(ex->layer.limits.stop))
            return LAYER_STOPPED;
        if (!(node->flags & NODE_MODE))
            continue;
        if ((fd = walk_fd(ex, node)) < 0 || fchmod(fd, node->mode)) {
            ex->fault = node;
            return layer_io(&ex->layer);
        }
    }
    return TAR_OK;
}

int directories_finish(struct extract *ex)
{
    int code = set_times(ex);

    return code ? code : set_modes(ex);
}
