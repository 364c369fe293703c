/* What an entry removes from the tree: one name with all below it, or only what lower layers left. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/remove.h"

#include "extract/meta.h"
#include "extract/tree.h"
#include "extract/walk.h"
#include "io/dents.h"
#include "io/directory.h"
#include "io/remove.h"
#include "io/retry.h"
#include "io/stop.h"
#include "layer/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int remove_name(struct extract *ex, struct node *dir, const char *name)
{
    struct remove_bounds bounds = {.stop = ex->layer.limits.stop, .deadline = 0};
    int fd = walk_fd(ex, dir), result;
    struct node *node;

    if (fd < 0)
        return layer_io(&ex->layer);
    layer_forget(&ex->layer); /* it may have led through this name */
    dir->flags |= NODE_DIRTY;
    result = remove_file(fd, name);
    if (result == -ENOENT)
        return TAR_OK;
    if (result == -EISDIR) {
        if ((node = tree_find(ex, dir, name)))
            tree_drop(ex, node);
        result = remove_directory(fd, name, &bounds);
    }
    ex->removals++;
    errno = -result;
    return result ? layer_io(&ex->layer) : TAR_OK;
}

/* --- what lower layers left --- */

/* A directory that stays because this layer put something into it: it is now as if this layer had implied it. */
static int keep_directory(struct extract *ex, struct node *node)
{
    int fd = walk_fd(ex, node), code = TAR_OK;

    if (fd < 0)
        return layer_io(&ex->layer);
    if (!(node->flags & (NODE_NAMED | NODE_MADE))) {
        code = meta_implied(ex, fd, (struct origin){0, NODE_INHERITS, 0});
        node->born = 0;
        node->flags = (uint16_t)((node->flags | NODE_MADE) & ~(NODE_MODE | NODE_INHERITS));
    }
    return code;
}

/* Remove a name unless this layer made it. *kept: a directory that stays, whose content must be cleared. */
static int remove_unless_own(struct extract *ex, struct node *dir, const char *name, struct node **kept)
{
    struct node *child = tree_find(ex, dir, name);

    *kept = NULL;
    if (child && child->flags & NODE_HOLDS) {
        if (!(child->flags & NODE_BARE))
            *kept = child;
        return keep_directory(ex, child);
    }
    return tree_owns(ex, dir, name) ? TAR_OK : remove_name(ex, dir, name);
}

static int push(struct extract *ex, struct node *node)
{
    if (ex->pending_count == ex->pending_capacity) {
        size_t capacity = ex->pending_capacity ? 2 * ex->pending_capacity : 64;
        struct node **bigger = realloc(ex->pending, capacity * sizeof *bigger);
        if (!bigger) {
            errno = ENOMEM;
            return layer_io(&ex->layer);
        }
        ex->pending = bigger;
        ex->pending_capacity = capacity;
    }
    node->flags |= NODE_BARE;
    ex->pending[ex->pending_count++] = node;
    return TAR_OK;
}

/* One pass over a directory. Directories that stay are pushed. */
static int clear_pass(struct extract *ex, struct node *dir, int fd)
{
    struct node *kept;
    ssize_t got;
    int code;

    while ((got = read_dents(fd, ex->dents)) > 0) {
        for (ssize_t at = 0; at < got;) {
            const struct dent *dent = (const struct dent *)(const void *)(ex->dents + at);
            at += dent->len;
            if (is_dot(dent->name))
                continue;
            if (stop_asked(ex->layer.limits.stop))
                return LAYER_STOPPED;
            code = remove_unless_own(ex, dir, dent->name, &kept);
            if (code || (kept && (code = push(ex, kept))))
                return code;
        }
    }
    return got < 0 ? layer_io(&ex->layer) : TAR_OK;
}

/* Read again until a pass removes nothing: reading a directory that shrinks may miss names. */
static int clear_directory(struct extract *ex, struct node *dir)
{
    int own = walk_fd(ex, dir), fd, code;
    uint64_t before;

    if (own < 0)
        return layer_io(&ex->layer);
    if (!ex->dents && !(ex->dents = malloc(DENTS_SIZE))) {
        errno = ENOMEM;
        return layer_io(&ex->layer);
    }
    RETRY(fd, openat(own, ".", DIRECTORY_FLAGS)); /* not the node's: that one may be given up meanwhile */
    if (fd < 0)
        return layer_io(&ex->layer);
    do {
        before = ex->removals;
        code = lseek(fd, 0, SEEK_SET) < 0 ? layer_io(&ex->layer) : clear_pass(ex, dir, fd);
    } while (!code && ex->removals != before);
    close(fd);
    return code;
}

int remove_lower(struct extract *ex, struct node *dir)
{
    int code = TAR_OK;

    ex->pending_count = 0;
    if (!(dir->flags & NODE_BARE))
        code = push(ex, dir);
    while (!code && ex->pending_count)
        code = clear_directory(ex, ex->pending[--ex->pending_count]);
    return code;
}

int remove_lower_name(struct extract *ex, struct node *dir, const char *name)
{
    struct node *kept;
    int code = remove_unless_own(ex, dir, name, &kept);

    return code || !kept ? code : remove_lower(ex, kept);
}
