/* One function for each type of entry: it makes what the entry says in a directory that has been walked to.
 * What is in the way goes first; nothing is written through it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/make.h"

#include "extract/meta.h"
#include "extract/remove.h"
#include "extract/tree.h"
#include "extract/walk.h"
#include "io/directory.h"
#include "io/retry.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* We must get into it until the end. */
#define DIRECTORY_MODE(ex, entry) (meta_mode(ex, entry) | 0700)

static int make_closed(int dir, const char *name, const struct tar_entry *entry)
{
    char target[TARGET_MAX + 1];
    mode_t mode = entry->type == 'c' ? S_IFCHR : S_IFBLK;
    int made;

    if (entry->type == 'l') {
        memcpy(target, entry->link.data, entry->link.len);
        target[entry->link.len] = 0;
        RETRY(made, symlinkat(target, dir, name));
    } else if (entry->type == 'p') {
        RETRY(made, mkfifoat(dir, name, 0600));
    } else {
        RETRY(made, mknodat(dir, name, mode | 0600, makedev((unsigned)entry->devmajor, (unsigned)entry->devminor)));
    }
    return made;
}

/* A new name: 0, or -1 with errno, EEXIST when it is taken. */
static int make_new(struct extract *ex, int dir, unsigned inherits, const char *name, const struct tar_entry *entry)
{
    if (entry->type != 'f')
        return make_closed(dir, name, entry);
    return ex->writer->make_file(ex, dir, inherits, name, entry);
}

/* A lower file must not show in the place of a device that cannot be made. */
static int lose_device(struct extract *ex, struct node *dir, const char *name, const struct tar_entry *entry)
{
    int code = ex->writer->vacate(ex, dir, name), fd, failed;

    ex->layer.facts.skipped_devices++;
    if (code || !ex->losses)
        return code;
    if ((fd = walk_fd(ex, dir)) < 0)
        return layer_io(&ex->layer);
    RETRY(failed, mknodat(fd, name, S_IFREG | 0600, 0));
    return failed ? layer_io(&ex->layer) : meta_note_device(ex, fd, name, entry);
}

/* A file, symlink, fifo or device; what has its name goes first. */
static int make(struct extract *ex, struct node *dir, const char *name, const struct tar_entry *entry)
{
    unsigned inherits = dir->flags & NODE_INHERITS;
    int fd = walk_fd(ex, dir), code, failed;

    if (fd < 0)
        return layer_io(&ex->layer);
    failed = make_new(ex, fd, inherits, name, entry);
    if (failed && errno == EEXIST) {
        if ((code = remove_name(ex, dir, name)))
            return code;
        failed = make_new(ex, fd, inherits, name, entry);
    }
    if (failed && errno == EPERM && (entry->type == 'c' || entry->type == 'b'))
        return lose_device(ex, dir, name, entry); /* root of a user namespace */
    if (failed)
        return layer_io(&ex->layer);
    return entry->type == 'f' ? TAR_OK : meta_closed(ex, fd, name, entry, inherits);
}

static int make_device(struct extract *ex, struct node *dir, const char *name, const struct tar_entry *entry)
{
    int code;

    if (ex->options.snapshot && entry->type == 'c' && entry->devmajor == 0 && entry->devminor == 0)
        return ex->writer->vacate(ex, dir, name);
    if ((code = check_device(&ex->layer, entry)))
        return code;
    return ex->options.privileged ? make(ex, dir, name, entry) : lose_device(ex, dir, name, entry);
}

static int is_below(const struct node *node, const struct node *dir, const char *name)
{
    while (node && !(node->parent == dir && strcmp(node->name, name) == 0))
        node = node->parent;
    return node != NULL;
}

/* The target of a hard link is not there. In lower layers, which are not there either, it may be: then the link is left out. */
static int no_target(struct extract *ex, const struct node *from, int error)
{
    if (error == ENOENT && ex->writer->unseen && ex->writer->unseen(ex, from, REASON_HARD_LINK))
        return TAR_OK;
    return layer_bad(&ex->layer, LAYER_HARDLINK, error);
}

