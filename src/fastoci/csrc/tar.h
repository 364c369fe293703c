/* An incremental tar reader: bytes in, entries out, as Go's archive/tar reads them, or a refusal.
 *
 * It knows no files, no paths inside a root and no policy: names come out as the archive spells them. POSIX ustar and pax,
 * v7, star, GNU long names and all four sparse forms. Windows of any size give the same result. Memory is bounded
 * whatever the headers say: 1 MiB for each kind of special header, 64 Ki segments for a sparse map. */
#ifndef FASTOCI_TAR_H
#define FASTOCI_TAR_H

#include <stddef.h>
#include <stdint.h>

/* Codes of the reader (1 to 31) and of the extractor (32 and up); tar_code_info gives the kind and a sentence. */
enum tar_code {
    TAR_OK = 0,
    TAR_MEMORY = 1,
    TAR_TRUNCATED = 2,       /* the stream ends inside a header or a body */
    TAR_CHECKSUM = 3,        /* value: the sum of the header's bytes */
    TAR_NUMBER = 4,          /* a numeric header field is malformed; value: its offset in the header */
    TAR_SIZE = 5,            /* a size is negative or too large; value: the size */
    TAR_LONE_ZERO = 6,       /* a zero block that is not followed by a second one */
    TAR_TYPE = 7,            /* value: the type byte */
    TAR_SPECIAL_SIZE = 8,    /* a special header is larger than 1 MiB; value: its size */
    TAR_PAX_RECORD = 9,      /* value: offset of the record in the extended header */
    TAR_PAX_VALUE = 10,      /* a pax number or time is malformed; value as TAR_PAX_RECORD */
    TAR_DANGLING = 11,       /* a special header that no entry follows */
    TAR_SPARSE_MAP = 12,     /* value: index of the segment at fault */
    TAR_SPARSE_LIMIT = 13,   /* value: the number of segments */
    TAR_SPARSE_VERSION = 14, /* a sparse form this reader does not know */

    EXTRACT_IO = 32,            /* value: errno */
    EXTRACT_DOTDOT = 33,        /* a ".." component in a name or in the target of a hard link */
    EXTRACT_EMPTY_NAME = 34,
    EXTRACT_ROOT = 35,          /* the root itself as something else than a directory */
    EXTRACT_NAME_TOO_LONG = 36, /* a component above 255 bytes; value: its length */
    EXTRACT_LINKS = 37,         /* more than 255 symbolic links on the way */
    EXTRACT_NOT_DIRECTORY = 38, /* a parent is not a directory */
    EXTRACT_HARDLINK = 39,      /* the target is missing, a directory, or below what the entry replaces; value: errno or 0 */
    EXTRACT_SYMLINK = 40,       /* a target that is empty or longer than 4095 bytes; value: its length */
    EXTRACT_OWNER = 41,         /* uid or gid outside 0 .. 2^32-2; value: the number */
    EXTRACT_DEVICE = 42,        /* a number out of range or 0:0; value: the major number */
    EXTRACT_WHITEOUT = 43,      /* a whiteout of nothing, of "." or of ".." */
    EXTRACT_ENTRIES = 44,       /* value: the limit */
    EXTRACT_BYTES = 45,         /* value: the limit */
    EXTRACT_CLOSED = 46,        /* used after extract_close or after the end */
    EXTRACT_STOPPED = 47,       /* somebody asked for it */
    EXTRACT_MOUNT = 48,         /* a mount point is on the way, or in what would be removed */
    EXTRACT_PATH = 49,          /* a path above 4095 bytes, as it is spelled or below the root; value: its length */
    EXTRACT_DIRECTORIES = 50,   /* value: the limit */
    EXTRACT_WORK = 51,          /* value: the limit */
    EXTRACT_XATTRS = 52,        /* more than 512 extended attributes; value: their number */
    TAR_CODE_END = 53
};

/* Kind ("format", "unsafe", "unsupported", "limit", "io", "stopped") and one sentence; 0, or -1 when there is no such code. */
int tar_code_info(int code, const char **kind, const char **sentence);

struct tar_bytes {
    const uint8_t *data;
    size_t len;
};

struct tar_xattr {
    struct tar_bytes key; /* without the prefix "SCHILY.xattr."; no NUL */
    struct tar_bytes value;
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
    int sparse;      /* data comes in pieces, holes between them */
};

/* Any callback may return a code that is not 0: the parse stops and the code becomes the reader's. */
struct tar_sink {
    int (*entry)(void *ctx, const struct tar_entry *entry);
    int (*data)(void *ctx, uint64_t offset, const uint8_t *data, size_t len); /* offset in the file; ascending */
    int (*entry_end)(void *ctx);
};

struct tar;

/* A reader that calls sink with ctx; sink is copied. NULL: no memory. */
struct tar *tar_new(const struct tar_sink *sink, void *ctx);

/* Parse len bytes; TAR_OK or a code. After a code every call returns that code. After the end of the archive bytes are ignored. */
int tar_feed(struct tar *tar, const uint8_t *data, size_t len);

/* The stream is over: TAR_OK when it may end here, else a code. */
int tar_finish(struct tar *tar);

void tar_free(struct tar *tar);

/* Facts, at any time: the code, the offset of the current (or faulty) header, the wrong number, the current entry's name. */
int tar_status(const struct tar *tar);
uint64_t tar_offset(const struct tar *tar);
int64_t tar_value(const struct tar *tar);
struct tar_bytes tar_path(const struct tar *tar); /* holds until the next tar_feed or tar_free */
int tar_ended(const struct tar *tar);             /* 1 once the end marker has been read */

#endif
