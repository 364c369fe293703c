/* Removal with a stack of directories that are read once each: every one has a buffer of its own, so after a subdirectory has
 * gone the reading goes on where it was. A directory deeper than the stack is moved up to the first, which is read again later.
 *
 * rmdir is tried before a directory is entered: it says EBUSY to a mount point, and ENOTEMPTY only to what is none. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/remove.h"

#include "io/dents.h"
#include "io/directory.h"
#include "io/retry.h"
#include "io/stop.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH = 32, PASSES = 8 };

struct frame {
    int fd;
    int removed; /* names, since the last pass began */
    int kept;    /* there is something that cannot be removed */
    int passes;  /* that removed nothing */
    const char *name; /* in the buffer of the frame above, or the caller's */
    char *dents;
    ssize_t have, at;
};

struct removal {
    const struct remove_bounds *bounds;
    int parent;
    int error; /* the first */
    int stopped;
    int owner_only; /* a directory's mode may keep us out */
    size_t depth;
    uint64_t moved;
    struct frame frames[DEPTH];
};

static int unlink_at(int dir, const char *name, int flags)
{
    int result;

    RETRY(result, unlinkat(dir, name, flags));
    return result;
}

/* unlink says EISDIR on Linux; some file systems say EPERM. */
int remove_file(int parent, const char *name)
{
    struct stat st;
    int error;

    if (unlink_at(parent, name, 0) == 0)
        return 0;
    error = errno;
    if (error == EPERM && fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
        return -EISDIR;
    return -error;
}

static void note(struct removal *removal, int error)
{
    if (!removal->error)
        removal->error = error == EXDEV ? EBUSY : error;
}

/* Something in the top frame stays. */
static void keep(struct removal *removal, int error)
{
    note(removal, error);
    if (removal->depth)
        removal->frames[removal->depth - 1].kept = 1;
}

static void push(struct removal *removal, int dir, const char *name)
{
    struct frame *frame = &removal->frames[removal->depth];

    if (!frame->dents && !(frame->dents = malloc(DENTS_SIZE)))
        return keep(removal, ENOMEM);
    frame->fd = directory_open(dir, name);
    if (frame->fd < 0)
        return keep(removal, errno);
    if (removal->owner_only)
        (void)!fchmod(frame->fd, 0700);
    frame->removed = frame->kept = frame->passes = 0;
    frame->have = frame->at = 0;
    frame->name = name;
    removal->depth++;
}

static void lift(struct removal *removal, int dir, const char *name)
{
    char fresh[32];
    int moved;

    if (removal->owner_only)
        (void)!fchmodat(dir, name, 0700, 0);
    do {
        snprintf(fresh, sizeof fresh, ".%llx", (unsigned long long)removal->moved++);
        RETRY(moved, renameat(dir, name, removal->frames[0].fd, fresh));
    } while (moved && (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR));
    if (moved)
        return keep(removal, errno);
    removal->frames[0].removed = 1;
    removal->frames[removal->depth - 1].removed = 1;
}

/* One name in the top frame. */
static void remove_one(struct removal *removal, const struct dent *dent)
{
    struct frame *frame = &removal->frames[removal->depth - 1];
    int result = dent->type == DT_DIR ? -EISDIR : remove_file(frame->fd, dent->name);

    if (result == -EISDIR)
        result = unlink_at(frame->fd, dent->name, AT_REMOVEDIR) ? -errno : 0;
    if (result == 0)
        frame->removed = 1;
    else if (result == -ENOTEMPTY || result == -EEXIST)
        (removal->depth == DEPTH ? lift : push)(removal, frame->fd, dent->name);
    else if (result != -ENOENT)
        keep(removal, -result);
}

/* The top frame has been read to its end: remove it, or read it again when something is left that can go. */
static void end_pass(struct removal *removal)
{
    struct frame *frame = &removal->frames[removal->depth - 1];
    int parent = removal->depth > 1 ? frame[-1].fd : removal->parent;
    int failed = unlink_at(parent, frame->name, AT_REMOVEDIR) && errno != ENOENT, error = errno;

    if (failed && (error == ENOTEMPTY || error == EEXIST) && (frame->removed || (!frame->kept && ++frame->passes < PASSES)) &&
        lseek(frame->fd, 0, SEEK_SET) == 0) {
        frame->removed = 0;
        return;
    }
    close(frame->fd);
    removal->depth--;
    if (failed)
        keep(removal, error);
    else if (removal->depth)
        frame[-1].removed = 1;
}

static void step(struct removal *removal)
{
    struct frame *frame = &removal->frames[removal->depth - 1];
    const struct dent *dent;

    if (frame->at == frame->have) {
        frame->at = 0;
        frame->have = read_dents(frame->fd, frame->dents);
        if (frame->have < 0) {
            frame->have = 0;
            keep(removal, errno);
        }
        if (frame->have == 0)
            return end_pass(removal);
    }
    dent = (const struct dent *)(const void *)(frame->dents + frame->at);
    frame->at += dent->len;
    if (!is_dot(dent->name))
        remove_one(removal, dent);
}

static int out_of_bounds(const struct remove_bounds *bounds)
{
    struct timespec now;

    if (stop_asked(bounds->stop))
        return ECANCELED;
    if (!bounds->deadline || clock_gettime(CLOCK_MONOTONIC, &now))
        return 0;
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec >= bounds->deadline ? ETIMEDOUT : 0;
}

static int remove_filled(int parent, const char *name, const struct remove_bounds *bounds)
{
    struct removal removal = {.bounds = bounds, .parent = parent, .owner_only = geteuid() != 0};

    push(&removal, parent, name);
    while (removal.depth && !(removal.stopped = out_of_bounds(bounds)))
        step(&removal);
    while (removal.depth)
        close(removal.frames[--removal.depth].fd);
    for (size_t i = 0; i < DEPTH; i++)
        free(removal.frames[i].dents);
    return -(removal.stopped ? removal.stopped : removal.error);
}

int remove_directory(int parent, const char *name, const struct remove_bounds *bounds)
{
    if (unlink_at(parent, name, AT_REMOVEDIR) == 0)
        return 0;
    return errno == ENOTEMPTY || errno == EEXIST ? remove_filled(parent, name, bounds) : -errno;
}

int remove_tree(int parent, const char *name, const struct remove_bounds *bounds)
{
    int result = remove_file(parent, name);

    if (result == -EISDIR)
        result = remove_directory(parent, name, bounds);
    return result == -ENOENT ? 0 : result;
}
