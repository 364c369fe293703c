/* The content of files. A block that ends a file must be filled with zeros, since mmap shows it whole; content with anything else
 * behind it in the tar is copied behind the tar, and so are the pieces of sparse files that no chunks can point to. */
#include "erofs/data.h"

#include "erofs/arena.h"
#include "erofs/output.h"
#include "erofs/sparse.h"
#include "io/read.h"
#include "io/stop.h"

#include <errno.h>
#include <stdlib.h>

enum { WINDOW = 64 * 1024 };

static uint64_t block_size(const struct erofs *e)
{
    return UINT64_C(1) << e->block_bits;
}

static uint64_t blocks_of(const struct erofs *e, const struct erofs_inode *inode)
{
    if (inode->flags & INODE_SPARSE)
        return erofs_copied_blocks(e, inode);
    return erofs_round_up(inode->size, block_size(e)) >> e->block_bits;
}

/* The content begins at this block, whole blocks behind each other. */
static void set_block(struct erofs_inode *inode, uint64_t block)
{
    if (inode->flags & INODE_SPARSE)
        inode->data.sparse->block = block;
    else
        inode->data.block = block;
}

static void begin_writing(struct erofs *e, struct erofs_inode *inode)
{
    set_block(inode, e->next_block);
    e->next_block += blocks_of(e, inode);
    e->run = e->chunk = 0;
}

/* The next bytes of a file to its blocks. */
static int write_content(struct erofs *e, const struct erofs_inode *inode, uint64_t offset, const uint8_t *data, size_t len)
{
    const struct erofs_sparse *sparse = inode->data.sparse;
    int code = TAR_OK;

    if (!(inode->flags & INODE_SPARSE)) {
        code = erofs_seek(e, &e->output, (inode->data.block << e->block_bits) + offset);
        return code ? code : erofs_put(e, &e->output, data, len);
    }
    while (len && !code) {
        uint64_t chunk = offset >> sparse->chunk_bits, within = offset & ((UINT64_C(1) << sparse->chunk_bits) - 1);
        uint64_t room = (UINT64_C(1) << sparse->chunk_bits) - within;
        size_t part = len < room ? len : (size_t)room;
        if (e->chunk != chunk + 1) {
            e->run++;
            e->chunk = chunk + 1;
        }
        code = erofs_seek(e, &e->output, (sparse->block << e->block_bits) + ((e->run - 1) << sparse->chunk_bits) + within);
        code = code ? code : erofs_put(e, &e->output, data, part);
        offset += part;
        data += part;
        len -= part;
    }
    return code;
}

static int add_copy(struct erofs *e)
{
    struct erofs_copy *copy = erofs_take(e, sizeof *copy);

    if (!copy)
        return erofs_no_memory(e);
    *copy = e->at_hand;
    *e->last_copy = copy;
    e->last_copy = &copy->next;
    return TAR_OK;
}

int erofs_begin_file(struct erofs *e, struct erofs_inode *inode, const struct tar_entry *entry)
{
    int code = TAR_OK;

    inode->size = entry->size;
    inode->data.block = (uint64_t)EROFS_NO_BLOCK;
    e->file = inode;
    e->at_hand = (struct erofs_copy){NULL, inode, entry->body, entry->size};
    if (entry->sparse && entry->size) {
        e->at_hand.size = 0;
        for (size_t i = 0; i < entry->segment_count; i++)
            e->at_hand.size += entry->segments[i].length;
        code = erofs_set_sparse(e, inode, entry);
    } else if (entry->size) {
        inode->data.block = e->base + (entry->body >> e->block_bits);
    }
    if (code || !e->at_hand.size)
        return code;
    if (e->options.form == EROFS_4K)
        begin_writing(e, inode);
    else if (inode->flags & INODE_SPARSE && inode->data.sparse->copied)
        code = add_copy(e);
    return code;
}

int erofs_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len)
{
    struct erofs *e = ctx;

    if (!e->file) /* the body of a whiteout */
        return TAR_OK;
    if (stop_asked(e->layer.limits.stop))
        return LAYER_STOPPED;
    e->layer.facts.bytes += len;
    e->layer.work += e->file->flags & INODE_SPARSE ? WORK_SEGMENT : 0;
    return e->options.form == EROFS_4K ? write_content(e, e->file, offset, data, len) : TAR_OK;
}

int erofs_entry_end(void *ctx)
{
    return layer_worked(&((struct erofs *)ctx)->layer);
}

int erofs_padding(void *ctx, const uint8_t *data, size_t len)
{
    struct erofs *e = ctx;
    struct erofs_inode *inode = e->file;
    uint8_t all = 0;

    if (!inode || e->options.form == EROFS_4K || inode->flags & INODE_DIRTY)
        return TAR_OK;
    for (size_t i = 0; i < len; i++)
        all |= data[i];
    if (!all)
        return TAR_OK;
    inode->flags |= INODE_DIRTY;
    if (inode->flags & INODE_SPARSE) {
        if (inode->data.sparse->copied)
            return TAR_OK;
        inode->data.sparse->copied = 1;
    }
    return add_copy(e);
}

uint64_t erofs_place_copies(struct erofs *e, uint64_t tar_size)
{
    e->next_block = e->base + (erofs_round_up(tar_size, EROFS_HEAD) >> e->block_bits);
    for (struct erofs_copy *copy = e->copies; copy; copy = copy->next) {
        set_block(copy->inode, e->next_block);
        e->next_block += blocks_of(e, copy->inode);
    }
    e->next_block = erofs_round_up(e->next_block << e->block_bits, EROFS_HEAD) >> e->block_bits;
    return e->next_block;
}

/* Where a byte of the content, of all that is in the tar, lies in the file; *left: how many follow it there. */
static uint64_t offset_of(const struct erofs_copy *copy, uint64_t at, uint32_t *segment, uint64_t *before, uint64_t *left)
{
    const struct erofs_sparse *sparse = copy->inode->flags & INODE_SPARSE ? copy->inode->data.sparse : NULL;

    *left = copy->size - at;
    if (!sparse)
        return at;
    while (at - *before >= sparse->segments[*segment].length)
        *before += sparse->segments[(*segment)++].length;
    *left = sparse->segments[*segment].length - (at - *before);
    return sparse->segments[*segment].offset + (at - *before);
}

static int write_copy(struct erofs *e, const struct erofs_copy *copy, uint8_t *window)
{
    uint64_t before = 0, left;
    uint32_t segment = 0;

    e->run = e->chunk = 0;
    for (uint64_t at = 0; at < copy->size; at += left) {
        uint64_t offset = offset_of(copy, at, &segment, &before, &left);
        size_t got;
        int code;
        left = left < WINDOW ? left : WINDOW;
        if (stop_asked(e->layer.limits.stop))
            return LAYER_STOPPED;
        errno = -read_all(e->fd, window, (size_t)left, (int64_t)(EROFS_HEAD + copy->body + at), &got);
        if (errno == 0 && got < left)
            errno = EIO;
        if (errno)
            return layer_io(&e->layer);
        if ((code = write_content(e, copy->inode, offset, window, (size_t)left)))
            return code;
    }
    return TAR_OK;
}

int erofs_write_copies(struct erofs *e)
{
    uint8_t *window;
    int code = TAR_OK;

    if (!e->copies)
        return TAR_OK;
    if (!(window = malloc(WINDOW)))
        return TAR_MEMORY;
    for (const struct erofs_copy *copy = e->copies; copy && !code; copy = copy->next)
        code = write_copy(e, copy, window);
    free(window);
    return code ? code : erofs_flush(e, &e->output);
}
