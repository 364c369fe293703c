/* A libFuzzer target: gzip over ISA-L and zstd over libzstd give the same content, consume no more than there is and write
 * no more than there is room, however input and output are cut; and gzip gives what zlib does. The first byte says which of
 * the two it is. Half of the mutants are whole again: their content was mutated, and zlib made members of it. */
#include "fuzz/input.h"

#include "inflate/context.h"
#include "inflate/inflate.h"

#include <zlib.h>

enum { CONTENT_MAX = 4 << 20, WINDOW_FREE = 1 << 20, WINDOW_MAX = 16 << 20 };

struct result {
    uint64_t made, consumed;
    enum inflate_code code;
    int stopped; /* there is more than is looked at */
};

static uint8_t content[CONTENT_MAX]; /* of the first run, */
static uint64_t content_size;        /* and how much of it */

static enum inflate_format format_of(const uint8_t *data)
{
    return data[0] == 0x28 || data[0] >> 4 == 5 ? INFLATE_ZSTD : INFLATE_GZIP;
}

/* One call, and what holds after each. */
static enum inflate_code step(struct inflate *self, enum inflate_format format, const uint8_t *source, size_t size, size_t *consumed,
                              uint8_t *out, size_t room, size_t *produced)
{
    enum inflate_code code = inflate_run(self, source, size, consumed, out, room, produced);

    DEMAND(*consumed <= size && *produced <= room);
    DEMAND(code || *consumed || *produced || size == 0 || inflate_demanded(self));
    if (format == INFLATE_ZSTD)
        DEMAND(self->zstd.held <= self->zstd.window + INFLATE_OVERHEAD);
    if (code == INFLATE_OK && inflate_demanded(self)) {
        size_t none = 1;
        if (inflate_demanded(self) > WINDOW_MAX)
            return inflate_run(self, source, 0, &none, out, 0, &none);
        inflate_allow(self, inflate_demanded(self));
        DEMAND(!inflate_demanded(self));
        return inflate_run(self, source, 0, &none, out, 0, &none);
    }
    return code;
}

/* Note or compare what was made. Before an error, one run may make more than the other. */
static void check_output(struct result *result, const uint8_t *out, size_t produced, int first)
{
    uint64_t same = result->made < content_size ? content_size - result->made : 0;

    if (result->made + produced > CONTENT_MAX) {
        result->stopped = 1;
        return;
    }
    if (first)
        memcpy(content + result->made, out, produced);
    else
        DEMAND(memcmp(content + result->made, out, produced < same ? produced : same) == 0);
    result->made += produced;
    if (first)
        content_size = result->made;
}

/* state: of the windows; NULL: all input in one, and much room. */
static struct result decode(const uint8_t *data, size_t len, uint64_t *state)
{
    static uint8_t *source_area, *out_area;
    struct inflate *self = inflate_new(format_of(data), WINDOW_FREE);
    struct result result = {0};
    size_t at = 0, window = 0, used = 0;

    DEMAND(self);
    while (!result.code && !result.stopped) {
        size_t room = state ? next_window(state, 70000) : 1 << 18, consumed, produced;
        uint8_t *source, *out = guarded(&out_area, room);

        if (used == window) { /* the next piece of input, once this one is used up */
            at += used, used = 0;
            window = state ? next_window(state, 3000) : len;
            window = window < len - at ? window : len - at;
        }
        source = memcpy(guarded(&source_area, window - used), data + at + used, window - used);
        result.code = step(self, format_of(data), source, window - used, &consumed, out, room, &produced);
        memset(source, 0xDB, window - used);
        used += consumed;
        check_output(&result, out, produced, !state);
        if (at + used == len && produced < room && !result.code)
            break;
    }
    if (!result.code && !result.stopped)
        result.code = inflate_finish(self);
    result.consumed = at + used;
    inflate_free(self);
    return result;
}

