/* What an entry asks for. The rules are the extractor's (extract/make.c): what has the name goes first, the last of several entries of
 * a name counts. What depends on lower layers is done to an image, and is a reason of a layer by itself. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "erofs/apply.h"

#include "erofs/arena.h"
#include "erofs/data.h"
#include "erofs/lower.h"
#include "erofs/tree.h"
#include "erofs/walk.h"
#include "erofs/xattr.h"
#include "layer/check.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static int whiteout(struct erofs *e, const struct split_name *name, int opaque)
{
    struct erofs_directory *directory;
    size_t prefix = strlen(".wh.");
    int single = erofs_single(e), code;

    if (!single && e->number == 0) /* the lowest layer: nothing is there that could be hidden */
        return TAR_OK;
    code = erofs_walk(e, name->parent, single ? CREATE_PHANTOM : CREATE_NOTHING, &directory);
    if (code == WALK_MISSING || code == LAYER_NOT_DIRECTORY)
        return TAR_OK;
    if (single && (code == LAYER_LINKS || code == LAYER_PATH || code == LAYER_NAME_TOO_LONG)) {
        e->layer.facts.reasons |= REASON_WHITEOUT; /* wrong above another layer, but not in the lowest */
        return TAR_OK;
    }
    if (code)
        return code;
    return opaque ? erofs_hide_all(e, directory) : erofs_hide_name(e, directory, name->base + prefix, name->base_len - prefix);
}

static int set_metadata(struct erofs *e, struct erofs_inode *inode, const struct tar_entry *entry, mode_t type)
{
    inode->mode = (uint16_t)(type | (type == S_IFLNK ? 0777 : entry->mode));
    inode->uid = (uint32_t)entry->uid;
    inode->gid = (uint32_t)entry->gid;
    inode->mtime = entry->mtime;
    inode->mtime_ns = entry->mtime_ns;
    inode->xattrs = NULL;
    return entry->xattr_count ? erofs_set_xattrs(e, inode, entry) : TAR_OK;
}

static int set_directory(struct erofs *e, struct erofs_directory *directory, const struct tar_entry *entry)
{
    erofs_hold(e, directory);
    directory->flags |= DIR_NAMED;
    return set_metadata(e, &directory->inode, entry, S_IFDIR);
}

static int set_root(struct erofs *e, const struct tar_entry *entry)
{
    e->layer.facts.names_root = 1;
    return set_directory(e, e->root, entry);
}

static int make_directory(struct erofs *e, struct erofs_directory *parent, const struct split_name *name, const struct tar_entry *entry)
{
    struct erofs_name *there = erofs_find(e, parent, name->base, name->base_len);
    struct erofs_inode *before = there ? there->inode : NULL;
    struct erofs_directory *directory = erofs_directory_of(before);
    int code;

    if (directory) {
        erofs_touch(e, directory);
        return set_directory(e, directory, entry);
    }
    if (!(directory = erofs_new_directory(e, parent, name->base_len)))
        return erofs_no_memory(e);
    if (before && erofs_single(e)) /* what it replaces has hidden what is below */
        directory->flags |= DIR_OPAQUE;
    code = erofs_name(e, parent, name->base, name->base_len, &directory->inode);
    return code ? code : set_directory(e, directory, entry);
}

static int is_below(struct erofs *e, const struct erofs_directory *directory, const struct erofs_directory *top)
{
    for (; directory && directory != top; directory = directory->parent)
        e->layer.work += WORK_COMPONENT;
    return top && directory == top;
}

/* The target of a hard link, NULL when it is not there. *lower: a lower layer may have it. */
static int find_target(struct erofs *e, const struct tar_entry *entry, struct erofs_directory **from, struct erofs_inode **target, int *lower)
{
    struct split_name name;
    struct erofs_name *there;
    int code = check_target(&e->layer, entry->link, &name);

    *target = NULL;
    if (code)
        return code;
    code = erofs_walk(e, name.parent, CREATE_NOTHING, from);
    if (code == WALK_MISSING) {
        *lower = erofs_single(e) && !e->hidden && !erofs_cut(e->missing);
        return TAR_OK;
    }
    if (code)
        return code == LAYER_NOT_DIRECTORY ? layer_bad(&e->layer, LAYER_HARDLINK, ENOTDIR) : code;
    there = erofs_find(e, *from, name.base, name.base_len);
    *target = there && there->inode && !(there->inode->flags & INODE_WHITEOUT) ? there->inode : NULL;
    *lower = erofs_single(e) && !(there && there->inode) && !erofs_cut(*from) && strncmp(name.base, ".wh.", 4) != 0;
    return TAR_OK;
}