/* from is open and pinned. The name is taken: by the target itself, which is fine, or by what must go, unless the target would go with it. */
static int link_over(struct extract *ex, struct node *from, const char *target, struct node *dir, const char *name)
{
    struct stat old, there;
    int dir_fd = walk_fd(ex, dir), code, failed;

    if (dir_fd < 0)
        return layer_io(&ex->layer);
    if (fstatat(from->fd, target, &old, AT_SYMLINK_NOFOLLOW))
        return no_target(ex, from, errno);
    if (S_ISDIR(old.st_mode))
        return layer_bad(&ex->layer, LAYER_HARDLINK, EISDIR);
    if (fstatat(dir_fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && old.st_ino == there.st_ino && old.st_dev == there.st_dev)
        return TAR_OK;
    if (is_below(from, dir, name))
        return layer_bad(&ex->layer, LAYER_HARDLINK, 0);
    if ((code = remove_name(ex, dir, name)))
        return code;
    RETRY(failed, linkat(from->fd, target, dir_fd, name, 0));
    return failed ? layer_io(&ex->layer) : TAR_OK;
}

static int link_to(struct extract *ex, struct node *from, const char *target, struct node *dir, const char *name)
{
    int dir_fd = walk_fd(ex, dir), failed;

    if (dir_fd < 0)
        return layer_io(&ex->layer);
    if (ex->writer->is_whiteout && ex->writer->is_whiteout(from->fd, target))
        return layer_bad(&ex->layer, LAYER_HARDLINK, ENOENT);
    RETRY(failed, linkat(from->fd, target, dir_fd, name, 0));
    if (!failed)
        return TAR_OK;
    if (errno == EEXIST)
        return link_over(ex, from, target, dir, name);
    if (errno == ENOENT || errno == EPERM || errno == ENOTDIR)
        return no_target(ex, from, errno);
    return layer_io(&ex->layer);
}

static int make_hard_link(struct extract *ex, struct node *dir, const char *name, const struct tar_entry *entry)
{
    struct split_name target;
    struct node *from;
    int code = check_target(&ex->layer, entry->link, &target);

    if (code)
        return code;
    code = walk_to(ex, target.parent, 0, &from);
    if (code == WALK_UNSEEN) {
        ex->layer.facts.reasons |= REASON_HARD_LINK;
        return TAR_OK;
    }
    if (code == WALK_MISSING || code == LAYER_NOT_DIRECTORY)
        return layer_bad(&ex->layer, LAYER_HARDLINK, code == WALK_MISSING ? ENOENT : ENOTDIR);
    if (code)
        return code;
    if (walk_fd(ex, from) < 0)
        return layer_io(&ex->layer);
    ex->pinned = from;
    code = link_to(ex, from, target.base, dir, name);
    ex->pinned = NULL;
    return code;
}

/* The node of a directory entry: the one that is there, or a new one in the place of something else. */
static int directory_node(struct extract *ex, struct node *dir, const char *name, mode_t mode, struct node **node)
{
    int code, fd, dir_fd;

    if ((*node = tree_find(ex, dir, name)))
        return TAR_OK;
    if ((code = tree_fits(ex, dir, strlen(name), 1)))
        return code;
    code = walk_make(ex, dir, name, mode, node);
    if (code != LAYER_IO || ex->layer.value != EEXIST)
        return code;
    if ((dir_fd = walk_fd(ex, dir)) < 0)
        return layer_io(&ex->layer);
    fd = directory_open(dir_fd, name);
    if (fd >= 0)
        return (*node = tree_add(ex, dir, name, fd, 1)) ? TAR_OK : layer_io(&ex->layer);
    if (errno != ENOTDIR && errno != ELOOP)
        return layer_io(&ex->layer);
    if ((code = remove_name(ex, dir, name)) || (code = walk_make(ex, dir, name, mode, node)))
        return code;
    (*node)->flags |= NODE_BARE; /* what was there hid lower layers */
    return TAR_OK;
}

/* Whether what is made in a directory with this entry's metadata inherits from it. */
static unsigned inherited_from(const struct tar_entry *entry)
{
    static const char ACL[] = "system.posix_acl_default";
    unsigned found = entry->mode & S_ISGID ? NODE_SETGID : 0;

    for (size_t i = 0; i < entry->xattr_count; i++)
        if (entry->xattrs[i].key.len == strlen(ACL) && memcmp(entry->xattrs[i].key.data, ACL, strlen(ACL)) == 0)
            found |= NODE_ACL;
    return found;
}

/* Metadata of a directory; dir is NULL for the root. Its time waits for the end, and so does a mode that locks us out. */
static int set_directory(struct extract *ex, struct node *node, const struct tar_entry *entry)
{
    struct timespec times[2];
    int fd = walk_fd(ex, node), code;
    struct origin origin = {
        .fresh = (node->flags & (NODE_MADE | NODE_NAMED)) == NODE_MADE,
        .inherits = node->parent ? node->parent->flags & NODE_INHERITS : 0,
        .born = node->born,
    };

    if (fd < 0)
        return layer_io(&ex->layer);
    if ((code = meta_open(ex, fd, entry, origin, DIRECTORY_MODE(ex, entry))))
        return code;
    node->born = 0;
    meta_time(entry, times);
    node->mtime = times[1].tv_sec;
    node->mtime_ns = (uint32_t)times[1].tv_nsec;
    node->mode = (uint16_t)meta_mode(ex, entry);
    node->flags &= (uint16_t)~(NODE_MODE | NODE_INHERITS);
    node->flags |= NODE_NAMED | inherited_from(entry) | ((entry->mode & 0700) != 0700 ? NODE_MODE : 0);
    tree_hold(node);
    ex->layer.facts.names_root |= node == ex->root;
    return TAR_OK;
}

static int make_directory(struct extract *ex, struct node *dir, const char *name, const struct tar_entry *entry)
{
    struct node *node;
    int code = directory_node(ex, dir, name, DIRECTORY_MODE(ex, entry), &node);

    return code ? code : set_directory(ex, node, entry);
}

int make_root(struct extract *ex, const struct tar_entry *entry)
{
    return set_directory(ex, ex->root, entry);
}

int make_entry(struct extract *ex, const struct split_name *name, const struct tar_entry *entry)
{
    struct node *dir;
    int code = walk_to(ex, name->parent, 1, &dir);

    if (code || (code = tree_fits(ex, dir, name->base_len, 0)))
        return code;
    switch (entry->type) {
    case 'd':
        return make_directory(ex, dir, name->base, entry);
    case 'h':
        code = make_hard_link(ex, dir, name->base, entry);
        break;
    case 'c':
    case 'b':
        code = make_device(ex, dir, name->base, entry);
        break;
    default:
        code = make(ex, dir, name->base, entry);
    }
    return code ? code : tree_own(ex, dir, name->base);
}
