/* Names of the tree: found by a hash table, listed by their directories. */
#include "erofs/tree.h"

#include "erofs/arena.h"
#include "layer/hash.h"

#include <string.h>
#include <sys/stat.h>

static uint32_t hash_of(const struct erofs *e, const struct erofs_directory *directory, const char *text, size_t len)
{
    return (uint32_t)layer_hash(e->key, (uintptr_t)directory, text, len); /* it is never freed before the others */
}

struct erofs_name *erofs_find(const struct erofs *e, const struct erofs_directory *directory, const char *text, size_t len)
{
    uint32_t hash = hash_of(e, directory, text, len);
    struct erofs_name *name = e->table[hash & (e->table_size - 1)];

    while (name && !(name->hash == hash && name->directory == directory && name->len == len && memcmp(name->text, text, len) == 0))
        name = name->chain;
    return name;
}

static int table_grow(struct erofs *e)
{
    size_t size = e->table_size ? e->table_size * 2 : 256;
    struct erofs_name **table;

    if (e->names < e->table_size)
        return TAR_OK;
    if (!(table = erofs_alloc(e, size * sizeof *table)))
        return erofs_no_memory(e);
    for (size_t i = 0; i < e->table_size; i++)
        for (struct erofs_name *name = e->table[i], *chain; name; name = chain) {
            chain = name->chain;
            name->chain = table[name->hash & (size - 1)];
            table[name->hash & (size - 1)] = name;
        }
    erofs_drop(e, e->table);
    e->table = table;
    e->table_size = size;
    return TAR_OK;
}

static struct erofs_name *add(struct erofs *e, struct erofs_directory *directory, const char *text, size_t len)
{
    struct erofs_name *name, **slot;

    if (table_grow(e) || !(name = erofs_take(e, sizeof *name + len)))
        return NULL;
    memcpy(name->text, text, len);
    name->len = (uint8_t)len;
    name->directory = directory;
    name->hash = hash_of(e, directory, text, len);
    slot = &e->table[name->hash & (e->table_size - 1)];
    name->chain = *slot;
    *slot = name;
    e->names++;
    return name;
}

int erofs_name(struct erofs *e, struct erofs_directory *directory, const char *text, size_t len, struct erofs_inode *inode)
{
    struct erofs_name *name = erofs_find(e, directory, text, len);

    if (!name && !(name = add(e, directory, text, len)))
        return erofs_no_memory(e);
    if (name->inode && S_ISDIR(name->inode->mode))
        layer_forget(&e->layer); /* the last parent may have been below it */
    if (name->inode && S_ISLNK(name->inode->mode))
        layer_forget(&e->layer); /* or behind it */
    if (!name->listed) {
        name->listed = 1;
        name->next = directory->inode.data.names;
        directory->inode.data.names = name;
    }
    name->inode = inode;
    name->layer = e->number;
    return TAR_OK;
}

void erofs_unname(struct erofs *e, struct erofs_name *name)
{
    layer_forget(&e->layer);
    name->inode = NULL;
}

struct erofs_directory *erofs_directory_of(struct erofs_inode *inode)
{
    return inode && S_ISDIR(inode->mode) ? (struct erofs_directory *)(void *)inode : NULL;
}

void erofs_imply(struct erofs_inode *inode)
{
    inode->mode = S_IFDIR | IMPLIED_MODE;
    inode->uid = inode->gid = 0;
    inode->mtime = 0;
    inode->mtime_ns = 0;
    inode->xattrs = NULL;
}

static size_t path_len(const struct erofs_directory *directory, size_t len)
{
    return directory && directory->parent ? directory->path_len + 1 + len : len;
}

int erofs_fits(struct erofs *e, const struct erofs_directory *directory, size_t len)
{
    size_t path = path_len(directory, len);

    return path <= PATH_LEN ? TAR_OK : layer_bad(&e->layer, LAYER_PATH, (int64_t)path);
}

struct erofs_directory *erofs_new_directory(struct erofs *e, struct erofs_directory *parent, size_t len)
{
    struct erofs_directory *directory = erofs_take(e, sizeof *directory);

    if (!directory)
        return NULL;
    erofs_imply(&directory->inode);
    directory->parent = parent;
    directory->layer = e->number;
    directory->flags = DIR_MADE | DIR_BARE;
    directory->path_len = (uint16_t)path_len(parent, len);
    return directory;
}

void erofs_touch(struct erofs *e, struct erofs_directory *directory)
{
    if (directory->layer == e->number)
        return;
    directory->layer = e->number;
    directory->flags &= (uint16_t)~DIR_LAYER;
}

void erofs_hold(struct erofs *e, struct erofs_directory *directory)
{
    for (; directory; directory = directory->parent) {
        erofs_touch(e, directory);
        if (directory->flags & DIR_HOLDS)
            return;
        directory->flags |= DIR_HOLDS;
    }
}

int erofs_cut(const struct erofs_directory *directory)
{
    while (directory && !(directory->flags & DIR_OPAQUE))
        directory = directory->parent;
    return directory != NULL;
}

int erofs_tree_init(struct erofs *e)
{
    if (layer_hash_key(e->key))
        return layer_io(&e->layer);
    if (table_grow(e) || !(e->root = erofs_new_directory(e, NULL, 0)))
        return erofs_no_memory(e);
    e->root->flags = 0;
    return TAR_OK;
}

void erofs_tree_seal(struct erofs *e)
{
    erofs_drop(e, e->table);
    e->table = NULL;
    e->table_size = 0;
}

void erofs_tree_free(struct erofs *e)
{
    erofs_arena_free(&e->arena, e->table, e->pending);
    e->table = NULL;
    e->pending = NULL;
    e->root = NULL;
}
