/* Directories of the tree: which ones this layer has touched, their descriptors, and what else this layer made. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/tree.h"

#include "extract/meta.h"
#include "io/retry.h"
#include "layer/hash.h"
#include "layer/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FDS_MAX = 512 };

static uint64_t hash_of(const struct extract *ex, const struct node *dir, const char *name, size_t len)
{
    return layer_hash(ex->key, dir->id, name, len);
}

/* --- nodes --- */

struct node *tree_find(struct extract *ex, const struct node *dir, const char *name)
{
    uint32_t hash = (uint32_t)hash_of(ex, dir, name, strlen(name));
    struct node *node = ex->table[hash & (ex->table_size - 1)];

    while (node && !(node->hash == hash && node->parent == dir && strcmp(node->name, name) == 0))
        node = node->chain;
    return node;
}

static int table_grow(struct extract *ex)
{
    size_t size = ex->table_size ? ex->table_size * 2 : 256;
    struct node **table;

    if (ex->nodes < ex->table_size)
        return 0;
    if (!(table = calloc(size, sizeof *table)))
        return -1;
    for (struct node *node = ex->oldest; node; node = node->newer) {
        node->chain = table[node->hash & (size - 1)];
        table[node->hash & (size - 1)] = node;
    }
    free(ex->table);
    ex->table = table;
    ex->table_size = size;
    return 0;
}

static void recent_unlink(struct extract *ex, struct node *node)
{
    *(node->recent ? &node->recent->stale : &ex->most_recent) = node->stale;
    *(node->stale ? &node->stale->recent : &ex->most_stale) = node->recent;
}

static void recent_push(struct extract *ex, struct node *node)
{
    node->recent = NULL;
    node->stale = ex->most_recent;
    *(ex->most_recent ? &ex->most_recent->recent : &ex->most_stale) = node;
    ex->most_recent = node;
}

void tree_used(struct extract *ex, struct node *node)
{
    if (!node->parent || ex->most_recent == node)
        return;
    recent_unlink(ex, node);
    recent_push(ex, node);
}

void tree_shut(struct extract *ex, struct node *node)
{
    if (node->fd < 0)
        return;
    close(node->fd);
    node->fd = -1;
    if (node->parent) {
        recent_unlink(ex, node);
        ex->open_fds--;
    }
}

void tree_shut_stale(struct extract *ex)
{
    if (ex->most_stale == ex->pinned)
        tree_used(ex, ex->pinned);
    tree_shut(ex, ex->most_stale);
}

void tree_keep_open(struct extract *ex, struct node *node, int fd)
{
    node->fd = fd;
    if (!node->parent)
        return;
    recent_push(ex, node);
    if (++ex->open_fds > ex->max_fds)
        tree_shut_stale(ex);
}

static void link_node(struct extract *ex, struct node *node)
{
    struct node *parent = node->parent;

    node->chain = ex->table[node->hash & (ex->table_size - 1)];
    ex->table[node->hash & (ex->table_size - 1)] = node;
    ex->nodes++;
    node->older = ex->newest;
    *(ex->newest ? &ex->newest->newer : &ex->oldest) = node;
    ex->newest = node;
    if (!parent)
        return;
    node->sibling = parent->child;
    if (parent->child)
        parent->child->sibling_before = node;
    parent->child = node;
}

static void unlink_node(struct extract *ex, struct node *node)
{
    struct node **slot = &ex->table[node->hash & (ex->table_size - 1)];

    tree_shut(ex, node);
    while (*slot != node)
        slot = &(*slot)->chain;
    *slot = node->chain;
    ex->nodes--;
    *(node->older ? &node->older->newer : &ex->oldest) = node->newer;
    *(node->newer ? &node->newer->older : &ex->newest) = node->older;
    if (node->sibling)
        node->sibling->sibling_before = node->sibling_before;
    if (node->sibling_before)
        node->sibling_before->sibling = node->sibling;
    else if (node->parent)
        node->parent->child = node->sibling;
    free(node);
}

void tree_drop(struct extract *ex, struct node *node)
{
    struct node *at = node, *up;

    layer_forget(&ex->layer);
    for (;;) {
        while (at->child)
            at = at->child;
        up = at->parent;
        if (at == node)
            break;
        unlink_node(ex, at);
        at = up;
    }
    unlink_node(ex, node);
}

/* Times and modes of what was there before; a directory that its owner may not enter is widened until the end. */
static int examine(const struct extract *ex, struct node *node, int fd)
{
    struct stat st;

    if (fstat(fd, &st))
        return -1;
    node->mtime = st.st_mtim.tv_sec;
    node->mtime_ns = (uint32_t)st.st_mtim.tv_nsec;
    node->flags |= meta_inherits(fd, st.st_mode);
    if (ex->uid != 0 && (st.st_mode & 0700) != 0700) {
        node->mode = st.st_mode & 07777;
        node->flags |= NODE_MODE;
        return fchmod(fd, node->mode | 0700);
    }
    return 0;
}

