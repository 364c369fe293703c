/* What the files of the decompressor share: a stream, the table of functions that runs it, one call's input and output. Not
 * for other units. */
#ifndef FASTOCI_INFLATE_CONTEXT_H
#define FASTOCI_INFLATE_CONTEXT_H

#include "inflate/decoder.h"

struct inflate;

/* Where in a gzip member the next input byte belongs. */
enum inflate_field { FIXED, EXTRA_SIZE, EXTRA, NAME, COMMENT, HEADER_CRC, DEFLATE, TRAILER, BETWEEN };

enum { INFLATE_TAIL = 16 }; /* bytes that a decoder may hand back; ISA-L reads eight ahead */

struct inflate_gzip {
    const struct inflate_decoder *decoder;
    void *ctx;
    enum inflate_field next;
    uint8_t field[16]; /* the fixed-size field being gathered */
    unsigned have;     /* bytes of it */
    unsigned flags, extra;
    uint32_t header_crc, content_size;
    struct inflate_step step; /* of the member: its checksum */
    uint8_t tail[INFLATE_TAIL]; /* the last bytes that were consumed; the newest is the last, */
    unsigned kept;              /* so many of them are the member's, */
    unsigned again;             /* and the last so many are read again, before any new ones */
};

enum { INFLATE_ZSTD_HEAD = 18 }; /* the longest head of a frame */

struct inflate_zstd {
    void *context;
    size_t window, held; /* bytes allowed, and bytes allocated */
    uint8_t head[INFLATE_ZSTD_HEAD];
    size_t have, fed; /* bytes of the head that are gathered, and that libzstd has */
    int in_frame, any_frame;
};

/* One call's input and output, and how far it is. */
struct inflate_io {
    const uint8_t *source;
    size_t size, consumed;
    uint8_t *out;
    size_t room, produced;
};

/* What runs a stream: chosen when it is made. */
struct inflate_backend {
    enum inflate_code (*run)(struct inflate *self, struct inflate_io *io);
    enum inflate_code (*finish)(const struct inflate *self);
    void (*allow)(struct inflate *self, size_t window);
    void (*free)(struct inflate *self);
};

struct inflate {
    const struct inflate_backend *backend;
    enum inflate_code failed;
    uint64_t demanded; /* bytes of window, beyond what is allowed */
    union {
        struct inflate_gzip gzip;
        struct inflate_zstd zstd;
    };
};

/* Look a symbol up and put it where pointer points: whether it is there. */
int inflate_find(void *library, const char *name, void *pointer);

#endif
