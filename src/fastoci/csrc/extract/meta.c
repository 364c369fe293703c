/* Owners, modes, extended attributes and times. The order is fixed: chown clears set-id bits and capabilities, so it is first;
 * chmod follows the attributes, and times are last. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/meta.h"

#include "extract/losses.h"
#include "io/retry.h"
#include "layer/xattr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { VALUE_MAX = 65536, LIST_MAX = 65536 };

/* The attributes of an entry, on fd or, when that is -1, on what the path leads to. Never fatal: file systems differ in what they take. */
static void set_xattrs(struct extract *ex, int fd, const char *path, const struct tar_entry *entry)
{
    char key[NAME_LEN + 1];

    for (size_t i = 0; i < entry->xattr_count; i++) {
        const struct tar_xattr *xattr = &entry->xattrs[i];
        int failed = -1;
        size_t len = xattr->key.len < sizeof key ? xattr->key.len : sizeof key - 1;
        memcpy(key, xattr->key.data, len);
        key[len] = 0;
        if (!layer_xattr_allowed(key))
            continue;
        ex->layer.work += WORK_XATTR + xattr->value.len / 256;
        if (xattr->key.len == len && xattr->value.len <= VALUE_MAX && (ex->options.privileged || !layer_xattr_privileged(key)))
            failed = fd >= 0 ? fsetxattr(fd, key, xattr->value.data, xattr->value.len, 0)
                             : setxattr(path, key, xattr->value.data, xattr->value.len, 0);
        ex->layer.facts.skipped_xattrs += failed && !(ex->losses && layer_xattr_privileged(key)); /* else it is noted */
    }
}

/* What a lower layer's directory had, and what a default ACL of its parent gave it. */
static void clear_xattrs(int fd)
{
    char *list;
    ssize_t len = flistxattr(fd, NULL, 0);

    if (len <= 0 || !(list = calloc(1, LIST_MAX + 1))) /* it ends with a zero, whatever the file system says */
        return;
    len = flistxattr(fd, list, LIST_MAX);
    for (ssize_t at = 0; at < len; at += (ssize_t)strlen(list + at) + 1)
        if (layer_xattr_allowed(list + at))
            (void)fremovexattr(fd, list + at);
    free(list);
}

/* Without the right to give files away: take back only the group that a setgid directory gave. */
static int keep_owner(const struct extract *ex, int fd, unsigned inherits)
{
    return inherits & NODE_SETGID ? fchown(fd, (uid_t)-1, ex->gid) : 0;
}

static int differs(const struct extract *ex, const struct tar_entry *entry)
{
    return entry->uid != (int64_t)ex->uid || entry->gid != (int64_t)ex->gid;
}

mode_t meta_mode(const struct extract *ex, const struct tar_entry *entry)
{
    mode_t mode = (mode_t)entry->mode;

    if (ex->options.owners)
        return mode;
    if (entry->uid != (int64_t)ex->uid)
        mode &= ~(mode_t)S_ISUID;
    return entry->gid != (int64_t)ex->gid ? mode & ~(mode_t)S_ISGID : mode;
}

/* Whether a file is not given what its entry says, with the files of this user counting as root's: its own root is this user. */
static enum loss_kind loss_of(const struct extract *ex, const struct tar_entry *entry)
{
    if (ex->options.owners || !entry)
        return LOSS_NONE;
    return entry->uid || entry->gid || meta_mode(ex, entry) != entry->mode ? LOSS_METADATA : LOSS_NONE;
}

static int note(struct extract *ex, int failed, const struct stat *st, enum loss_kind kind, const struct tar_entry *entry)
{
    if (failed || losses_note(ex->losses, st->st_ino, kind, entry, !ex->options.privileged))
        return layer_io(&ex->layer);
    return TAR_OK;
}

static int note_open(struct extract *ex, int fd, const struct tar_entry *entry)
{
    struct stat st;

    return ex->losses ? note(ex, fstat(fd, &st), &st, loss_of(ex, entry), entry) : TAR_OK;
}

static int note_closed(struct extract *ex, int dir, const char *name, const struct tar_entry *entry, enum loss_kind kind)
{
    struct stat st;

    return ex->losses ? note(ex, fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW), &st, kind, entry) : TAR_OK;
}

int meta_note_device(struct extract *ex, int dir, const char *name, const struct tar_entry *entry)
{
    return note_closed(ex, dir, name, entry, LOSS_DEVICE);
}

/* Failure of a system call that gives something to the entry's owner. */
static int owner_refused(struct extract *ex, const struct tar_entry *entry)
{
    int64_t owner = (int64_t)((uint64_t)entry->uid << 32 | (uint64_t)entry->gid);

    if (errno == EINVAL || errno == EOVERFLOW) /* of a user namespace; of an ID-mapped mount */
        return layer_bad(&ex->layer, LAYER_UNMAPPED, owner);
    return errno == EPERM ? layer_bad(&ex->layer, LAYER_CHOWN, owner) : layer_io(&ex->layer);
}

