/* From the bytes of a body to calls of the sink, the offsets of a sparse file's segments among them. */
#include "tar/body.h"

static void end_body(struct tar *tar)
{
    int code = tar->sink.entry_end(tar->ctx);

    tar->state = tar->padding ? TAR_PADDING : TAR_HEADER;
    tar->special_padding = 0;
    if (code)
        tar_fail(tar, code, 0);
}

void tar_begin_body(struct tar *tar)
{
    int code;

    tar->entry.body = tar->block_end;
    if (tar->entry.sparse) {
        tar->entry.segments = tar->segments.items;
        tar->entry.segment_count = tar->segments.count;
    }
    code = tar->sink.entry(tar->ctx, &tar->entry);
    tar->data_at = 0;
    tar->segment = 0;
    tar->segment_filled = 0;
    tar->state = TAR_BODY;
    if (code)
        tar_fail(tar, code, 0);
    else if (tar->left == 0)
        end_body(tar);
}

static int deliver_sparse(struct tar *tar, const uint8_t *data, size_t len)
{
    int code = TAR_OK;

    while (len && !code) {
        const struct tar_segment *segment = &tar->segments.items[tar->segment];
        uint64_t room = segment->length - tar->segment_filled;
        size_t part = len < room ? len : (size_t)room;
        if (part)
            code = tar->sink.data(tar->ctx, segment->offset + tar->segment_filled, data, part);
        tar->segment_filled += part;
        data += part;
        len -= part;
        if (tar->segment_filled == segment->length) {
            tar->segment++; /* the segments add up to the body, so data never runs past the last one */
            tar->segment_filled = 0;
        }
    }
    return code;
}

size_t tar_feed_body(struct tar *tar, const uint8_t *data, size_t len)
{
    size_t part = len < tar->left ? len : (size_t)tar->left;
    int code;

    if (tar->entry.sparse)
        code = deliver_sparse(tar, data, part);
    else
        code = tar->sink.data(tar->ctx, tar->data_at, data, part);
    tar->data_at += part;
    tar->left -= part;
    if (code)
        tar_fail(tar, code, 0);
    else if (tar->left == 0)
        end_body(tar);
    return part;
}

void tar_skip_body(struct tar *tar, uint64_t len)
{
    uint64_t left = tar->state == TAR_BODY && !tar->code ? tar->left : 0, part = len < left ? len : left;

    tar->position += part;
    tar->left -= part;
    tar->data_at += part;
    if (part && tar->left == 0)
        end_body(tar);
}
