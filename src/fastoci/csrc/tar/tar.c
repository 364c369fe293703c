/* The tar reader's state machine: it cuts the stream into blocks, bodies and padding, and applies extensions to headers.
 *
 * Invariant: the same number decides how far a body is read and where the next header is expected, and it is the pax size
 * whenever there is one; types without a body never have one, whatever their size field says. Positions only grow by bytes
 * that were really consumed, so no size can overflow them. */
#include "tar/tar.h"

#include "tar/block.h"
#include "tar/body.h"
#include "tar/context.h"
#include "tar/entry.h"
#include "tar/pax.h"
#include "tar/sparse.h"

#include <stdlib.h>
#include <string.h>

struct tar *tar_new(const struct tar_sink *sink, void *ctx)
{
    struct tar *tar = calloc(1, sizeof *tar);

    if (tar) {
        tar->sink = *sink;
        tar->ctx = ctx;
    }
    return tar;
}

void tar_free(struct tar *tar)
{
    if (!tar)
        return;
    free(tar->pax_text.data);
    free(tar->long_name.data);
    free(tar->long_link.data);
    free(tar->xattrs.items);
    free(tar->segments.items);
    free(tar);
}

int tar_status(const struct tar *tar)
{
    return tar->code;
}

uint64_t tar_offset(const struct tar *tar)
{
    return tar->header_at;
}

int64_t tar_value(const struct tar *tar)
{
    return tar->value;
}

struct tar_bytes tar_path(const struct tar *tar)
{
    return tar->entry.path;
}

int tar_ended(const struct tar *tar)
{
    return tar->state == TAR_END;
}

uint64_t tar_body_left(const struct tar *tar)
{
    return tar->state == TAR_BODY && !tar->code ? tar->left : 0;
}

void tar_skip(struct tar *tar, uint64_t len)
{
    tar_skip_body(tar, len);
}

static int pending(const struct tar *tar)
{
    return tar->pax_text.set || tar->long_name.set || tar->long_link.set;
}

/* --- special headers --- */

static void end_special(struct tar *tar)
{
    int code;

    tar->state = tar->padding ? TAR_PADDING : TAR_HEADER;
    tar->special_padding = 1;
    if (tar->special && tar->special != &tar->pax_text)
        return;
    /* A global header is only checked: Go, which the runtimes are written in, does not apply it. */
    code = tar_pax_parse(tar->pax_text.data, tar->pax_text.len, &tar->pax, &tar->xattrs, &tar->segments, &tar->value);
    if (code)
        tar_fail(tar, code, tar->value);
}

static void begin_special(struct tar *tar)
{
    struct tar_buffer *target = &tar->pax_text;

    if (tar->header.type == 'L')
        target = &tar->long_name;
    else if (tar->header.type == 'K')
        target = &tar->long_link;
    if (tar_set_size(tar, tar->header.size))
        return;
    if (tar->left > TAR_SPECIAL_MAX)
        return tar_fail(tar, TAR_SPECIAL_SIZE, tar->header.size);
    if (tar->header.type == 'g') {
        if (pending(tar))
            return tar_fail(tar, TAR_DANGLING, 'g');
        tar->special = NULL;
    } else {
        tar->special = target;
        target->set = 1;
    }
    target->len = 0;
    tar->state = TAR_SPECIAL;
    if (tar->left == 0)
        end_special(tar);
}

/* Memory follows the bytes that arrive, not the size that is declared. */
static size_t special(struct tar *tar, const uint8_t *data, size_t len)
{
    struct tar_buffer *target = tar->special ? tar->special : &tar->pax_text;
    size_t part = len < tar->left ? len : (size_t)tar->left;

    if (target->len + part > target->capacity) {
        size_t wanted = target->capacity ? target->capacity : 1024;
        uint8_t *bigger;
        while (wanted < target->len + part)
            wanted *= 2;
        if (!(bigger = realloc(target->data, wanted)))
            return tar_fail(tar, TAR_MEMORY, 0), len;
        target->data = bigger;
        target->capacity = wanted;
    }
    memcpy(target->data + target->len, data, part);
    target->len += part;
    tar->left -= part;
    if (tar->left == 0)
        end_special(tar);
    return part;
}

/* --- blocks --- */

static int is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, TAR_BLOCK - 1) == 0;
}

static void zero_block(struct tar *tar)
{
    if (!tar->zero_seen) {
        tar->zero_seen = 1;
        return;
    }
    if (pending(tar))
        return tar_fail(tar, TAR_DANGLING, 0);
    tar->state = TAR_END;
}

static void header(struct tar *tar, const uint8_t *block)
{
    int code;
    int64_t value = 0;

    if (is_zero(block))
        return zero_block(tar);
    memset(&tar->entry, 0, sizeof tar->entry);
    if (tar->zero_seen)
        return tar_fail(tar, TAR_LONE_ZERO, 0);
    if ((code = tar_block_decode(block, &tar->header, &value)))
        return tar_fail(tar, code, value);
    tar->entry.path = (struct tar_bytes){tar->header.name, tar->header.name_len};
    if (tar->header.type && strchr("xgLK", tar->header.type))
        begin_special(tar);
    else
        tar_begin_entry(tar, block);
}

static size_t block(struct tar *tar, const uint8_t *data, size_t len)
{
    const uint8_t *whole = data;
    size_t used = TAR_BLOCK;

    if (tar->have || len < TAR_BLOCK) {
        used = TAR_BLOCK - tar->have < len ? TAR_BLOCK - tar->have : len;
        memcpy(tar->block + tar->have, data, used);
        tar->have += used;
        if (tar->have < TAR_BLOCK)
            return used;
        tar->have = 0;
        whole = tar->block;
    }
    tar->block_end = tar->position + used;
    if (tar->state == TAR_HEADER) {
        tar->header_at = tar->block_end - TAR_BLOCK;
        header(tar, whole);
    } else if (tar->state == TAR_EXTENSION) {
        tar_sparse_extension(tar, whole);
    } else {
        tar_sparse_block(tar, whole);
    }
    return used;
}

static size_t padding(struct tar *tar, const uint8_t *data, size_t len)
{
    size_t part = len < tar->padding ? len : tar->padding;
    int code = tar->sink.padding && !tar->special_padding ? tar->sink.padding(tar->ctx, data, part) : TAR_OK;

    tar->padding -= (uint32_t)part;
    if (tar->padding == 0)
        tar->state = TAR_HEADER;
    if (code)
        tar_fail(tar, code, 0);
    return part;
}

int tar_feed(struct tar *tar, const uint8_t *data, size_t len)
{
    while (len && !tar->code && tar->state != TAR_END) {
        size_t used;
        if (tar->state == TAR_BODY)
            used = tar_feed_body(tar, data, len);
        else if (tar->state == TAR_PADDING)
            used = padding(tar, data, len);
        else if (tar->state == TAR_SPECIAL)
            used = special(tar, data, len);
        else
            used = block(tar, data, len);
        tar->position += used;
        data += used;
        len -= used;
    }
    return tar->code;
}

int tar_finish(struct tar *tar)
{
    if (tar->code || tar->state == TAR_END)
        return tar->code;
    if ((tar->state != TAR_HEADER && tar->state != TAR_PADDING) || tar->have) {
        if (tar->state == TAR_HEADER)
            tar->header_at = tar->position - tar->have;
        tar_fail(tar, TAR_TRUNCATED, (int64_t)tar->position);
    } else if (pending(tar)) {
        tar_fail(tar, TAR_DANGLING, 0);
    } else {
        tar->state = TAR_END;
    }
    return tar->code;
}