int meta_open(struct extract *ex, int fd, const struct tar_entry *entry, struct origin origin, mode_t mode)
{
    int other = differs(ex, entry), failed = 0;

    if (!ex->options.owners) {
        ex->layer.facts.skipped_owners += (uint64_t)other;
        failed = keep_owner(ex, fd, origin.inherits);
    } else if ((other || !origin.fresh || origin.inherits & NODE_SETGID) && fchown(fd, (uid_t)entry->uid, (gid_t)entry->gid)) {
        return owner_refused(ex, entry);
    }
    if (failed)
        return layer_io(&ex->layer);
    if (!origin.fresh || origin.inherits & NODE_ACL)
        clear_xattrs(fd);
    if (entry->xattr_count)
        set_xattrs(ex, fd, NULL, entry);
    else if (origin.fresh && origin.born && origin.born == mode)
        return note_open(ex, fd, entry);
    return fchmod(fd, mode) ? layer_io(&ex->layer) : note_open(ex, fd, entry);
}

static mode_t kind_of(const struct tar_entry *entry)
{
    return entry->type == 'l' ? S_IFLNK : entry->type == 'p' ? S_IFIFO : entry->type == 'c' ? S_IFCHR : S_IFBLK;
}

/* O_PATH pins the very file, so that nothing follows a link; and it is no other's that was moved to the name meanwhile. */
static int pin(int dir, const char *name, mode_t kind)
{
    struct stat st;
    int fd;

    RETRY(fd, openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0 || (fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == kind))
        return fd;
    close(fd);
    errno = ESTALE;
    return -1;
}

static int set_pinned(struct extract *ex, int fd, const struct tar_entry *entry, uid_t uid, gid_t gid, unsigned inherits)
{
    char path[64];

    if ((uid != (uid_t)-1 || gid != (gid_t)-1) && fchownat(fd, "", uid, gid, AT_EMPTY_PATH))
        return ex->options.owners ? owner_refused(ex, entry) : layer_io(&ex->layer);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (inherits & NODE_ACL)
        (void)removexattr(path, "system.posix_acl_access");
    if (entry->xattr_count)
        set_xattrs(ex, -1, path, entry);
    return entry->type == 'l' || chmod(path, meta_mode(ex, entry)) == 0 ? TAR_OK : layer_io(&ex->layer);
}

int meta_closed(struct extract *ex, int dir, const char *name, const struct tar_entry *entry, unsigned inherits)
{
    int other = differs(ex, entry), given = ex->options.owners && (other || inherits & NODE_SETGID), fd, code;
    uid_t uid = given ? (uid_t)entry->uid : (uid_t)-1;
    gid_t gid = given ? (gid_t)entry->gid : inherits & NODE_SETGID ? ex->gid : (gid_t)-1;
    struct timespec times[2];

    if (!ex->options.owners)
        ex->layer.facts.skipped_owners += (uint64_t)other;
    if (entry->type != 'l' || given || inherits || entry->xattr_count) { /* most links have nothing to be set */
        if ((fd = pin(dir, name, kind_of(entry))) < 0)
            return layer_io(&ex->layer);
        code = set_pinned(ex, fd, entry, uid, gid, inherits);
        close(fd);
        if (code)
            return code;
    }
    meta_time(entry, times);
    if (utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW))
        return layer_io(&ex->layer);
    return note_closed(ex, dir, name, entry, loss_of(ex, entry));
}

int meta_implied(struct extract *ex, int fd, struct origin origin)
{
    int failed = 0;

    if (!ex->options.owners)
        failed = keep_owner(ex, fd, origin.inherits);
    else if (!origin.fresh || origin.inherits & NODE_SETGID || ex->uid != 0 || ex->gid != 0)
        failed = fchown(fd, 0, 0);
    if (failed)
        return layer_io(&ex->layer);
    if (!origin.fresh || origin.inherits & NODE_ACL)
        clear_xattrs(fd);
    if (origin.fresh && origin.born == IMPLIED_MODE)
        return note_open(ex, fd, NULL);
    return fchmod(fd, IMPLIED_MODE) ? layer_io(&ex->layer) : note_open(ex, fd, NULL);
}

unsigned meta_inherits(int fd, mode_t mode)
{
    unsigned acl = fgetxattr(fd, "system.posix_acl_default", NULL, 0) > 0 ? NODE_ACL : 0;

    return acl | (mode & S_ISGID ? NODE_SETGID : 0);
}

/* The kernel clamps to what the file system holds. */
void meta_time(const struct tar_entry *entry, struct timespec times[2])
{
    time_t seconds = (time_t)entry->mtime;

    if ((int64_t)seconds != entry->mtime) /* a 32-bit time_t */
        seconds = entry->mtime < 0 ? INT32_MIN : INT32_MAX;
    times[0].tv_sec = times[1].tv_sec = seconds;
    times[0].tv_nsec = times[1].tv_nsec = (long)entry->mtime_ns;
}
