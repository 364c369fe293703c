/* Three passes over the tree in the order of its layout: the inodes; the blocks of directories; those of long links. */
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

/* What is behind the inodes, as far as their inodes are written. */
struct outline {
    uint64_t directories, links;
    uint32_t number; /* of the inode */
};

/* Blocks of content are the devices', behind this file's own. */
static uint32_t block_of(const struct erofs *e, uint64_t block)
{
    return (uint32_t)(block == (uint64_t)EROFS_NO_BLOCK ? block : block + e->shift);
}

/* The union of an inode: where its content is. */
static uint32_t place_of(const struct erofs *e, const struct erofs_inode *inode, struct outline *outline)
{
    uint64_t block = e->outline, whole;
    const struct erofs_directory *directory = erofs_directory_of((struct erofs_inode *)inode);

    if (inode->flags & INODE_SPARSE)
        return inode->data.sparse->chunk_bits - e->block_bits;
    if (S_ISREG(inode->mode))
        return block_of(e, inode->data.block);
    if (directory) {
        (void)erofs_last_names(e, directory, &whole);
        block += outline->directories;
        outline->directories += whole + !(inode->flags & INODE_INLINE);
        return (uint32_t)block;
    }
    if (!S_ISLNK(inode->mode))
        return (uint32_t)inode->data.device;
    if (inode->flags & INODE_INLINE)
        return 0;
    block += e->directory_blocks + outline->links;
    outline->links += erofs_round_up(inode->size, UINT64_C(1) << e->block_bits) >> e->block_bits;
    return (uint32_t)block;
}

static void put_inode(const struct erofs *e, const struct erofs_inode *inode, struct outline *outline, uint8_t *out)
{
    unsigned layout = inode->flags & INODE_SPARSE ? CHUNKS : inode->flags & INODE_INLINE ? INLINE : PLAIN;
    uint32_t xattrs = erofs_xattr_size(e, inode);

    memset(out, 0, INODE_SIZE);
    put16(out, (uint16_t)(EXTENDED | layout << 1));
    put16(out + 2, (uint16_t)(xattrs ? 1 + (xattrs - XATTR_HEAD) / 4 : 0));
    put16(out + 4, inode->mode);
    put64(out + 8, inode->size);
    put32(out + 16, place_of(e, inode, outline));
    put32(out + 20, ++outline->number);
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
    code = erofs_put(e, xattrs, size);
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
        code = erofs_put(e, entry, sizeof entry);
    }
    return code;
}

/* The last names of a directory, or all of its blocks. */
static int emit_names(struct erofs *e, const struct erofs_directory *directory, int last)
{
    struct erofs_cursor cursor = erofs_first_name(directory);
    uint8_t block[BLOCK_MAX];
    uint64_t whole;
    int code = TAR_OK;

    (void)erofs_last_names(e, directory, &whole);
    for (uint64_t i = 0; last && i < whole; i++)
        (void)erofs_next_block(e, &cursor);
    if (last)
        return erofs_put(e, block, erofs_put_block(e, &cursor, block));
    whole += !(directory->inode.flags & INODE_INLINE);
    for (uint64_t i = 0; i < whole && !code; i++) {
        memset(block, 0, sizeof block);
        (void)erofs_put_block(e, &cursor, block);
        code = erofs_put(e, block, (size_t)1 << e->block_bits);
    }
    return code;
}

static int emit_inode(struct erofs *e, struct erofs_inode *inode, struct outline *outline)
{
    uint8_t out[INODE_SIZE];
    int code;

    if (inode->flags & INODE_WRITTEN)
        return TAR_OK;
    inode->flags |= INODE_WRITTEN;
    put_inode(e, inode, outline, out);
    if ((code = erofs_seek(e, e->metadata_at + (uint64_t)inode->slot * EROFS_SLOT)) || (code = erofs_put(e, out, sizeof out)) ||
        (code = emit_xattrs(e, inode)))
        return code;
    if (inode->flags & INODE_SPARSE)
        return emit_chunks(e, inode);
    if (!(inode->flags & INODE_INLINE))
        return TAR_OK;
    if (S_ISLNK(inode->mode))
        return erofs_put(e, inode->data.target, (size_t)inode->size);
    return emit_names(e, erofs_directory_of(inode), 1);
}

static int emit_inodes(struct erofs *e)
{
    struct outline outline = {0, 0, 0};
    int code = emit_inode(e, &e->root->inode, &outline);

    for (struct erofs_directory *at = e->root; at && !code; at = at->next) {
        if (stop_asked(e->layer.limits.stop))
            return LAYER_STOPPED;
        for (struct erofs_name *name = at->names; name && !code; name = name->next)
            code = emit_inode(e, name->inode, &outline);
    }
    return code;
}

static int emit_directories(struct erofs *e)
{
    int code = erofs_seek(e, e->outline << e->block_bits);

    for (const struct erofs_directory *at = e->root; at && !code; at = at->next)
        code = emit_names(e, at, 0);
    return code;
}

static int emit_links(struct erofs *e)
{
    uint64_t block = UINT64_C(1) << e->block_bits, at = (e->outline + e->directory_blocks) << e->block_bits;
    int code = TAR_OK;

    for (const struct erofs_directory *directory = e->root; e->link_blocks && directory && !code; directory = directory->next)
        for (const struct erofs_name *name = directory->names; name && !code; name = name->next) {
            struct erofs_inode *inode = name->inode;
            if (!S_ISLNK(inode->mode) || inode->flags & INODE_INLINE || !(inode->flags & INODE_WRITTEN))
                continue;
            inode->flags &= (uint16_t)~INODE_WRITTEN;
            if (!(code = erofs_seek(e, at)))
                code = erofs_put(e, inode->data.target, (size_t)inode->size);
            at += erofs_round_up(inode->size, block);
        }
    return code;
}

int erofs_emit(struct erofs *e)
{
    int code;

    if ((code = emit_inodes(e)) || (code = emit_directories(e)) || (code = emit_links(e)))
        return code;
    return erofs_flush(e);
}