/* All members by zlib, into room bytes: what they give, or -1 when they are not whole or too much. */
static int64_t by_zlib(const uint8_t *data, size_t len, uint8_t *out, size_t room)
{
    z_stream stream = {.next_in = (uint8_t *)(uintptr_t)data, .avail_in = (unsigned)len, .next_out = out, .avail_out = (unsigned)room};
    int status;

    DEMAND(inflateInit2(&stream, 16 + MAX_WBITS) == Z_OK);
    while ((status = inflate(&stream, Z_FINISH)) == Z_STREAM_END && stream.avail_in)
        DEMAND(inflateReset(&stream) == Z_OK);
    DEMAND(inflateEnd(&stream) == Z_OK);
    return status == Z_STREAM_END ? stream.next_out - out : -1;
}

/* What is whole to zlib is whole to us, and the same. */
static void compare_with_zlib(const uint8_t *data, size_t len, const struct result *ours)
{
    static uint8_t out[CONTENT_MAX];
    int64_t size = by_zlib(data, len, out, sizeof out);

    DEMAND((size >= 0) == (ours->code == INFLATE_OK));
    if (size >= 0)
        DEMAND((uint64_t)size == ours->made && !memcmp(out, content, ours->made));
}

/* One member of all kinds: levels, strategies, stored and small blocks. 0: there is no room for it. */
static size_t put_member(uint8_t *out, size_t room, const uint8_t *body, size_t size, uint64_t *state)
{
    z_stream stream = {.next_in = (uint8_t *)(uintptr_t)body, .avail_in = (unsigned)size, .next_out = out, .avail_out = (unsigned)room};
    int level = (int)next_window(state, 10) - 1, memory = (int)next_window(state, 9), strategy = (int)next_window(state, 5) - 1;
    int status;

    DEMAND(deflateInit2(&stream, level, Z_DEFLATED, 16 + MAX_WBITS, memory, strategy) == Z_OK);
    status = deflate(&stream, Z_FINISH);
    deflateEnd(&stream);
    return status == Z_STREAM_END ? (size_t)(stream.next_out - out) : 0;
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed)
{
    static uint8_t body[1 << 20];
    uint64_t state = seed;
    int64_t size = len && seed % 2 ? by_zlib(data, len, body, sizeof body) : -1;
    size_t made, at = 0, part;

    if (size < 0)
        return LLVMFuzzerMutate(data, len, max);
    size = (int64_t)LLVMFuzzerMutate(body, (size_t)size, sizeof body);
    for (made = 0; !made || at < (size_t)size; at += part) { /* mostly one member */
        part = (size_t)size - at;
        if (part && next_window(&state, 4) == 1)
            part = next_window(&state, part);
        size_t member = put_member(data + made, max - made, body + at, part, &state);
        if (!member)
            break;
        made += member;
    }
    return made ? made : LLVMFuzzerMutate(data, len, max);
}

static void bind_decoders(void)
{
    static int done;

    if (!done && (inflate_bind(INFLATE_GZIP, "libisal.so.2") || inflate_bind(INFLATE_ZSTD, "libzstd.so.1"))) {
        fprintf(stderr, "needs libisal.so.2 and libzstd.so.1 (Debian: libisal2, libzstd1)\n");
        exit(1);
    }
    done = 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint64_t state = mix(len, data, len);
    struct result whole, cut;
    int fd = next_fd();

    bind_decoders();
    if (len < 1 || len > GUARDED_MAX)
        return 0;
    content_size = 0;
    whole = decode(data, len, NULL);
    cut = decode(data, len, &state);
    DEMAND(fd == next_fd());
    if (whole.stopped || cut.stopped)
        return 0;
    DEMAND(whole.code == cut.code);
    if (whole.code == INFLATE_OK)
        DEMAND(whole.made == cut.made && whole.consumed == len && cut.consumed == len);
    if (format_of(data) == INFLATE_GZIP)
        compare_with_zlib(data, len, &whole);
    return 0;
}
