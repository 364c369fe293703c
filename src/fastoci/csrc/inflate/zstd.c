/* libzstd in memory of its own, which is bounded by what was allowed. The head of a frame is gathered and read here, so
 * that the window it demands is known before libzstd allocates it.
 * Spec: RFC 8878 section 3.1.1.1 (frame headers), 3.1.2 (skippable frames); dictionaries and the formats before 1.0 are
 * refused. */
#include "inflate/zstd.h"

#include <string.h>
#include <sys/mman.h>

#define ZSTD_WINDOW_LOG_MAX 100
#define ZSTD_ERROR_MEMORY 64

struct zstd_in { const void *src; size_t size, pos; };
struct zstd_out { void *dst; size_t size, pos; };
struct zstd_memory { void *(*alloc)(void *, size_t); void (*free)(void *, void *); void *ctx; };

static struct {
    void *(*create)(struct zstd_memory);
    size_t (*free)(void *);
    size_t (*set)(void *, int, int);
    size_t (*run)(void *, struct zstd_out *, struct zstd_in *);
    unsigned (*is_error)(size_t);
} zstd;

int zstd_bind(void *library)
{
    return inflate_find(library, "ZSTD_createDCtx_advanced", &zstd.create) && inflate_find(library, "ZSTD_freeDCtx", &zstd.free) &&
           inflate_find(library, "ZSTD_DCtx_setParameter", &zstd.set) &&
           inflate_find(library, "ZSTD_decompressStream", &zstd.run) && inflate_find(library, "ZSTD_isError", &zstd.is_error);
}

/* Mapped, not from malloc, which would keep a window after it was freed. The size is kept before the memory. */
enum { MEMORY_HEAD = 64 };

