/* From names to directories: descriptors of nodes, and the path to a directory by its spelling in the archive.
 *
 * Invariants: the kernel is asked for one component at a time and never follows a symbolic link; a node's name is physical. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/walk.h"

#include "extract/meta.h"
#include "extract/mode.h"
#include "extract/tree.h"
#include "io/directory.h"
#include "io/retry.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* As directory_open; gives up cached descriptors when the process has no more. */
static int open_child(struct extract *ex, int dir, const char *name)
{
    int fd = directory_open(dir, name);

    if (fd >= 0 || (errno != EMFILE && errno != ENFILE) || ex->open_fds <= TREE_FDS_MIN / 2)
        return fd;
    ex->max_fds = TREE_FDS_MIN;
    while (ex->open_fds > TREE_FDS_MIN / 2)
        tree_shut_stale(ex);
    return directory_open(dir, name);
}

int walk_fd(struct extract *ex, struct node *node)
{
    struct node *closed[PATH_LEN / 2 + 1]; /* from an open ancestor */
    size_t left = 0;

    if (node->fd >= 0) {
        tree_used(ex, node);
        return node->fd;
    }
    for (struct node *at = node; at->fd < 0; at = at->parent)
        closed[left++] = at;
    ex->layer.work += left * WORK_OPEN;
    while (left--) {
        int fd = open_child(ex, closed[left]->parent->fd, closed[left]->name);
        if (fd < 0)
            return -1;
        tree_keep_open(ex, closed[left], fd);
    }
    return node->fd;
}

int walk_make(struct extract *ex, struct node *parent, const char *name, mode_t mode, struct node **out)
{
    int made, fd, dir = walk_fd(ex, parent);
    mode_t born = mode_at_birth(ex, mode, parent->flags & NODE_INHERITS, 0);

    if (dir < 0)
        return layer_io(&ex->layer);
    RETRY(made, mkdirat(dir, name, born ? born : 0700));
    if (made)
        return layer_io(&ex->layer);
    parent->flags |= NODE_DIRTY;
    fd = open_child(ex, dir, name);
    if (fd < 0 || !(*out = tree_add(ex, parent, name, fd, 0)))
        return layer_io(&ex->layer);
    (*out)->born = mode_believed(ex, fd, born);
    return TAR_OK;
}

/* A directory that no entry has named: 0755 and root's. */
static int imply(struct extract *ex, struct node *parent, const char *name, struct node **out)
{
    int code;

    if (strncmp(name, ".wh.", 4) == 0)
        return LAYER_WHITEOUT;
    if ((code = layer_count_implied(&ex->layer)) || (code = walk_make(ex, parent, name, IMPLIED_MODE, out)))
        return code;
    code = meta_implied(ex, (*out)->fd, (struct origin){1, parent->flags & NODE_INHERITS, (*out)->born});
    (*out)->born = IMPLIED_MODE;
    return code;
}

/* Nothing has this name. */
static int enter_missing(struct extract *ex, struct node *dir, const char *name, int create, struct node **out)
{
    int unseen = ex->writer->unseen && ex->writer->unseen(ex, dir, create ? REASON_IMPLIED_PARENT : 0);

    int code;

    if (!create)
        return unseen ? WALK_UNSEEN : WALK_MISSING;
    if ((code = imply(ex, dir, name, out)) == TAR_OK && unseen)
        (*out)->flags |= NODE_IMPLIED;
    return code;
}

/* This layer hid what lower layers have under this name, so it is known that nothing is there. */
static int enter_whiteout(struct extract *ex, struct node *dir, int dir_fd, const char *name, int create, struct node **out)
{
    int code;

    if (!create)
        return WALK_MISSING;
    if (unlinkat(dir_fd, name, 0))
        return layer_io(&ex->layer);
    if ((code = imply(ex, dir, name, out)) == TAR_OK)
        (*out)->flags |= NODE_BARE;
    return code;
}

/* One component that has no node yet. WALK_LINK: it is a link, its text is in target. */
static int open_new(struct extract *ex, struct node *dir, const char *name, int create, struct node **out, char *target, size_t *len)
{
    int dir_fd = walk_fd(ex, dir), fd;
    ssize_t got;

    if (dir_fd < 0)
        return layer_io(&ex->layer);
    fd = open_child(ex, dir_fd, name);
    if (fd >= 0)
        return (*out = tree_add(ex, dir, name, fd, 1)) ? TAR_OK : layer_io(&ex->layer);
    if (errno == ENOENT)
        return enter_missing(ex, dir, name, create, out);
    if (errno != ENOTDIR && errno != ELOOP)
        return layer_io(&ex->layer);
    got = readlinkat(dir_fd, name, target, WALK_TARGET_SIZE);
    if (got < 0 && errno != EINVAL)
        return layer_io(&ex->layer);
    if (got < 0 && ex->writer->is_whiteout && ex->writer->is_whiteout(dir_fd, name))
        return enter_whiteout(ex, dir, dir_fd, name, create, out);
    if (got < 0)
        return LAYER_NOT_DIRECTORY;
    if (got == WALK_TARGET_SIZE)
        return LAYER_LINKS;
    *len = (size_t)got;
    return WALK_LINK;
}

static void *parent_of(const void *directory)
{
    return ((const struct node *)directory)->parent;
}

static int enter(void *ctx, void *directory, const char *name, size_t len, int create, void **out, char *target, size_t *target_len)
{
    struct extract *ex = ctx;
    struct node *child = tree_find(ex, directory, name);
    int code = TAR_OK;

    if (!child && !(code = tree_fits(ex, directory, len, 1)))
        code = open_new(ex, directory, name, create, &child, target, target_len);
    *out = child;
    return code;
}

int walk_to(struct extract *ex, struct tar_bytes path, int create, struct node **out)
{
    struct layer_tree tree = {ex->root, parent_of, enter};
    void *directory;
    int code = layer_walk(&ex->layer, &tree, ex, path, create, &directory);

    *out = directory;
    return code;
}
