/* Removing: one name, a whole directory, or only what lower layers left. Iterative, never through a symbolic link. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DENTS = 32768, DEPTH = 32, PASSES = 8 };

/* The kernel's own record; the libc wrapper is younger than the systems that are to be served. */
struct dent {
    uint64_t inode;
    int64_t next;
    uint16_t len;
    uint8_t type;
    char name[];
};

struct frame {
    int fd;
    int passes; /* that ended with something left */
    char name[NAME_LEN + 1];
};

struct removal {
    struct extract *ex;
    int parent;
    size_t depth;
    uint64_t moved;
    struct frame frames[DEPTH];
};

static ssize_t read_dents(int fd, char **buffer)
{
    long got;

    if (!*buffer && !(*buffer = malloc(DENTS))) {
        errno = ENOMEM;
        return -1;
    }
    RETRY(got, syscall(SYS_getdents64, fd, *buffer, DENTS));
    return got;
}

static int is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

static int unlink_at(int dir, const char *name, int flags)
{
    int result;

    RETRY(result, unlinkat(dir, name, flags));
    return result;
}

/* unlink says EISDIR on Linux; some file systems say EPERM. */
static int was_directory(int dir, const char *name)
{
    struct stat st;

    return errno == EISDIR || (errno == EPERM && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode));
}

static int push(struct removal *removal, int dir, const char *name)
{
    struct frame *frame = &removal->frames[removal->depth];

    frame->fd = tree_open(removal->ex, dir, name);
    if (frame->fd < 0)
        return -1;
    if (removal->ex->uid != 0)
        (void)!fchmod(frame->fd, 0700);
    frame->passes = 0;
    memcpy(frame->name, name, strlen(name) + 1);
    removal->depth++;
    return 0;
}

/* Deeper than the stack: move the directory up to the first frame, which is read again later. */
static int lift(struct removal *removal, int dir, const char *name)
{
    char fresh[32];
    int moved;

    if (removal->ex->uid != 0)
        (void)!fchmodat(dir, name, 0700, 0);
    do {
        snprintf(fresh, sizeof fresh, ".%llx", (unsigned long long)removal->moved++);
        RETRY(moved, renameat(dir, name, removal->frames[0].fd, fresh));
    } while (moved && (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR));
    return moved;
}

enum { FAILED = -1, NOTHING, REMOVED, PUSHED };

/* One name in the top frame. */
static int remove_one(struct removal *removal, const struct dent *dent)
{
    int dir = removal->frames[removal->depth - 1].fd;

    if (dent->type != DT_DIR) {
        if (unlink_at(dir, dent->name, 0) == 0)
            return REMOVED;
        if (errno == ENOENT)
            return NOTHING;
        if (!was_directory(dir, dent->name))
            return FAILED;
    }
    if (unlink_at(dir, dent->name, AT_REMOVEDIR) == 0)
        return REMOVED;
    if (errno == ENOENT)
        return NOTHING;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return FAILED;
    if (removal->depth == DEPTH)
        return lift(removal, dir, dent->name) ? FAILED : REMOVED;
    return push(removal, dir, dent->name) ? FAILED : PUSHED;
}

/* The top frame has been read to its end: remove it, or read it again when something is left. */
static int pop(struct removal *removal)
{
    struct frame *frame = &removal->frames[removal->depth - 1];
    int parent = removal->depth > 1 ? removal->frames[removal->depth - 2].fd : removal->parent;

    if (unlink_at(parent, frame->name, AT_REMOVEDIR) && errno != ENOENT) {
        if ((errno != ENOTEMPTY && errno != EEXIST) || ++frame->passes > PASSES)
            return -1;
        return lseek(frame->fd, 0, SEEK_SET) < 0 ? -1 : 0;
    }
    close(frame->fd);
    removal->depth--;
    /* What was buffered of the parent is lost: read it from its beginning, where less is left now. */
    if (removal->depth == 0)
        return 0;
    frame--;
    frame->passes = 0;
    return lseek(frame->fd, 0, SEEK_SET) < 0 ? -1 : 0;
}

static int remove_top(struct removal *removal)
{
    char **buffer = &removal->ex->remove_dents;
    struct frame *frame = &removal->frames[removal->depth - 1];
    ssize_t got = read_dents(frame->fd, buffer);

    if (got < 0)
        return -1;
    if (got == 0)
        return pop(removal);
    for (ssize_t at = 0; at < got;) {
        const struct dent *dent = (const struct dent *)(const void *)(*buffer + at);
        int done = is_dot(dent->name) ? NOTHING : remove_one(removal, dent);
        at += dent->len;
        if (done == FAILED)
            return -1;
        if (done == PUSHED)
            return 0;
        if (done == REMOVED)
            frame->passes = 0;
    }
    return 0;
}

