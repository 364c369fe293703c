/* A sparse file points into the tar when its pieces begin and end at chunks and lie in the tar at blocks. Else whole chunks are copied
 * behind the tar. Tables are bounded by what there is of content: chunks grow with the file. */
#include "erofs/sparse.h"

#include "erofs/arena.h"

#include <string.h>

enum { CHUNKS_MAX = 1 << 20, CHUNKS_FREE = 1 << 16, CHUNK_BYTES = 16, BITS_MAX = 30 };

static uint64_t end_of(const struct tar_segment *segment)
{
    return segment->offset + segment->length;
}

/* Without empty pieces, and with those together that belong together. */
static void keep(struct erofs_sparse *sparse, const struct tar_entry *entry)
{
    for (size_t i = 0; i < entry->segment_count; i++) {
        const struct tar_segment *segment = &entry->segments[i];
        struct tar_segment *last = sparse->count ? &sparse->segments[sparse->count - 1] : NULL;
        if (!segment->length)
            continue;
        if (last && end_of(last) == segment->offset)
            last->length += segment->length;
        else
            sparse->segments[sparse->count++] = *segment;
    }
}

/* The largest chunk, in bits, that pieces begin and end at. */
static unsigned alignment(const struct erofs_sparse *sparse, uint64_t size)
{
    uint64_t all = UINT64_C(1) << BITS_MAX;

    for (uint32_t i = 0; i < sparse->count; i++) {
        const struct tar_segment *segment = &sparse->segments[i];
        all |= segment->offset;
        if (end_of(segment) != size)
            all |= end_of(segment);
    }
    return (unsigned)__builtin_ctzll(all);
}

static uint64_t chunks_of(uint64_t size, unsigned bits)
{
    return (size >> bits) + ((size & ((UINT64_C(1) << bits) - 1)) != 0);
}

/* How many chunks a table may have: few when there is little content, since holes cost an archive nothing. */
static uint64_t most_chunks(const struct erofs_sparse *sparse)
{
    uint64_t bytes = 0, most;

    for (uint32_t i = 0; i < sparse->count; i++)
        bytes += sparse->segments[i].length;
    most = CHUNKS_FREE + bytes / CHUNK_BYTES;
    return most < CHUNKS_MAX ? most : CHUNKS_MAX;
}

int erofs_set_sparse(struct erofs *e, struct erofs_inode *inode, const struct tar_entry *entry)
{
    struct erofs_sparse *sparse = erofs_take(e, sizeof *sparse + entry->segment_count * sizeof *entry->segments);
    unsigned bits = e->block_bits;
    uint64_t most;

    if (!sparse)
        return erofs_no_memory(e);
    keep(sparse, entry);
    most = most_chunks(sparse);
    sparse->body = entry->body;
    sparse->block = e->base + (entry->body >> e->block_bits);
    sparse->chunk_bits = (uint8_t)alignment(sparse, entry->size);
    sparse->copied = e->options.form == EROFS_4K;
    if (sparse->chunk_bits < bits || chunks_of(entry->size, sparse->chunk_bits) > most) {
        sparse->copied = 1;
        while (bits < BITS_MAX && chunks_of(entry->size, bits) > most)
            bits++;
        sparse->chunk_bits = (uint8_t)bits;
    }
    if (chunks_of(entry->size, sparse->chunk_bits) > most)
        return layer_bad(&e->layer, LAYER_SPARSE, (int64_t)entry->size);
    inode->data.sparse = sparse;
    inode->flags |= INODE_SPARSE;
    return TAR_OK;
}

uint64_t erofs_chunk_count(const struct erofs_inode *inode)
{
    return chunks_of(inode->size, inode->data.sparse->chunk_bits);
}

/* Pieces of one chunk, and those that lie in several, count each chunk once. */
uint64_t erofs_copied_blocks(const struct erofs *e, const struct erofs_inode *inode)
{
    const struct erofs_sparse *sparse = inode->data.sparse;
    uint64_t chunks = 0, next = 0;

    for (uint32_t i = 0; i < sparse->count; i++) {
        uint64_t first = sparse->segments[i].offset >> sparse->chunk_bits, end = chunks_of(end_of(&sparse->segments[i]), sparse->chunk_bits);
        first = first < next ? next : first;
        chunks += end > first ? end - first : 0;
        next = end > next ? end : next;
    }
    return chunks << (sparse->chunk_bits - e->block_bits);
}

uint64_t erofs_next_chunk(const struct erofs *e, struct erofs_chunks *chunks, uint64_t chunk)
{
    const struct erofs_sparse *sparse = chunks->inode->data.sparse;
    uint64_t from = chunk << sparse->chunk_bits, block;
    const struct tar_segment *segment;

    while (chunks->segment < sparse->count && end_of(&sparse->segments[chunks->segment]) <= from)
        chunks->before += sparse->segments[chunks->segment++].length;
    segment = &sparse->segments[chunks->segment];
    if (chunks->segment == sparse->count || segment->offset >> sparse->chunk_bits > chunk)
        return (uint64_t)EROFS_NO_BLOCK;
    block = sparse->copied ? chunks->run << (sparse->chunk_bits - e->block_bits)
                           : (chunks->before + (from - segment->offset)) >> e->block_bits;
    chunks->run++;
    return sparse->block + block;
}
