/* Directories in the order of their depth; the inodes of one lie beside each other. What lies behind an inode, the text of a link or a
 * directory's last names, is in one block with it, or else all of it is in blocks behind the inodes. */
#include "erofs/layout.h"

#include "erofs/names.h"
#include "erofs/sort.h"
#include "erofs/sparse.h"
#include "erofs/tree.h"
#include "erofs/xattr.h"
#include "io/stop.h"

#include <sys/stat.h>

/* The last block is never empty. */
uint64_t erofs_whole_blocks(const struct erofs *e, const struct erofs_directory *directory)
{
    return (directory->inode.size - 1) >> e->block_bits;
}

/* Bytes of the names in the last block of a directory, and in *whole the blocks before it. */
static size_t last_names(const struct erofs *e, const struct erofs_directory *directory, uint64_t *whole)
{
    struct erofs_cursor cursor = erofs_first_name(directory);
    size_t used, last = 0;

    for (*whole = 0; (used = erofs_next_block(e, &cursor)); last = used)
        *whole += last != 0;
    return last;
}

/* A name that shows nothing: of nobody; or where lower layers are hidden anyway, what only hides them. */
static int is_idle(const struct erofs_directory *directory, const struct erofs_name *name)
{
    const struct erofs_directory *child = erofs_directory_of(name->inode);

    if (!name->inode)
        return 1;
    return directory->flags & DIR_CUT && (name->inode->flags & INODE_WHITEOUT || (child && !(child->flags & DIR_HOLDS)));
}

static void drop_idle(struct erofs *e, struct erofs_directory *directory)
{
    for (struct erofs_name **at = &directory->inode.data.names, *name; (name = *at);) {
        struct erofs_directory *child = erofs_directory_of(name->inode);
        if (erofs_single(e) && is_idle(directory, name)) {
            *at = name->next;
            continue;
        }
        if (!name->inode) {
            *at = name->next;
            continue;
        }
        if (name->inode->flags & INODE_WHITEOUT)
            directory->flags |= DIR_WHITEOUTS;
        if (erofs_single(e) && child && !(child->flags & DIR_HOLDS))
            e->layer.facts.reasons |= REASON_WHITEOUT;
        at = &name->next;
    }
}

/* Sort a directory and measure it: the bytes behind its inode. */
static int place_directory(struct erofs *e, struct erofs_directory *directory, size_t head, size_t *tail)
{
    size_t block = (size_t)1 << e->block_bits;
    uint64_t whole;

    *tail = last_names(e, directory, &whole);
    directory->inode.size = (whole << e->block_bits) + *tail;
    directory->inode.links = 2;
    if (head + *tail <= block) {
        directory->inode.flags |= INODE_INLINE;
    } else {
        *tail = 0;
        whole++;
    }
    e->outline_count += whole;
    if (e->last_directory)
        e->last_directory->next = directory;
    e->last_directory = directory;
    return TAR_OK;
}

static int prepare(struct erofs *e, struct erofs_directory *directory)
{
    if (directory->flags & DIR_OPAQUE || (directory->parent && directory->parent->flags & DIR_CUT))
        directory->flags |= DIR_CUT;
    drop_idle(e, directory);
    return erofs_sort(e, directory);
}

/* The bytes behind an inode that is not a directory. */
static size_t tail_of(struct erofs *e, struct erofs_inode *inode, size_t head)
{
    size_t block = (size_t)1 << e->block_bits;

    if (inode->flags & INODE_SPARSE) {
        e->chunked = 1;
        return (size_t)(4 * erofs_chunk_count(inode));
    }
    if (!S_ISLNK(inode->mode))
        return 0;
    if (head + inode->size <= block) {
        inode->flags |= INODE_INLINE;
        return (size_t)inode->size;
    }
    e->outline_count += erofs_round_up(inode->size, block) >> e->block_bits;
    return 0;
}

/* Give an inode its place, unless it has one by another name. */
static int place(struct erofs *e, struct erofs_inode *inode)
{
    struct erofs_directory *directory = erofs_directory_of(inode);
    uint64_t at = e->slots * EROFS_SLOT, block = UINT64_C(1) << e->block_bits;
    size_t head, tail;
    int code;

    inode->links++;
    if (inode->flags & INODE_PLACED)
        return TAR_OK;
    inode->flags |= INODE_PLACED;
    if (directory && (code = prepare(e, directory)))
        return code;
    head = INODE_SIZE + erofs_xattr_size(e, inode);
    if (!directory)
        tail = tail_of(e, inode, head);
    else if ((code = place_directory(e, directory, head, &tail)))
        return code;
    if (inode->flags & INODE_INLINE && at % block + head + tail > block)
        at = erofs_round_up(at, block);
    inode->slot = (uint32_t)(at / EROFS_SLOT);
    e->slots = erofs_round_up(at + head + tail, EROFS_SLOT) / EROFS_SLOT;
    e->inodes++;
    return e->slots <= UINT32_MAX ? TAR_OK : layer_bad(&e->layer, LAYER_FILE_SIZE, INT64_MAX);
}

int erofs_lay_out(struct erofs *e, uint64_t metadata_at)
{
    unsigned bits = e->block_bits;
    int code;

    erofs_tree_seal(e);
    e->slots = EROFS_FIRST_SLOT;
    code = place(e, &e->root->inode);
    for (struct erofs_directory *at = e->root; at && !code; at = at->next) {
        if (stop_asked(e->layer.limits.stop))
            return LAYER_STOPPED;
        for (struct erofs_name *name = at->inode.data.names; name && !code; name = name->next) {
            at->inode.links += erofs_directory_of(name->inode) != NULL;
            code = place(e, name->inode);
        }
    }
    e->metadata_at = metadata_at;
    e->outline_at = erofs_round_up(metadata_at + e->slots * EROFS_SLOT, UINT64_C(1) << bits) >> bits;
    e->file_size = erofs_round_up((e->outline_at + e->outline_count) << bits, EROFS_HEAD);
    return code;
}
