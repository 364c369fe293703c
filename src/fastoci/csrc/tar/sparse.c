/* Sparse files: where the maps of the four forms are, and when a map is right. Data is delivered by body.c.
 * Forms: old GNU (in the header and extension blocks), pax 0.0 (repeated records), 0.1 (one record), 1.0 (in front of the body). */
#include "tar/sparse.h"

#include "tar/block.h"
#include "tar/body.h"
#include "tar/pax.h"

#include <string.h>

/* Read segments of a GNU header (4 at 386) or extension block (21 at 0); *more: another extension block follows. */
static int old_segments(const uint8_t *block, size_t at, size_t slots, struct tar_segments *segments, int *more)
{
    int64_t offset, length;
    int code;

    for (size_t i = 0; i < slots && block[at + i * 24]; i++) {
        if (tar_number(block + at + i * 24, 12, &offset) || tar_number(block + at + i * 24 + 12, 12, &length) || offset < 0 || length < 0)
            return TAR_SPARSE_MAP;
        if ((code = tar_segments_add(segments, offset, length)))
            return code;
    }
    *more = block[at + slots * 24] != 0;
    return TAR_OK;
}

static int map_of_text(struct tar_bytes map, struct tar_segments *segments)
{
    const uint8_t *end;
    int64_t numbers[2];
    int code, index = 0;

    segments->count = 0;
    if (map.len == 0)
        return TAR_OK;
    end = map.data + map.len;
    for (const uint8_t *at = map.data, *comma; at <= end; at = comma + 1) {
        comma = at < end ? memchr(at, ',', (size_t)(end - at)) : NULL;
        if (!comma)
            comma = end;
        if (tar_pax_number((struct tar_bytes){at, (size_t)(comma - at)}, &numbers[index]))
            return TAR_SPARSE_MAP;
        if (index && (code = tar_segments_add(segments, numbers[0], numbers[1])))
            return code;
        index ^= 1;
    }
    return index ? TAR_SPARSE_MAP : TAR_OK;
}

static int is_text(struct tar_bytes bytes, char c)
{
    return bytes.len == 1 && bytes.data[0] == (uint8_t)c;
}

/* The map is complete and the body begins: it must fit the size, and hold as many bytes as the body. */
static void begin_sparse(struct tar *tar)
{
    uint64_t end = 0, sum = 0;

    for (size_t i = 0; i < tar->segments.count; i++) {
        const struct tar_segment *segment = &tar->segments.items[i];
        if (segment->length > tar->entry.size || segment->offset > tar->entry.size - segment->length || segment->offset < end)
            return tar_fail(tar, TAR_SPARSE_MAP, (int64_t)i);
        end = segment->offset + segment->length;
        sum += segment->length;
    }
    if (sum != tar->left)
        return tar_fail(tar, TAR_SPARSE_MAP, (int64_t)tar->segments.count);
    tar_begin_body(tar);
}

void tar_begin_old_sparse(struct tar *tar, const uint8_t *block)
{
    int64_t real;
    int code, more = 0;

    if (tar->header.format != TAR_GNU)
        return tar_fail(tar, TAR_SPARSE_VERSION, 'S');
    if (tar_number(block + 483, 12, &real))
        return tar_fail(tar, TAR_NUMBER, 483);
    if (real < 0)
        return tar_fail(tar, TAR_SIZE, real);
    tar->entry.sparse = 1;
    tar->entry.size = (uint64_t)real;
    tar->segments.count = 0;
    if ((code = old_segments(block, 386, 4, &tar->segments, &more)))
        return tar_fail(tar, code, (int64_t)tar->segments.count);
    if (more)
        tar->state = TAR_EXTENSION;
    else
        begin_sparse(tar);
}

void tar_sparse_extension(struct tar *tar, const uint8_t *block)
{
    int more, code = old_segments(block, 0, 21, &tar->segments, &more);

    if (code)
        tar_fail(tar, code, (int64_t)tar->segments.count);
    else if (!more)
        begin_sparse(tar);
}

