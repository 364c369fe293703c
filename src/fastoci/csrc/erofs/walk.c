/* The tree as layer/walk.h sees it, and directories that no entry names. */
#include "erofs/walk.h"

#include "erofs/arena.h"
#include "erofs/tree.h"

#include <string.h>
#include <sys/stat.h>

static void *parent_of(const void *directory)
{
    return ((const struct erofs_directory *)directory)->parent;
}

static int count(struct erofs *e, enum erofs_create create)
{
    if (create == CREATE_IMPLIED)
        return layer_count_implied(&e->layer);
    e->layer.work += WORK_IMPLIED;
    return layer_worked(&e->layer);
}

/* 0755 and root's. In a layer by itself it may hide what a lower layer has. */
static int imply(struct erofs *e, struct erofs_directory *parent, const char *name, size_t len, enum erofs_create create, void **out)
{
    struct erofs_directory *made;
    int lower = erofs_single(e) && !e->hidden && !erofs_cut(parent), code;

    if (create == CREATE_PHANTOM && (!lower || strncmp(name, ".wh.", 4) == 0))
        return WALK_MISSING;
    if (strncmp(name, ".wh.", 4) == 0)
        return LAYER_WHITEOUT;
    if ((code = count(e, create)))
        return code;
    if (!(made = erofs_new_directory(e, parent, len)))
        return erofs_no_memory(e);
    if (lower)
        e->layer.facts.reasons |= REASON_IMPLIED_PARENT;
    if (e->hidden)
        made->flags |= DIR_OPAQUE;
    *out = made;
    return erofs_name(e, parent, name, len, &made->inode);
}

static int enter(void *ctx, void *directory, const char *text, size_t len, int create, void **out, char *target, size_t *target_len)
{
    struct erofs *e = ctx;
    struct erofs_name *name = erofs_find(e, directory, text, len);
    struct erofs_inode *inode = name ? name->inode : NULL;
    int code;

    if ((*out = erofs_directory_of(inode)))
        return TAR_OK;
    if (inode && S_ISLNK(inode->mode)) {
        memcpy(target, inode->data.target, inode->size);
        *target_len = inode->size;
        return WALK_LINK;
    }
    if (inode && !(inode->flags & INODE_WHITEOUT))
        return LAYER_NOT_DIRECTORY;
    if ((code = erofs_fits(e, directory, len)))
        return code;
    e->missing = directory;
    e->hidden = inode != NULL;
    return create ? imply(e, directory, text, len, (enum erofs_create)create, out) : WALK_MISSING;
}

int erofs_walk(struct erofs *e, struct tar_bytes path, enum erofs_create create, struct erofs_directory **out)
{
    struct layer_tree tree = {e->root, parent_of, enter};
    void *directory;
    int code = layer_walk(&e->layer, &tree, e, path, (int)create, &directory);

    *out = directory;
    if (!code)
        erofs_touch(e, *out);
    return code;
}
