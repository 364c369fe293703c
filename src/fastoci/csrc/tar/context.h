/* What the files of the tar reader share: its state, decoded blocks, pax records, sparse segments. Not for other units. */
#ifndef FASTOCI_TAR_CONTEXT_H
#define FASTOCI_TAR_CONTEXT_H

#include "tar/code.h"
#include "tar/sink.h"

enum {
    TAR_BLOCK = 512,
    TAR_SPECIAL_MAX = 1 << 20,
    TAR_SEGMENTS_MAX = 1 << 16
};

enum tar_format { TAR_V7, TAR_USTAR, TAR_STAR, TAR_GNU };

struct tar_header {
    enum tar_format format;
    uint8_t type;
    size_t name_len;
    size_t link_len;
    int64_t mode, uid, gid, size, mtime, devmajor, devminor;
    uint8_t name[256]; /* prefix, '/', name */
    uint8_t link[100];
};

struct tar_segments {
    struct tar_segment *items;
    size_t count;
    size_t capacity;
};

struct tar_xattrs {
    struct tar_xattr *items;
    size_t count;
    size_t capacity;
};

/* The records of one extended header that the reader acts on: raw values, empty when absent. */
struct tar_pax {
    struct tar_bytes path, linkpath, size, uid, gid, mtime, atime, ctime;
    struct tar_bytes sparse_major, sparse_minor, sparse_name, sparse_size, sparse_realsize, sparse_map, sparse_numblocks;
    size_t sparse_values; /* numbers seen in the repeated records of form 0.0 */
};

enum tar_state { TAR_HEADER, TAR_SPECIAL, TAR_EXTENSION, TAR_MAP, TAR_BODY, TAR_PADDING, TAR_END };

struct tar_buffer {
    uint8_t *data;
    size_t len;
    size_t capacity;
    int set; /* holds what belongs to the next entry */
};

struct tar {
    struct tar_sink sink;
    void *ctx;
    int code;
    int64_t value;
    uint64_t position;
    uint64_t header_at;
    uint64_t block_end; /* offset of the first byte behind the last block */
    enum tar_state state;
    int zero_seen;
    uint8_t block[TAR_BLOCK]; /* a block that arrives in pieces */
    size_t have;
    uint64_t left;    /* bytes of the body that are still to come */
    uint32_t padding; /* zeros behind it */
    int special_padding; /* which is that of a special header */

    struct tar_header header;
    struct tar_entry entry;
    uint64_t data_at; /* offset in the file of the next byte, unless sparse */

    struct tar_buffer pax_text, long_name, long_link;
    struct tar_buffer *special; /* where the special body goes; NULL: a global header, which is checked in pax_text and not applied */
    struct tar_pax pax;
    struct tar_xattrs xattrs;
    struct tar_segments segments;
    size_t segment;          /* the one being filled */
    uint64_t segment_filled; /* bytes of it */

    int64_t map_wanted; /* numbers still to come in the map of form 1.0; -1: the count itself */
    int64_t map_number;
    int64_t map_offset;
    int map_digits;
};

/* Stop with the first code. */
void tar_fail(struct tar *tar, int code, int64_t value);

/* Set the length of the body and its padding; TAR_OK or TAR_SIZE. */
int tar_set_size(struct tar *tar, int64_t size);

/* Make room for one more item; TAR_OK or TAR_MEMORY. */
int tar_grow(void **items, size_t *capacity, size_t count, size_t size);

/* Append; TAR_OK, TAR_MEMORY or TAR_SPARSE_LIMIT. */
int tar_segments_add(struct tar_segments *segments, int64_t offset, int64_t length);

#endif
