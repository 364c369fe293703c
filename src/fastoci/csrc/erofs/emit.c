/* One pass over the tree in the order of its layout, to two places: inodes, and the blocks behind all of them. */
#include "erofs/emit.h"

#include "erofs/layout.h"
#include "erofs/names.h"
#include "erofs/output.h"
#include "erofs/put.h"
#include "erofs/sparse.h"
#include "erofs/tree.h"
#include "erofs/xattr.h"
#include "io/stop.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { EXTENDED = 1, PLAIN = 0, INLINE = 2, CHUNKS = 4, BLOCK_MAX = 4096 };

/* How far the pass is: the number of the inode, and the next block behind all of them. */
struct progress {
    uint32_t number;
    uint64_t block;
};

/* Blocks of content are the devices', behind this file's own. */
static uint32_t block_of(const struct erofs *e, uint64_t block)
{
    return (uint32_t)(block == (uint64_t)EROFS_NO_BLOCK ? block : block + e->shift);
}

/* The union of an inode: where its content is. */
static uint32_t place_of(const struct erofs *e, const struct erofs_inode *inode, const struct progress *progress)
{
    if (inode->flags & INODE_SPARSE)
        return inode->data.sparse->chunk_bits - e->block_bits;
    if (S_ISREG(inode->mode))
        return block_of(e, inode->data.block);
    if (S_ISDIR(inode->mode) || S_ISLNK(inode->mode))
        return (uint32_t)progress->block;
    return (uint32_t)inode->data.device;
}

static void put_inode(const struct erofs *e, const struct erofs_inode *inode, struct progress *progress, uint8_t *out)
{
    unsigned layout = inode->flags & INODE_SPARSE ? CHUNKS : inode->flags & INODE_INLINE ? INLINE : PLAIN;
    uint32_t xattrs = erofs_xattr_size(e, inode);

    memset(out, 0, INODE_SIZE);
    put16(out, (uint16_t)(EXTENDED | layout << 1));
    put16(out + 2, (uint16_t)(xattrs ? 1 + (xattrs - XATTR_HEAD) / 4 : 0));
    put16(out + 4, inode->mode);
    put64(out + 8, inode->size);
    put32(out + 16, place_of(e, inode, progress));
    put32(out + 20, ++progress->number);
    put32(out + 24, inode->uid);
    put32(out + 28, inode->gid);
    put64(out + 32, (uint64_t)inode->mtime);
    put32(out + 40, inode->mtime_ns);
    put32(out + 44, inode->links);
}

static int emit_xattrs(struct erofs *e, const struct erofs_inode *inode)
{
    uint32_t size = erofs_xattr_size(e, inode);
    uint8_t *xattrs;
    int code;

    if (!size)
        return TAR_OK;
    if (!(xattrs = malloc(size)))
        return TAR_MEMORY;
    erofs_put_xattrs(e, inode, xattrs);
    code = erofs_put(e, &e->output, xattrs, size);
    free(xattrs);
    return code;
}

static int emit_chunks(struct erofs *e, const struct erofs_inode *inode)
{
    struct erofs_chunks chunks = {inode, 0, 0, 0};
    uint64_t count = erofs_chunk_count(inode);
    uint8_t entry[4];
    int code = TAR_OK;

    for (uint64_t i = 0; i < count && !code; i++) {
        put32(entry, block_of(e, erofs_next_chunk(e, &chunks, i)));
        code = erofs_put(e, &e->output, entry, sizeof entry);
    }
    return code;
}

/* Put something behind all inodes, and zeros up to the next block. */
static int emit_outline(struct erofs *e, const void *data, size_t len, struct progress *progress)
{
    uint64_t block = UINT64_C(1) << e->block_bits;
    int code = erofs_seek(e, &e->outline, progress->block << e->block_bits);

    progress->block += erofs_round_up(len, block) >> e->block_bits;
    return code ? code : erofs_put(e, &e->outline, data, len);
}

/* The blocks of a directory: the last is behind its inode, if it fits there. */
static int emit_names(struct erofs *e, const struct erofs_directory *directory, struct progress *progress)
{
    struct erofs_cursor cursor = erofs_first_name(directory);
    uint64_t whole = erofs_whole_blocks(e, directory);
    uint8_t block[BLOCK_MAX];
    size_t used;
    int code = TAR_OK;

    for (uint64_t i = 0; i < whole && !code; i++) {
        used = erofs_put_block(e, &cursor, block);
        memset(block + used, 0, sizeof block - used);
        code = emit_outline(e, block, (size_t)1 << e->block_bits, progress);
    }
    used = erofs_put_block(e, &cursor, block);
    if (code)
        return code;
    return directory->inode.flags & INODE_INLINE ? erofs_put(e, &e->output, block, used) : emit_outline(e, block, used, progress);
}

static int emit_inode(struct erofs *e, struct erofs_inode *inode, struct progress *progress)
{
    uint8_t out[INODE_SIZE];
    int code;

    if (inode->flags & INODE_WRITTEN)
        return TAR_OK;
    inode->flags |= INODE_WRITTEN;
    put_inode(e, inode, progress, out);
    if ((code = erofs_seek(e, &e->output, e->metadata_at + (uint64_t)inode->slot * EROFS_SLOT)) ||
        (code = erofs_put(e, &e->output, out, sizeof out)) || (code = emit_xattrs(e, inode)))
        return code;
    if (S_ISDIR(inode->mode))
        return emit_names(e, erofs_directory_of(inode), progress);
    if (inode->flags & INODE_SPARSE)
        return emit_chunks(e, inode);
    if (inode->flags & INODE_INLINE)
        return erofs_put(e, &e->output, inode->data.target, (size_t)inode->size);
    return S_ISLNK(inode->mode) ? emit_outline(e, inode->data.target, (size_t)inode->size, progress) : TAR_OK;
}

int erofs_emit(struct erofs *e)
{
    struct progress progress = {0, e->outline_at};
    int code = emit_inode(e, &e->root->inode, &progress);

    for (struct erofs_directory *at = e->root; at && !code; at = at->next) {
        if (stop_asked(e->layer.limits.stop))
            return LAYER_STOPPED;
        for (struct erofs_name *name = at->inode.data.names; name && !code; name = name->next)
            code = emit_inode(e, name->inode, &progress);
    }
    if (code || (code = erofs_flush(e, &e->output)))
        return code;
    return erofs_flush(e, &e->outline);
}
