/* What the reader hands on: entries with their extensions applied, and the bytes of files. */
#ifndef FASTOCI_TAR_SINK_H
#define FASTOCI_TAR_SINK_H

#include <stddef.h>
#include <stdint.h>

struct tar_bytes {
    const uint8_t *data;
    size_t len;
};

struct tar_xattr {
    struct tar_bytes key; /* without the prefix "SCHILY.xattr."; no NUL */
    struct tar_bytes value;
};

/* A piece of a sparse file; holes are between them. */
struct tar_segment {
    uint64_t offset;
    uint64_t length;
};

/* One entry with its extensions applied. It and its pointers hold until entry_end has returned. */
struct tar_entry {
    struct tar_bytes path; /* no NUL; may be empty, absolute, hold ".." or end with '/' */
    struct tar_bytes link; /* target of 'l' and 'h'; no NUL */
    char type;             /* 'f' file, 'd', 'l' symlink, 'h' hard link, 'p' fifo, 'c', 'b' */
    uint32_t mode;         /* 07777 at most */
    int64_t uid;
    int64_t gid;
    uint64_t size; /* apparent size of a file; 0 for the rest */
    int64_t mtime;
    uint32_t mtime_ns; /* 0 .. 999999999, counts forward also before 1970 */
    int64_t devmajor;
    int64_t devminor;
    const struct tar_xattr *xattrs; /* sorted by key, each key once */
    size_t xattr_count;
    uint64_t offset; /* of the entry's own header in the archive */
    uint64_t body;   /* of what data() will hand on */
    int sparse;      /* data comes in pieces, holes between them */
    const struct tar_segment *segments; /* these pieces, ascending; they lie in the body one behind the other */
    size_t segment_count;
};

/* Any callback may return a code that is not 0: the parse stops and the code becomes the reader's. */
struct tar_sink {
    int (*entry)(void *ctx, const struct tar_entry *entry);
    int (*data)(void *ctx, uint64_t offset, const uint8_t *data, size_t len); /* offset in the file; ascending */
    int (*entry_end)(void *ctx);
    /* What is behind a body up to the end of its last block, after entry_end; NULL: nobody cares. */
    int (*padding)(void *ctx, const uint8_t *data, size_t len);
};

#endif
