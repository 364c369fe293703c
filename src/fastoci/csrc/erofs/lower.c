/* What an entry hides of lower layers. In an image: names that this layer did not make go, whatever the order of its entries. In a
 * layer by itself: a device 0:0 has the name, unless the layer itself does. */
#include "erofs/lower.h"

#include "erofs/arena.h"
#include "erofs/tree.h"
#include "io/stop.h"

#include <string.h>
#include <sys/stat.h>

/* --- an image --- */

static int push(struct erofs *e, struct erofs_directory *directory)
{
    if (e->pending_count == e->pending_capacity) {
        size_t capacity = e->pending_capacity ? 2 * e->pending_capacity : 64;
        struct erofs_directory **bigger;
        if (!(bigger = erofs_alloc(e, capacity * sizeof *bigger)))
            return erofs_no_memory(e);
        if (e->pending_count)
            memcpy(bigger, e->pending, e->pending_count * sizeof *bigger);
        erofs_drop(e, e->pending);
        e->pending = bigger;
        e->pending_capacity = capacity;
    }
    directory->flags |= DIR_BARE;
    e->pending[e->pending_count++] = directory;
    return TAR_OK;
}

/* Take a name away unless this layer made it. *kept: a directory that stays, whose lower content must go. */
static void unname_lower(struct erofs *e, struct erofs_name *name, struct erofs_directory **kept)
{
    struct erofs_directory *child = erofs_directory_of(name->inode);

    *kept = NULL;
    if (child) {
        erofs_touch(e, child);
        if (!(child->flags & DIR_HOLDS))
            return erofs_unname(e, name);
        if (!(child->flags & (DIR_NAMED | DIR_MADE))) { /* it is now as if this layer had implied it */
            erofs_imply(&child->inode);
            child->flags |= DIR_MADE;
        }
        *kept = child->flags & DIR_BARE ? NULL : child;
    } else if (name->layer != e->number) {
        erofs_unname(e, name);
    }
}

/* Names that are gone are listed no more, so that nobody meets them again. */
static int clear(struct erofs *e, struct erofs_directory *directory)
{
    struct erofs_directory *kept;
    int code;

    for (struct erofs_name **at = &directory->inode.data.names, *name; (name = *at);) {
        if (stop_asked(e->layer.limits.stop))
            return LAYER_STOPPED;
        kept = NULL;
        if (name->inode)
            unname_lower(e, name, &kept);
        if (kept && (code = push(e, kept)))
            return code;
        if (name->inode) {
            at = &name->next;
        } else {
            name->listed = 0;
            *at = name->next;
        }
    }
    return TAR_OK;
}

static int clear_all(struct erofs *e, struct erofs_directory *directory)
{
    int code = TAR_OK;

    e->pending_count = 0;
    if (!(directory->flags & DIR_BARE))
        code = push(e, directory);
    while (!code && e->pending_count)
        code = clear(e, e->pending[--e->pending_count]);
    return code;
}

/* --- a layer by itself --- */

static int put_whiteout(struct erofs *e, struct erofs_directory *directory, const char *text, size_t len)
{
    struct erofs_inode *inode;

    if (erofs_cut(directory))
        return TAR_OK;
    if (!(inode = erofs_take(e, sizeof *inode)))
        return erofs_no_memory(e);
    inode->mode = S_IFCHR;
    inode->flags = INODE_WHITEOUT;
    return erofs_name(e, directory, text, len, inode);
}

/* --- both --- */

int erofs_hide_name(struct erofs *e, struct erofs_directory *directory, const char *text, size_t len)
{
    struct erofs_name *name = erofs_find(e, directory, text, len);
    struct erofs_directory *kept = NULL, *own = name ? erofs_directory_of(name->inode) : NULL;

    if (!erofs_single(e)) {
        if (name && name->inode)
            unname_lower(e, name, &kept);
        return kept ? clear_all(e, kept) : TAR_OK;
    }
    if (own && own->flags & DIR_HOLDS)
        own->flags |= DIR_OPAQUE;
    else if (own || !name || !name->inode)
        return put_whiteout(e, directory, text, len);
    return TAR_OK;
}

int erofs_hide_all(struct erofs *e, struct erofs_directory *directory)
{
    if (!erofs_single(e))
        return clear_all(e, directory);
    directory->flags |= DIR_OPAQUE;
    if (!directory->parent)
        e->layer.facts.reasons |= REASON_OPAQUE_ROOT;
    return TAR_OK;
}