static void *take_memory(void *ctx, size_t size)
{
    struct inflate_zstd *self = ctx;
    uint8_t *memory;

    if (size > self->window + INFLATE_OVERHEAD - self->held)
        return NULL;
    memory = mmap(NULL, size + MEMORY_HEAD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    memcpy(memory, &size, sizeof size);
    self->held += size;
    return memory + MEMORY_HEAD;
}

static void give_memory(void *ctx, void *pointer)
{
    struct inflate_zstd *self = ctx;
    uint8_t *memory = pointer;
    size_t size;

    if (!memory)
        return;
    memory -= MEMORY_HEAD;
    memcpy(&size, memory, sizeof size);
    self->held -= size;
    munmap(memory, size + MEMORY_HEAD);
}

static uint64_t number(const uint8_t *bytes, size_t size)
{
    uint64_t value = 0;

    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

static int is_frame(const uint8_t *head)
{
    return number(head, 4) == 0xFD2FB528;
}

static int is_skippable(const uint8_t *head)
{
    return (number(head, 4) & 0xFFFFFFF0) == 0x184D2A50;
}

/* The size of a head, of which the first five bytes are there. */
static size_t head_size(const uint8_t *head)
{
    static const size_t DICTIONARY[4] = {0, 1, 2, 4}, CONTENT[4] = {0, 2, 4, 8};
    int single = head[4] >> 5 & 1;

    if (!is_frame(head))
        return 5;
    return 5 + !single + DICTIONARY[head[4] & 3] + (single && head[4] < 0x40 ? 1 : CONTENT[head[4] >> 6]);
}

/* Bytes of window that a frame with this head demands. */
static uint64_t head_window(const uint8_t *head, size_t size)
{
    static const size_t CONTENT[4] = {1, 2, 4, 8};
    size_t content = CONTENT[head[4] >> 6];
    uint64_t base;

    if (head[4] >> 5 & 1) /* a single segment: all of the content */
        return number(head + size - content, content) + (content == 2 ? 256 : 0);
    base = (uint64_t)1 << (10 + (head[5] >> 3));
    return base + base / 8 * (head[5] & 7);
}

/* Gather the head of a frame, and see what it demands. in_frame is set when libzstd may have it. */
static enum inflate_code begin_frame(struct inflate *stream, struct inflate_io *io)
{
    struct inflate_zstd *self = &stream->zstd;

    while (self->have < 5 || self->have < head_size(self->head)) {
        if (io->consumed == io->size)
            return INFLATE_OK;
        self->head[self->have++] = io->source[io->consumed++];
    }
    if (is_frame(self->head)) {
        uint64_t window = head_window(self->head, self->have);
        if (window > self->window) {
            stream->demanded = window;
            return INFLATE_OK;
        }
    } else if (!is_skippable(self->head)) {
        return INFLATE_BAD_DATA;
    }
    self->in_frame = 1;
    self->fed = 0;
    return INFLATE_OK;
}

/* One call of libzstd. *stuck: only more input helps. */
static enum inflate_code run_frame(struct inflate_zstd *self, struct inflate_io *io, int *stuck)
{
    int head = self->fed < self->have;
    struct zstd_in in = {head ? self->head : io->source, head ? self->have : io->size, head ? self->fed : io->consumed};
    struct zstd_out to = {io->out, io->room, io->produced};
    size_t before = in.pos, status = zstd.run(self->context, &to, &in);

    if (in.pos < before || in.pos > in.size || to.pos < io->produced || to.pos > io->room)
        return INFLATE_BAD_DATA; /* what it says is checked, not believed */
    *stuck = in.pos == before && to.pos == io->produced;
    *(head ? &self->fed : &io->consumed) = in.pos;
    io->produced = to.pos;
    if (zstd.is_error(status))
        return (unsigned)-status == ZSTD_ERROR_MEMORY ? INFLATE_NO_MEMORY : INFLATE_BAD_DATA;
    if (*stuck && in.pos < in.size)
        return INFLATE_BAD_DATA; /* there is input and room: the loop would not end */
    if (status == 0 && !*stuck) {
        self->in_frame = 0;
        self->have = 0;
        self->any_frame = 1;
    }
    return INFLATE_OK;
}

static enum inflate_code run_frames(struct inflate *stream, struct inflate_io *io)
{
    enum inflate_code code = INFLATE_OK;
    int stuck = 0;

    if (stream->demanded)
        return INFLATE_WINDOW;
    while (code == INFLATE_OK && !stuck && io->produced < io->room) {
        if (stream->zstd.in_frame) {
            code = run_frame(&stream->zstd, io, &stuck);
        } else {
            code = begin_frame(stream, io);
            stuck = !stream->zstd.in_frame;
        }
    }
    return code;
}

static enum inflate_code finish(const struct inflate *stream)
{
    const struct inflate_zstd *self = &stream->zstd;

    if (stream->demanded)
        return INFLATE_WINDOW;
    return !self->in_frame && !self->have && self->any_frame ? INFLATE_OK : INFLATE_CUT;
}

static void allow(struct inflate *stream, size_t window)
{
    struct inflate_zstd *self = &stream->zstd;
    int log = 10; /* libzstd knows powers of two, from this on; the exact bound is begin_frame's and take_memory's */

    if (window < self->window)
        return;
    self->window = window < (size_t)1 << 31 ? window : (size_t)1 << 31;
    while ((size_t)1 << log < self->window)
        log++;
    (void)zstd.set(self->context, ZSTD_WINDOW_LOG_MAX, log);
    if (stream->demanded <= self->window)
        stream->demanded = 0;
}

static void free_context(struct inflate *stream)
{
    zstd.free(stream->zstd.context);
}

int zstd_begin(struct inflate *stream, size_t window)
{
    static const struct inflate_backend BACKEND = {run_frames, finish, allow, free_context};
    struct inflate_zstd *self = &stream->zstd;

    stream->backend = &BACKEND;
    self->window = window;
    self->context = zstd.create((struct zstd_memory){take_memory, give_memory, self});
    if (self->context)
        allow(stream, window);
    return self->context != NULL;
}
