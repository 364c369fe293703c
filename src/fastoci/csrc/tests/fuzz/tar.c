/* A libFuzzer target: the tar reader says the same of an archive however it is cut into windows. */
#include "fuzz/input.h"

#include "support/check.h"

static int on_entry(void *ctx, const struct tar_entry *e)
{
    uint64_t *sum = ctx, numbers[6] = {(uint64_t)e->type, e->mode, (uint64_t)e->uid, (uint64_t)e->gid, e->size, (uint64_t)e->mtime};

    *sum = mix(*sum, e->path.data, e->path.len);
    *sum = mix(*sum, e->link.data, e->link.len);
    *sum = mix(*sum, numbers, sizeof numbers);
    DEMAND(!memchr(e->path.data, 0, e->path.len) && !memchr(e->link.data, 0, e->link.len));
    DEMAND(e->mtime_ns < 1000000000 && e->mode <= 07777 && strchr("fdlhpcb", e->type));
    for (size_t i = 0; i < e->xattr_count; i++)
        *sum = mix(mix(*sum, e->xattrs[i].key.data, e->xattrs[i].key.len), e->xattrs[i].value.data, e->xattrs[i].value.len);
    return 0;
}

static int on_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len)
{
    uint64_t *sum = ctx;

    DEMAND(len > 0);
    for (size_t i = 0; i < len; i++) {
        uint64_t at = offset + i;
        *sum = mix(mix(*sum, &at, sizeof at), data + i, 1);
    }
    return 0;
}

static int on_end(void *ctx)
{
    uint64_t *sum = ctx;

    *sum = mix(*sum, "end", 3);
    return 0;
}

struct result {
    uint64_t sum, offset;
    int64_t value;
    int code;
};

/* state: of the windows; NULL: all in one. */
static struct result read_windows(const uint8_t *data, size_t len, uint64_t *state)
{
    static const struct tar_sink SINK = {on_entry, on_data, on_end, NULL};
    struct result result = {0};
    struct tar *tar = tar_new(&SINK, &result.sum);

    DEMAND(tar);
    for (size_t at = 0, size; at < len && !result.code; at += size) {
        uint8_t *piece = next_piece(data + at, len - at, state, &size);
        result.code = tar_feed(tar, piece, size);
        memset(piece, 0xDB, size); /* nothing may point there any more */
    }
    result.code = tar_finish(tar);
    DEMAND(result.code == tar_status(tar));
    result.offset = tar_offset(tar);
    result.value = tar_value(tar);
    result.sum = mix(result.sum, tar_path(tar).data, tar_path(tar).len);
    tar_free(tar);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint64_t state = mix(len, data, len);
    struct result whole, cut;

    if (len > GUARDED_MAX)
        return 0;
    whole = read_windows(data, len, NULL);
    cut = read_windows(data, len, &state);
    DEMAND(whole.code == cut.code && whole.offset == cut.offset && whole.value == cut.value && whole.sum == cut.sum);
    return 0;
}

TAR_MUTATOR