static int remove_tree(struct extract *ex, int parent, const char *name)
{
    struct removal removal = {.ex = ex, .parent = parent, .depth = 0};
    int failed = push(&removal, parent, name), error;

    while (!failed && removal.depth)
        failed = remove_top(&removal);
    error = errno;
    while (removal.depth)
        close(removal.frames[--removal.depth].fd);
    errno = error;
    return failed;
}

int remove_name(struct extract *ex, struct node *dir, const char *name)
{
    int fd = tree_fd(ex, dir), failed;
    struct node *node;

    if (fd < 0)
        return extract_io(ex);
    ex->cached_node = NULL; /* it may have led through this name */
    dir->flags |= NODE_DIRTY;
    failed = unlink_at(fd, name, 0);
    if (failed && errno == ENOENT)
        return TAR_OK;
    if (failed && was_directory(fd, name)) {
        if ((node = tree_find(ex, dir, name)))
            tree_drop(ex, node);
        failed = unlink_at(fd, name, AT_REMOVEDIR) && remove_tree(ex, fd, name);
    }
    ex->removals++;
    return failed ? extract_io(ex) : TAR_OK;
}

/* --- what lower layers left --- */

/* A directory that stays because this layer put something into it: it is now as if this layer had implied it. */
static int keep_directory(struct extract *ex, struct node *node)
{
    int fd = tree_fd(ex, node), code = TAR_OK;

    if (fd < 0)
        return extract_io(ex);
    if (!(node->flags & NODE_NAMED)) {
        code = meta_implied(ex, fd, (struct origin){0, NODE_INHERITS, 0});
        node->born = 0;
        node->flags = (node->flags | NODE_MADE) & ~(unsigned)(NODE_MODE | NODE_INHERITS);
    }
    return code;
}

/* Remove a name unless this layer made it. *deeper: a directory that stays, and whose content must be looked at. */
static int sift(struct extract *ex, struct node *dir, const char *name, struct node **deeper)
{
    struct node *child = tree_find(ex, dir, name);

    *deeper = NULL;
    if (child && child->flags & NODE_HOLDS) {
        if (child->flags & NODE_BARE)
            return TAR_OK;
        *deeper = child;
        return keep_directory(ex, child);
    }
    return tree_owns(ex, dir, name) ? TAR_OK : remove_name(ex, dir, name);
}

/* One pass over a directory. Directories to look into are stacked on *stack. */
static int sift_pass(struct extract *ex, struct node *dir, int fd, struct node **stack)
{
    struct node *deeper;
    ssize_t got;
    int code;

    while ((got = read_dents(fd, &ex->dents)) > 0) {
        for (ssize_t at = 0; at < got;) {
            const struct dent *dent = (const struct dent *)(const void *)(ex->dents + at);
            at += dent->len;
            if (is_dot(dent->name))
                continue;
            if ((code = sift(ex, dir, dent->name, &deeper)))
                return code;
            if (!deeper)
                continue;
            deeper->flags |= NODE_BARE;
            deeper->pending = *stack;
            *stack = deeper;
        }
    }
    return got < 0 ? extract_io(ex) : TAR_OK;
}

/* Read again until a pass removes nothing: reading a directory that shrinks may miss names. */
static int sift_directory(struct extract *ex, struct node *dir, struct node **stack)
{
    int own = tree_fd(ex, dir), fd, code;
    uint64_t before;

    if (own < 0)
        return extract_io(ex);
    RETRY(fd, openat(own, ".", TREE_OPEN_DIR)); /* not the node's: that one may be given up meanwhile */
    if (fd < 0)
        return extract_io(ex);
    do {
        before = ex->removals;
        code = lseek(fd, 0, SEEK_SET) < 0 ? extract_io(ex) : sift_pass(ex, dir, fd, stack);
    } while (!code && ex->removals != before);
    close(fd);
    return code;
}

int remove_lower(struct extract *ex, struct node *dir)
{
    struct node *stack = NULL;
    int code = TAR_OK;

    if (dir->flags & NODE_BARE)
        return TAR_OK;
    dir->flags |= NODE_BARE;
    dir->pending = NULL;
    for (struct node *at = dir; at && !code; at = stack, stack = stack ? stack->pending : NULL)
        code = sift_directory(ex, at, &stack);
    return code;
}

int remove_lower_name(struct extract *ex, struct node *dir, const char *name)
{
    struct node *deeper;
    int code = sift(ex, dir, name, &deeper);

    return code || !deeper ? code : remove_lower(ex, deeper);
}
