/* Decoders that read ahead, hand back and lie: below the framing of gzip, and between us and the real libraries.
 *
 * The copier's deflate data is a count and as many bytes of content. The symbols of ISA-L and libzstd at the end go through
 * to the real libraries, and then change what these say. */
#include "inflate/context.h"
#include "inflate/inflate.h"
#include "support/check.h"

#include <dlfcn.h>
#include <limits.h>

enum { CONTENT_MAX = 24, STREAM_MAX = 3 * (10 + 2 + CONTENT_MAX + 8) };

struct stream {
    uint8_t data[STREAM_MAX], content[3 * CONTENT_MAX];
    size_t size, content_size;
};

struct copier {
    size_t ahead; /* bytes that it reads ahead, at most */
    int often;    /* hands back whenever it has made something, not only at the end */
    unsigned head, left;
    uint8_t read[INFLATE_TAIL];
    size_t unused; /* of read, the first */
    ptrdiff_t consumed_lie;
    size_t produced_lie;
    int lies;
};

static uint32_t crc32_of(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xEDB88320 & -(crc & 1));
    }
    return ~crc;
}

static enum inflate_code copier_begin(void *ctx)
{
    struct copier *self = ctx;

    self->head = self->left = 0;
    self->unused = 0;
    return INFLATE_OK;
}

static uint8_t next_byte(struct copier *self)
{
    uint8_t byte = self->read[0];

    memmove(self->read, self->read + 1, --self->unused);
    return byte;
}

static enum inflate_code copier_run(void *ctx, struct inflate_step *step)
{
    struct copier *self = ctx;
    size_t taken = 0;

    while (!step->ended && step->produced < step->room) {
        while (self->unused < self->ahead && taken < step->size)
            self->read[self->unused++] = step->source[taken++];
        if (self->head == 2 && !self->left)
            step->ended = 1;
        else if (!self->unused)
            break;
        else if (self->head < 2)
            self->left |= (unsigned)next_byte(self) << 8 * self->head++;
        else
            step->out[step->produced++] = next_byte(self), self->left--;
    }
    step->consumed = (ptrdiff_t)taken;
    if (step->ended || (self->often && step->produced)) {
        step->consumed -= (ptrdiff_t)self->unused;
        self->unused = 0;
    }
    step->crc = crc32_of(step->crc, step->out, step->produced);
    if (self->lies) {
        step->consumed = self->consumed_lie;
        step->produced = self->produced_lie;
    }
    return INFLATE_OK;
}

static const struct inflate_decoder COPIER = {copier_begin, copier_run};

static void put_bytes(struct stream *to, const void *bytes, size_t size)
{
    memcpy(to->data + to->size, bytes, size);
    to->size += size;
}

static void put_number(struct stream *to, uint32_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        to->data[to->size++] = (uint8_t)(value >> 8 * i);
}

