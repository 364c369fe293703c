/* A layer alone, for overlayfs to put on top of others, as exact as the same layer in a tree that holds those.
 *
 * A whiteout is a character device 0:0, which no entry can make, and an entry of its name wins whatever comes first. What is hidden
 * below a directory is known at the end: then whiteouts go from where nothing can show, and directories get their attributes.
 * NODE_BARE on a directory: nothing of lower layers shows in it, nor in anything below.
 * Spec: Linux Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories". */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/overlay.h"

#include "extract/direct.h"
#include "extract/directories.h"
#include "extract/file.h"
#include "extract/remove.h"
#include "extract/tree.h"
#include "extract/walk.h"
#include "io/dents.h"
#include "io/directory.h"
#include "io/retry.h"
#include "io/stop.h"
#include "layer/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* --- what of lower layers can show --- */

static int is_bare(struct extract *ex, const struct node *dir)
{
    for (; dir; dir = dir->parent) {
        if (dir->flags & NODE_BARE)
            return 1;
        ex->layer.work += WORK_COMPONENT;
    }
    return 0;
}

static int unseen(struct extract *ex, const struct node *dir, unsigned reason)
{
    if (is_bare(ex, dir))
        return 0;
    ex->layer.facts.reasons |= reason;
    return 1;
}

static int is_whiteout(int dir, const char *name)
{
    struct stat st;

    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == 0;
}

/* Make a whiteout, unless this layer has something of the name: that hides by itself, a directory when it is opaque. */
static int cover(struct extract *ex, struct node *dir, const char *name)
{
    int fd = walk_fd(ex, dir), made;
    struct node *own;

    if (fd < 0)
        return layer_io(&ex->layer);
    if (is_bare(ex, dir))
        return TAR_OK;
    RETRY(made, mknodat(fd, name, S_IFCHR, 0));
    if (made && errno != EEXIST)
        return layer_io(&ex->layer);
    if (!made)
        dir->flags |= NODE_DIRTY | NODE_WHITEOUTS;
    else if ((own = tree_find(ex, dir, name)))
        own->flags |= NODE_BARE;
    return TAR_OK;
}

static int hide(struct extract *ex, const struct split_name *name, int opaque)
{
    struct node *dir;
    int code = walk_to(ex, name->parent, 0, &dir);

    if (code == WALK_MISSING || code == LAYER_NOT_DIRECTORY)
        return TAR_OK;
    if (code) { /* a refusal, too: of the lowest layer, which has nothing to hide, nobody looks where a whiteout leads */
        ex->layer.facts.reasons |= REASON_WHITEOUT;
        if (code != WALK_UNSEEN || !ex->options.unknown_lowers)
            return code == WALK_UNSEEN ? TAR_OK : code;
        if ((code = walk_to(ex, name->parent, 1, &dir)))
            return code;
    }
    if (!opaque)
        return cover(ex, dir, name->base + strlen(".wh."));
    dir->flags |= NODE_BARE;
    ex->layer.facts.reasons |= dir->parent ? 0 : REASON_OPAQUE_ROOT;
    return TAR_OK;
}

static int vacate(struct extract *ex, struct node *dir, const char *name)
{
    int code = remove_name(ex, dir, name);

    return code ? code : cover(ex, dir, name);
}

/* --- the layer is whole --- */

/* One pass over a directory; how many whiteouts went, or -1 with errno. */
static int uncover_pass(const struct extract *ex, int fd)
{
    ssize_t got;
    int count = 0;

    while ((got = read_dents(fd, ex->dents)) > 0) {
        for (ssize_t at = 0; at < got;) {
            const struct dent *dent = (const struct dent *)(const void *)(ex->dents + at);
            at += dent->len;
            if (stop_asked(ex->layer.limits.stop)) {
                errno = ECANCELED;
                return -1;
            }
            if ((dent->type != DT_CHR && dent->type != DT_UNKNOWN) || !is_whiteout(fd, dent->name))
                continue;
            if (unlinkat(fd, dent->name, 0))
                return -1;
            count++;
        }
    }
    return got < 0 ? -1 : count;
}

/* Remove the whiteouts of a directory: nothing is below that they would hide, and some readers would show them. */
static int uncover(struct extract *ex, int dir)
{
    int fd, count;

    if (!ex->dents && !(ex->dents = malloc(DENTS_SIZE))) {
        errno = ENOMEM;
        return -1;
    }
    RETRY(fd, openat(dir, ".", DIRECTORY_FLAGS));
    if (fd < 0)
        return -1;
    do
        count = lseek(fd, 0, SEEK_SET) < 0 ? -1 : uncover_pass(ex, fd);
    while (count > 0); /* reading a directory that shrinks may miss names */
    close(fd);
    return count;
}

/* What overlayfs must know of one directory: 0, or -1 with errno. Its parent has been here before. */
static int mark(struct extract *ex, struct node *node)
{
    const char *opaque = ex->options.user_xattrs ? "user.overlay.opaque" : "trusted.overlay.opaque";
    const char *origin = ex->options.user_xattrs ? "user.overlay.origin" : "trusted.overlay.origin";
    int inherited = node->parent && node->parent->flags & NODE_BARE, is_opaque, fd;

    is_opaque = node->flags & NODE_BARE && node->parent && !inherited;
    node->flags |= inherited ? NODE_BARE : 0;
    if (!is_opaque && !(node->flags & NODE_WHITEOUTS))
        return 0;
    if ((fd = walk_fd(ex, node)) < 0)
        return -1;
    if (is_opaque && fsetxattr(fd, opaque, "y", 1, 0))
        return -1;
    if (!(node->flags & NODE_WHITEOUTS))
        return 0;
    return node->flags & NODE_BARE ? uncover(ex, fd) : fsetxattr(fd, origin, "", 0, 0);
}

/* Parents are older than children. Names change here, so times come after. */
static int finish(struct extract *ex)
{
    for (struct node *node = ex->oldest; node; node = node->newer) {
        if (stop_asked(ex->layer.limits.stop))
            return LAYER_STOPPED;
        if (mark(ex, node)) {
            ex->fault = node;
            return layer_io(&ex->layer);
        }
    }
    return directories_finish(ex);
}

const struct extract_writer overlay_writer = {
    .sink = {direct_entry, file_data, direct_entry_end, NULL},
    .begin = tree_init,
    .make_file = file_make,
    .hide = hide,
    .vacate = vacate,
    .unseen = unseen,
    .is_whiteout = is_whiteout,
    .failed = direct_failed,
    .finish = finish,
    .free = tree_free,
};