static size_t path_len(const struct node *dir, size_t len)
{
    return dir && dir->parent ? dir->path_len + 1 + len : len;
}

int tree_fits(struct extract *ex, const struct node *dir, size_t len, int directory)
{
    if (path_len(dir, len) > PATH_LEN)
        return layer_bad(&ex->layer, LAYER_PATH, (int64_t)path_len(dir, len));
    if (directory && ex->nodes > ex->options.max_directories) /* the root is one */
        return layer_bad(&ex->layer, LAYER_DIRECTORIES, (int64_t)ex->options.max_directories);
    return TAR_OK;
}

struct node *tree_add(struct extract *ex, struct node *parent, const char *name, int fd, int existing)
{
    size_t len = strlen(name);
    struct node *node = NULL;

    if (table_grow(ex) == 0)
        node = calloc(1, sizeof *node + len + 1);
    if (!node || (existing && examine(ex, node, fd))) {
        int error = node ? errno : ENOMEM;
        free(node);
        close(fd);
        errno = error;
        return NULL;
    }
    memcpy(node->name, name, len);
    node->id = ++ex->last_id;
    node->parent = parent;
    node->flags |= existing ? 0 : ex->writer->unseen ? NODE_MADE : NODE_MADE | NODE_BARE;
    node->hash = parent ? (uint32_t)hash_of(ex, parent, name, len) : 1;
    node->path_len = (uint16_t)path_len(parent, len);
    link_node(ex, node);
    tree_keep_open(ex, node, fd);
    return node;
}

/* --- what this layer made --- */

void tree_hold(struct node *node)
{
    for (; node && !(node->flags & NODE_HOLDS); node = node->parent)
        node->flags |= NODE_HOLDS;
}

static size_t own_slot(const uint64_t *own, size_t size, uint64_t hash)
{
    size_t at = hash & (size - 1);

    while (own[at] && own[at] != hash)
        at = (at + 1) & (size - 1);
    return at;
}

static int own_grow(struct extract *ex)
{
    size_t size = ex->own_size ? ex->own_size * 2 : 1024;
    uint64_t *own;

    if (ex->own_count * 4 < ex->own_size * 3)
        return 0;
    if (!(own = calloc(size, sizeof *own)))
        return -1;
    for (size_t i = 0; i < ex->own_size; i++)
        if (ex->own[i])
            own[own_slot(own, size, ex->own[i])] = ex->own[i];
    free(ex->own);
    ex->own = own;
    ex->own_size = size;
    return 0;
}

int tree_own(struct extract *ex, struct node *dir, const char *name)
{
    uint64_t hash;
    size_t slot;

    dir->flags |= NODE_DIRTY;
    if (!ex->options.base) /* there are no whiteouts to survive */
        return TAR_OK;
    tree_hold(dir);
    if (own_grow(ex)) {
        errno = ENOMEM;
        return layer_io(&ex->layer);
    }
    hash = hash_of(ex, dir, name, strlen(name));
    slot = own_slot(ex->own, ex->own_size, hash);
    ex->own_count += ex->own[slot] == 0;
    ex->own[slot] = hash;
    return TAR_OK;
}

int tree_owns(struct extract *ex, const struct node *dir, const char *name)
{
    if (!ex->own)
        return 0;
    return ex->own[own_slot(ex->own, ex->own_size, hash_of(ex, dir, name, strlen(name)))] != 0;
}

/* --- beginning and end --- */

static size_t fd_budget(void)
{
    struct rlimit limit;
    rlim_t share;

    if (getrlimit(RLIMIT_NOFILE, &limit))
        return TREE_FDS_MIN;
    share = limit.rlim_cur / 16; /* several layers at once, and the rest of the process */
    return share > FDS_MAX ? FDS_MAX : share < TREE_FDS_MIN ? TREE_FDS_MIN : (size_t)share;
}

int tree_init(struct extract *ex, int root_fd)
{
    int fd;

    if (layer_hash_key(ex->key))
        return -1;
    ex->max_fds = fd_budget();
    RETRY(fd, fcntl(root_fd, F_DUPFD_CLOEXEC, 0)); /* whatever mode it has by now */
    if (fd < 0)
        return -1;
    ex->root = tree_add(ex, NULL, "", fd, 1);
    return ex->root ? 0 : -1;
}

void tree_free(struct extract *ex)
{
    for (struct node *node = ex->oldest, *next; node; node = next) {
        next = node->newer;
        if (node->fd >= 0)
            close(node->fd);
        free(node);
    }
    free(ex->table);
    free(ex->own);
    free(ex->dents);
    free(ex->pending);
    ex->dents = NULL;
    ex->pending = NULL;
    ex->root = ex->oldest = ex->newest = ex->most_recent = ex->most_stale = NULL;
    ex->table = NULL;
    ex->own = NULL;
}