/* A member with size bytes of content, stored: for the copier behind a count, else as a block of deflate data. */
static void put_member(struct stream *to, size_t size, int copied)
{
    uint8_t *content = to->content + to->content_size;

    for (size_t i = 0; i < size; i++)
        content[i] = (uint8_t)(to->size * 7 + i * 31);
    put_bytes(to, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
    if (!copied)
        put_bytes(to, "\1", 1);
    put_number(to, (uint32_t)size, 2);
    if (!copied)
        put_number(to, ~(uint32_t)size, 2);
    put_bytes(to, content, size);
    put_number(to, crc32_of(0, content, size), 4);
    put_number(to, (uint32_t)size, 4);
    to->content_size += size;
}

/* Run a stream in pieces and windows of these sizes. Each piece is memory of its own, gone after the call: the address
 * sanitizer sees who looks before it. */
static enum inflate_code run_pieces(struct inflate *self, const struct stream *stream, size_t end, size_t piece, size_t room)
{
    uint8_t out[4 * CONTENT_MAX];
    size_t at = 0, made = 0, consumed, produced, size;
    enum inflate_code code;

    do {
        size = piece < end - at ? piece : end - at;
        uint8_t *source = malloc(size + 1), *window = malloc(room);
        CHECK(source && window);
        memcpy(source + 1, stream->data + at, size);
        code = inflate_run(self, source + 1, size, &consumed, window, room, &produced);
        CHECK(consumed <= size && produced <= room && made + produced <= sizeof out);
        CHECK(code || consumed || produced || !size);
        memcpy(out + made, window, produced);
        free(source);
        free(window);
        at += consumed;
        made += produced;
    } while (!code && (at < end || produced == room));
    if (!code)
        code = inflate_finish(self);
    CHECK(made <= stream->content_size && !memcmp(out, stream->content, made));
    CHECK(code || end < stream->size || made == stream->content_size);
    return code;
}

static enum inflate_code copy(struct copier *copier, const struct stream *stream, size_t end, size_t piece, size_t room)
{
    struct inflate *self = inflate_new_over(&COPIER, copier);
    enum inflate_code code;

    CHECK(self);
    code = run_pieces(self, stream, end, piece, room);
    inflate_free(self);
    return code;
}

/* What was read ahead lies in the trailer and, with much of it, in the next member's header. */
static void handed_back_bytes_are_read_again(size_t ahead, int often)
{
    static const size_t SIZES[] = {0, 1, 8, 9, CONTENT_MAX}, ROOMS[] = {1, 2, 8, 3 * CONTENT_MAX};
    enum { COUNT = sizeof SIZES / sizeof *SIZES };
    struct copier copier = {.ahead = ahead, .often = often};

    for (size_t which = 0; which < (size_t)COUNT * COUNT; which++) {
        struct stream stream = {0};
        put_member(&stream, SIZES[which % COUNT], 1);
        put_member(&stream, SIZES[which / COUNT], 1);
        put_member(&stream, SIZES[(which + 3) % COUNT], 1);
        for (size_t piece = 0; piece < 25; piece++)
            for (size_t i = 0; i < sizeof ROOMS / sizeof *ROOMS; i++)
                CHECK(copy(&copier, &stream, stream.size, piece ? piece : stream.size, ROOMS[i]) == INFLATE_OK);
    }
}

static void a_cut_is_no_end_and_garbage_is_no_member(size_t ahead)
{
    struct copier copier = {.ahead = ahead};
    struct stream stream = {0};
    size_t first;

    put_member(&stream, 3, 1);
    first = stream.size;
    put_member(&stream, 9, 1);
    for (size_t end = 1; end < stream.size; end++)
        for (size_t piece = 1; piece <= end; piece++)
            CHECK(copy(&copier, &stream, end, piece, 4) == (end == first ? INFLATE_OK : INFLATE_CUT));
    stream.data[stream.size] = 'x';
    for (size_t piece = 1; piece <= stream.size + 1; piece++)
        CHECK(copy(&copier, &stream, stream.size + 1, piece, 4) == INFLATE_NOT_GZIP);
}

/* Of a decoder that has had ten bytes less than it was given, and two bytes before or none. */
static void lies_of_a_decoder_are_damage(void)
{
    static const struct { ptrdiff_t consumed; size_t produced; } LIES[] = {
        {11, 0}, {PTRDIFF_MAX, 1}, {-1, 0}, {-1, 1}, {-3, 1}, {-17, 1}, {INT_MIN, 1}, {PTRDIFF_MIN, 1}, {1, 5}, {1, SIZE_MAX}, {0, 0},
    };
    struct stream stream = {0};

    put_member(&stream, 12, 1);
    for (size_t i = 0; i < 2 * sizeof LIES / sizeof *LIES; i++) {
        struct copier copier = {.ahead = 1, .consumed_lie = LIES[i / 2].consumed, .produced_lie = LIES[i / 2].produced};
        struct inflate *self = inflate_new_over(&COPIER, &copier);
        size_t before = i % 2 ? 12 : 10, consumed, produced;
        uint8_t out[4];
        CHECK(self);
        CHECK(inflate_run(self, stream.data, before, &consumed, out, 4, &produced) == INFLATE_OK && consumed == before);
        copier.lies = 1;
        CHECK(inflate_run(self, stream.data + before, 10, &consumed, out, 4, &produced) == INFLATE_BAD_DATA);
        CHECK(consumed <= 10 && produced <= 4);
        CHECK(inflate_finish(self) == INFLATE_BAD_DATA);
        inflate_free(self);
    }
}

/* The head of ISA-L's state. */
struct isal_head {
    uint8_t *next_out;
    uint32_t avail_out, total_out;
    uint8_t *next_in;
    uint64_t read_in;
    uint32_t avail_in;
    int32_t read_in_length;
};

struct zstd_buffer { uint8_t *data; size_t size, pos; };

enum lie { NONE, IN_BEYOND, IN_BEFORE, IN_FAR, OUT_BEYOND, OUT_BEFORE, OUT_FAR, STILL, ISAL_LIES, LENGTH_NEGATIVE = ISAL_LIES, LENGTH_HUGE, LIES };

static enum lie lie;
static int (*real_inflate)(void *);
static size_t (*real_decompress)(void *, struct zstd_buffer *, struct zstd_buffer *);

int isal_inflate(void *state);
size_t ZSTD_decompressStream(void *context, struct zstd_buffer *out, struct zstd_buffer *in);

int isal_inflate(void *state)
{
    struct isal_head *head = state, before = *head;
    int status = real_inflate(state);

    if (lie == IN_BEYOND)
        head->next_in = before.next_in + before.avail_in + 1;
    else if (lie == IN_BEFORE)
        head->next_in = before.next_in - 1;
    else if (lie == IN_FAR)
        head->next_in = NULL;
    else if (lie == OUT_BEYOND)
        head->next_out = before.next_out + before.avail_out + 1;
    else if (lie == OUT_BEFORE)
        head->next_out = before.next_out - 1;
    else if (lie == OUT_FAR)
        head->next_out = NULL;
    else if (lie == STILL)
        memcpy(state, &before, sizeof before), memset((uint8_t *)state + sizeof before, 0, 30000); /* also block_state */
    else if (lie == LENGTH_NEGATIVE)
        head->read_in_length = -8;
    else if (lie == LENGTH_HUGE)
        head->read_in_length = INT32_MAX;
    return status;
}

size_t ZSTD_decompressStream(void *context, struct zstd_buffer *out, struct zstd_buffer *in)
{
    struct zstd_buffer out_before = *out, in_before = *in;
    size_t status = real_decompress(context, out, in);

    if (lie == IN_BEYOND)
        in->pos = in->size + 1;
    else if (lie == IN_BEFORE)
        in->pos = in_before.pos - 1;
    else if (lie == IN_FAR)
        in->pos = SIZE_MAX / 2;
    else if (lie == OUT_BEYOND)
        out->pos = out->size + 1;
    else if (lie == OUT_BEFORE)
        out->pos = out_before.pos - 1;
    else if (lie == OUT_FAR)
        out->pos = SIZE_MAX / 2;
    else if (lie == STILL)
        *in = in_before, *out = out_before;
    return status;
}

/* The real library's symbols, but for those above: they are looked up in the program. */
static int bind_through(enum inflate_format format, const char *library)
{
    void *real = dlopen(library, RTLD_NOW | RTLD_GLOBAL);

    if (!real)
        return 0;
    CHECK(format == INFLATE_GZIP ? inflate_find(real, "isal_inflate", &real_inflate)
                                 : inflate_find(real, "ZSTD_decompressStream", &real_decompress));
    lie = NONE;
    CHECK(inflate_bind(format, NULL) == 0);
    return 1;
}

static void lies_of_a_library_are_damage(enum inflate_format format, const uint8_t *data, size_t size, enum lie lies)
{
    uint8_t out[64];
    size_t consumed, produced;

    for (lie = NONE; lie < lies; lie++) {
        struct inflate *self = inflate_new(format, 1 << 10);
        CHECK(self);
        enum inflate_code code = inflate_run(self, data, size, &consumed, out + 1, 62, &produced);
        CHECK(code == (lie == NONE ? INFLATE_OK : INFLATE_BAD_DATA));
        CHECK(consumed <= size && produced <= 62);
        CHECK(lie != NONE || inflate_finish(self) == INFLATE_OK);
        inflate_free(self);
    }
    for (lie = NONE + 1; lie < lies; lie++) /* nor is such a library bound */
        CHECK(inflate_bind(format, NULL) == -1 && !inflate_bound(format));
    lie = NONE;
}

static void small_windows_of_isal(void)
{
    for (size_t first = 0; first < CONTENT_MAX; first++) {
        struct stream stream = {0};
        put_member(&stream, first, 0);
        put_member(&stream, CONTENT_MAX - first, 0);
        for (size_t piece = 1; piece <= stream.size; piece++)
            for (size_t room = 1; room <= CONTENT_MAX + 1; room++) {
                struct inflate *self = inflate_new(INFLATE_GZIP, 0);
                CHECK(self && run_pieces(self, &stream, stream.size, piece, room) == INFLATE_OK);
                inflate_free(self);
            }
    }
}

int main(void)
{
    static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 7, 0x39, 0, 0, 'f', 'a', 's', 't', 'o', 'c', 'i'};
    struct stream stored = {0};
    int isal, zstd;

    for (size_t ahead = 1; ahead <= INFLATE_TAIL; ahead++) {
        handed_back_bytes_are_read_again(ahead, 0);
        handed_back_bytes_are_read_again(ahead, 1);
        a_cut_is_no_end_and_garbage_is_no_member(ahead);
    }
    lies_of_a_decoder_are_damage();
    put_member(&stored, CONTENT_MAX, 0);
    if ((isal = bind_through(INFLATE_GZIP, "libisal.so.2"))) {
        small_windows_of_isal();
        lies_of_a_library_are_damage(INFLATE_GZIP, stored.data, stored.size, LIES);
    }
    if ((zstd = bind_through(INFLATE_ZSTD, "libzstd.so.1")))
        lies_of_a_library_are_damage(INFLATE_ZSTD, frame, sizeof frame, ISAL_LIES);
    printf("test_inflate: ok:%s%s\n", isal ? " isa-l" : "", zstd ? " libzstd" : "");
    return 0;
}
