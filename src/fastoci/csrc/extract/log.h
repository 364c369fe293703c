/* The stager's log: what of each entry the tree needs, in the order of the archive. Private to the process that writes it.
 * It is a file without a name; both ends use it through small buffers. */
#ifndef FASTOCI_EXTRACT_LOG_H
#define FASTOCI_EXTRACT_LOG_H

#include "tar/sink.h"

enum { LOG_BUFFER = 32768, LOG_NUMBER_SIZE = 17 };

/* A record is this, the path, the link, and for each xattr two 32-bit lengths, the key and the value. */
struct log_head {
    uint64_t len; /* of the whole record */
    uint64_t number; /* of the staged file */
    uint64_t bytes, skipped_owners, skipped_xattrs, xattr_bytes, work; /* of the file */
    uint64_t size, offset;
    int64_t uid, gid, mtime, devmajor, devminor;
    uint32_t mode, mtime_ns, path_len, link_len, xattr_count;
    char type;
    char whole; /* 0: the layer failed inside this file */
};

struct log_writer {
    int fd;
    uint64_t end; /* bytes in the file */
    size_t have;  /* bytes in the buffer */
    uint8_t buffer[LOG_BUFFER];
};

/* Make the file in a directory: 0, or -1 with errno. */
int log_create(struct log_writer *log, int dir);
/* Append a record; head has what the entry does not say. 0, or -1 with errno. */
int log_put(struct log_writer *log, const struct log_head *facts, const struct tar_entry *entry);
int log_flush(struct log_writer *log);

struct log_reader {
    uint64_t at; /* bytes of the file that are in the buffer or behind it */
    uint8_t *buffer;
    size_t start, have, capacity;
    struct tar_xattr *xattrs;
    size_t xattr_capacity;
};

/* The next record; holds until the next call. 1; 0 at the end, or where a record is cut; -1 with errno. */
int log_next(struct log_reader *reader, const struct log_writer *log, struct log_head *head, struct tar_entry *entry);
void log_reader_free(struct log_reader *reader);

/* The name of a staged file. */
void log_name(char name[LOG_NUMBER_SIZE], uint64_t number);

#endif
