/* From names to directories: descriptors of nodes, and the path to a directory by its spelling in the archive.
 *
 * Invariants: the kernel is asked for one component at a time and never follows a symbolic link; ".." in a link goes to the
 * node's parent and stops at the root; a node's name is physical. */
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
#include <stdlib.h>
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
    ex->work += left * WORK_OPEN;
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
        return extract_io(ex);
    RETRY(made, mkdirat(dir, name, born ? born : 0700));
    if (made)
        return extract_io(ex);
    parent->flags |= NODE_DIRTY;
    fd = open_child(ex, dir, name);
    if (fd < 0 || !(*out = tree_add(ex, parent, name, fd, 0)))
        return extract_io(ex);
    (*out)->born = mode_believed(ex, fd, born);
    return TAR_OK;
}

/* A directory that no entry has named: 0755 and root's. */
static int imply(struct extract *ex, struct node *parent, const char *name, struct node **out)
{
    int code;

    if (strncmp(name, ".wh.", 4) == 0)
        return EXTRACT_WHITEOUT;
    if (++ex->made > ex->options.max_entries)
        return extract_bad(ex, EXTRACT_ENTRIES, (int64_t)ex->options.max_entries);
    ex->work += WORK_IMPLIED;
    if ((code = extract_worked(ex)) || (code = walk_make(ex, parent, name, IMPLIED_MODE, out)))
        return code;
    code = meta_implied(ex, (*out)->fd, (struct origin){1, parent->flags & NODE_INHERITS, (*out)->born});
    (*out)->born = IMPLIED_MODE;
    return code;
}

/* One component that has no node yet. WALK_LINK: it is a link, its text is in target. */
static int enter(struct extract *ex, struct node *dir, const char *name, int create, struct node **out, char *target, size_t *len)
{
    int dir_fd = walk_fd(ex, dir), fd;
    ssize_t got;

    if (dir_fd < 0)
        return extract_io(ex);
    fd = open_child(ex, dir_fd, name);
    if (fd >= 0)
        return (*out = tree_add(ex, dir, name, fd, 1)) ? TAR_OK : extract_io(ex);
    if (errno == ENOENT)
        return create ? imply(ex, dir, name, out) : WALK_MISSING;
    if (errno != ENOTDIR && errno != ELOOP)
        return extract_io(ex);
    got = readlinkat(dir_fd, name, target, *len);
    if (got < 0)
        return errno == EINVAL ? EXTRACT_NOT_DIRECTORY : extract_io(ex);
    if ((size_t)got == *len)
        return EXTRACT_LINKS;
    *len = (size_t)got;
    return WALK_LINK;
}

static int reserve(struct walk_buffer *buffer, size_t len)
{
    char *bigger;

    if (len <= buffer->capacity)
        return 0;
    if (!(bigger = realloc(buffer->text, len + 256)))
        return -1;
    buffer->text = bigger;
    buffer->capacity = len + 256;
    return 0;
}

/* target + '/' + what is left of the path, in the buffer that does not hold the rest. */
static int join_target(struct extract *ex, int which, const char *target, size_t len, const char *rest, size_t rest_len)
{
    struct walk_buffer *buffer = &ex->walk[which];

    if (reserve(buffer, len + 1 + rest_len)) {
        errno = ENOMEM;
        return extract_io(ex);
    }
    memcpy(buffer->text, target, len);
    buffer->text[len] = '/';
    memcpy(buffer->text + len + 1, rest, rest_len);
    return TAR_OK;
}

static int walk(struct extract *ex, const char *at, size_t left, int create, struct node **out)
{
    struct node *node = ex->root, *child;
    char name[NAME_LEN + 1], target[4096];
    size_t links = 0, link_bytes = 0;

    while (left) {
        const char *slash = memchr(at, '/', left);
        size_t len = slash ? (size_t)(slash - at) : left, skip = slash ? len + 1 : len, target_len = sizeof target;
        int code = TAR_OK;
        if (len > NAME_LEN)
            return extract_bad(ex, EXTRACT_NAME_TOO_LONG, (int64_t)len);
        ex->work += WORK_COMPONENT;
        memcpy(name, at, len);
        name[len] = 0;
        at += skip;
        left -= skip;
        if (len == 0 || strcmp(name, ".") == 0)
            continue;
        if (strcmp(name, "..") == 0) {
            node = node->parent ? node->parent : node;
            continue;
        }
        if (!(child = tree_find(ex, node, name)) && !(code = tree_fits(ex, node, len, 1)))
            code = enter(ex, node, name, create, &child, target, &target_len);
        if (code == WALK_LINK) {
            ex->work += WORK_LINK;
            link_bytes += target_len;
            if (++links > LINKS_MAX || link_bytes > LINK_BYTES_MAX)
                return extract_bad(ex, EXTRACT_LINKS, (int64_t)links);
            if ((code = join_target(ex, links & 1, target, target_len, at, left)))
                return code;
            at = ex->walk[links & 1].text;
            left += target_len + 1;
            child = target[0] == '/' ? ex->root : node;
        } else if (code) {
            return code;
        }
        node = child;
    }
    *out = node;
    return TAR_OK;
}

int walk_to(struct extract *ex, const uint8_t *path, size_t len, int create, struct node **out)
{
    int code;

    if (ex->cached_node && ex->cached_len == len && memcmp(ex->cached.text, path, len) == 0) {
        *out = ex->cached_node;
        return TAR_OK;
    }
    if (len == 0) {
        *out = ex->root;
        return TAR_OK;
    }
    if ((code = walk(ex, (const char *)path, len, create, out)))
        return code;
    if (reserve(&ex->cached, len)) {
        errno = ENOMEM;
        return extract_io(ex);
    }
    memcpy(ex->cached.text, path, len);
    ex->cached_len = len;
    ex->cached_node = *out;
    return TAR_OK;
}