static int make_hard_link(struct erofs *e, struct erofs_directory *directory, const struct split_name *name, const struct tar_entry *entry)
{
    struct erofs_name *there = erofs_find(e, directory, name->base, name->base_len);
    struct erofs_inode *before = there ? there->inode : NULL, *target;
    struct erofs_directory *from;
    int lower = 0, code = find_target(e, entry, &from, &target, &lower);

    if (code)
        return code;
    if (!target && lower) {
        e->layer.facts.reasons |= REASON_HARD_LINK;
        return TAR_OK;
    }
    if (!target)
        return layer_bad(&e->layer, LAYER_HARDLINK, ENOENT);
    if (S_ISDIR(target->mode))
        return layer_bad(&e->layer, LAYER_HARDLINK, before ? EISDIR : EPERM);
    if (target != before && is_below(e, from, erofs_directory_of(before)))
        return layer_bad(&e->layer, LAYER_HARDLINK, 0);
    return erofs_name(e, directory, name->base, name->base_len, target);
}

static mode_t type_of(const struct tar_entry *entry)
{
    switch (entry->type) {
    case 'l':
        return S_IFLNK;
    case 'p':
        return S_IFIFO;
    case 'c':
        return S_IFCHR;
    case 'b':
        return S_IFBLK;
    default:
        return S_IFREG;
    }
}

/* As the kernel encodes it for file systems: 12 bits of the major number among 20 of the minor. */
static uint64_t device_of(const struct tar_entry *entry)
{
    uint64_t major = (uint64_t)entry->devmajor, minor = (uint64_t)entry->devminor;

    return (minor & 0xff) | major << 8 | (minor & ~UINT64_C(0xff)) << 12;
}

static int set_link(struct erofs *e, struct erofs_inode *inode, const struct tar_entry *entry)
{
    char *target = erofs_take(e, entry->link.len);

    if (!target)
        return erofs_no_memory(e);
    memcpy(target, entry->link.data, entry->link.len);
    inode->data.target = target;
    inode->size = entry->link.len;
    return TAR_OK;
}

/* A file, symlink, fifo or device. */
static int make(struct erofs *e, struct erofs_directory *directory, const struct split_name *name, const struct tar_entry *entry)
{
    mode_t type = type_of(entry);
    struct erofs_inode *inode;
    int code = type == S_IFCHR || type == S_IFBLK ? check_device(&e->layer, entry) : TAR_OK;

    if (code)
        return code;
    if (!(inode = erofs_take(e, sizeof *inode)))
        return erofs_no_memory(e);
    if ((code = set_metadata(e, inode, entry, type)) || (code = erofs_name(e, directory, name->base, name->base_len, inode)))
        return code;
    if (type == S_IFREG)
        return erofs_begin_file(e, inode, entry);
    if (type == S_IFLNK)
        return set_link(e, inode, entry);
    inode->data.device = type == S_IFIFO ? 0 : device_of(entry);
    return TAR_OK;
}

static int make_entry(struct erofs *e, const struct split_name *name, const struct tar_entry *entry)
{
    struct erofs_directory *directory;
    int code = erofs_walk(e, name->parent, CREATE_IMPLIED, &directory);

    if (code || (code = erofs_fits(e, directory, name->base_len)))
        return code;
    if (entry->type == 'd')
        return make_directory(e, directory, name, entry);
    code = entry->type == 'h' ? make_hard_link(e, directory, name, entry) : make(e, directory, name, entry);
    if (!code)
        erofs_hold(e, directory);
    return code;
}

/* Whether only lower layers could say that a refusal is right: the layer by itself has reasons, and this is one about its tree. */
static int may_be_wrong(const struct erofs *e, int code)
{
    static const int OF_TREE[] = {LAYER_HARDLINK, LAYER_NOT_DIRECTORY, LAYER_LINKS, LAYER_PATH, LAYER_NAME_TOO_LONG, LAYER_WHITEOUT};

    for (size_t i = 0; erofs_single(e) && e->layer.facts.reasons && i < sizeof OF_TREE / sizeof *OF_TREE; i++)
        if (code == OF_TREE[i])
            return 1;
    return 0;
}

int erofs_apply(struct erofs *e, const struct tar_entry *entry)
{
    struct split_name name;
    enum action action;
    int code = check_entry(&e->layer, entry, &name, &action);

    e->file = NULL;
    if (code || action == ACTION_NOTHING)
        return code;
    if (action == ACTION_WHITEOUT || action == ACTION_OPAQUE)
        code = whiteout(e, &name, action == ACTION_OPAQUE);
    else if (action == ACTION_ROOT)
        code = set_root(e, entry);
    else
        code = make_entry(e, &name, entry);
    if (may_be_wrong(e, code)) {
        e->file = NULL;
        code = TAR_OK;
    }
    return code ? code : layer_worked(&e->layer);
}
