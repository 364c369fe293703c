/* What the files of the decompressor share. Not for other units. */
#ifndef FASTOCI_INFLATE_INTERNAL_H
#define FASTOCI_INFLATE_INTERNAL_H

#include "inflate.h"

/* Where in a gzip member the next input byte belongs. */
enum inflate_place { FIXED, EXTRA_SIZE, EXTRA, NAME, COMMENT, HEADER_CRC, DEFLATE, TRAILER, BETWEEN };

enum { INFLATE_TAIL = 16 }; /* bytes that a decoder may hand back; ISA-L reads eight ahead */

struct inflate_gzip {
    const struct inflate_decoder *decoder;
    void *ctx;
    enum inflate_place place;
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
    uint64_t demanded;
    uint8_t head[INFLATE_ZSTD_HEAD];
    size_t have, fed; /* bytes of the head that are gathered, and that libzstd has */
    int in_frame, any_frame;
};

struct inflate {
    enum inflate_format format;
    enum inflate_code failed;
    union {
        struct inflate_gzip gzip;
        struct inflate_zstd zstd;
    };
};

/* One call's input and output, and how far it is. */
struct inflate_io {
    const uint8_t *source;
    size_t size, consumed;
    uint8_t *out;
    size_t room, produced;
};

/* inflate_isal.c, inflate_gzip.c */
int isal_bind(void *library);
void *isal_new(void);
extern const struct inflate_decoder isal_decoder;
enum inflate_code gzip_run(struct inflate_gzip *self, struct inflate_io *io);
enum inflate_code gzip_finish(const struct inflate_gzip *self);

/* inflate_zstd.c */
int zstd_bind(void *library);
int zstd_init(struct inflate_zstd *self, size_t window);
void zstd_free(struct inflate_zstd *self);
void zstd_allow(struct inflate_zstd *self, size_t window);
enum inflate_code zstd_run(struct inflate_zstd *self, struct inflate_io *io);
enum inflate_code zstd_finish(const struct inflate_zstd *self);

int inflate_find(void *library, const char *name, void *pointer);

#endif