/* Forms 0.0 and 0.1: the map is in the records. Numblocks must agree with it. */
static void begin_sparse_0(struct tar *tar)
{
    int64_t count;
    int code = TAR_OK;

    if (tar->pax.sparse_values & 1)
        code = TAR_SPARSE_MAP;
    else if (!tar->pax.sparse_values)
        code = map_of_text(tar->pax.sparse_map, &tar->segments);
    if (!code && (tar_pax_number(tar->pax.sparse_numblocks, &count) || (uint64_t)count != tar->segments.count))
        code = TAR_SPARSE_MAP;
    if (code)
        tar_fail(tar, code, (int64_t)tar->segments.count);
    else
        begin_sparse(tar);
}

/* Whether the pax records say that this is a sparse file; then name and size are theirs too. */
void tar_begin_pax_entry(struct tar *tar)
{
    const struct tar_pax *pax = &tar->pax;
    struct tar_bytes size = pax->sparse_size.len ? pax->sparse_size : pax->sparse_realsize;
    int zero = is_text(pax->sparse_major, '0') && (is_text(pax->sparse_minor, '0') || is_text(pax->sparse_minor, '1'));
    int one = is_text(pax->sparse_major, '1') && is_text(pax->sparse_minor, '0');
    int64_t real = (int64_t)tar->entry.size;

    if (!zero && !one && (pax->sparse_major.len || pax->sparse_minor.len))
        return tar_fail(tar, TAR_SPARSE_VERSION, 0);
    if (!zero && !one && !pax->sparse_map.len && !pax->sparse_values)
        return tar_begin_body(tar);
    if (tar->entry.type != 'f')
        return tar_fail(tar, TAR_SPARSE_MAP, 0);
    if (pax->sparse_name.len)
        tar->entry.path = pax->sparse_name;
    tar_apply_number(tar, size, &real);
    if (tar->code)
        return;
    tar->entry.sparse = 1;
    tar->entry.size = (uint64_t)real;
    if (!one)
        return begin_sparse_0(tar);
    tar->segments.count = 0;
    tar->map_wanted = -1;
    tar->map_number = 0;
    tar->map_digits = 0;
    if (tar->left < TAR_BLOCK)
        return tar_fail(tar, TAR_SPARSE_MAP, 0);
    tar->state = TAR_MAP;
}

/* One number of the map of form 1.0 is complete: first the count, then offset and length in turn. */
static int map_token(struct tar *tar)
{
    if (tar->map_wanted < 0) {
        if (tar->map_number > TAR_SEGMENTS_MAX)
            return tar_fail(tar, TAR_SPARSE_LIMIT, tar->map_number), -1;
        tar->map_wanted = 2 * tar->map_number;
    } else if (tar->map_wanted-- & 1) {
        int code = tar_segments_add(&tar->segments, tar->map_offset, tar->map_number);
        if (code)
            return tar_fail(tar, code, (int64_t)tar->segments.count), -1;
    } else {
        tar->map_offset = tar->map_number;
    }
    tar->map_number = 0;
    tar->map_digits = 0;
    return 0;
}

/* A block of the map of form 1.0: decimal numbers, each ended by a newline; the rest of the last block is padding. */
void tar_sparse_block(struct tar *tar, const uint8_t *block)
{
    tar->left -= TAR_BLOCK;
    for (size_t i = 0; i < TAR_BLOCK && tar->map_wanted != 0; i++) {
        uint8_t digit = (uint8_t)(block[i] - '0');
        if (block[i] == '\n' && tar->map_digits) {
            if (map_token(tar))
                return;
            continue;
        }
        if (digit > 9 || tar->map_number > (INT64_MAX - digit) / 10)
            return tar_fail(tar, TAR_SPARSE_MAP, (int64_t)tar->segments.count);
        tar->map_number = tar->map_number * 10 + digit;
        tar->map_digits = 1;
    }
    if (tar->map_wanted == 0)
        begin_sparse(tar);
    else if (tar->left < TAR_BLOCK)
        tar_fail(tar, TAR_SPARSE_MAP, (int64_t)tar->segments.count);
}
