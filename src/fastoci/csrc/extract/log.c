/* Writing and reading the stager's log. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/log.h"

#include "io/retry.h"
#include "io/write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void log_name(char name[LOG_NUMBER_SIZE], uint64_t number)
{
    snprintf(name, LOG_NUMBER_SIZE, "%llx", (unsigned long long)number);
}

/* --- writing --- */

int log_create(struct log_writer *log, int dir)
{
    log->end = 0;
    log->have = 0;
    RETRY(log->fd, openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (log->fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return log->fd < 0 ? -1 : 0;
    RETRY(log->fd, openat(dir, "log", O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600));
    return log->fd < 0 ? -1 : unlinkat(dir, "log", 0);
}

static int write_out(struct log_writer *log, const uint8_t *data, size_t len)
{
    int result = write_all(log->fd, data, len, (int64_t)log->end, 0);

    if (result) {
        errno = -result;
        return -1;
    }
    log->end += len;
    return 0;
}

int log_flush(struct log_writer *log)
{
    size_t have = log->have;

    log->have = 0;
    return write_out(log, log->buffer, have);
}

static int append(struct log_writer *log, const void *data, size_t len)
{
    if (len > LOG_BUFFER - log->have && log_flush(log))
        return -1;
    if (len > LOG_BUFFER)
        return write_out(log, data, len);
    if (len)
        memcpy(log->buffer + log->have, data, len);
    log->have += len;
    return 0;
}

static size_t xattrs_len(const struct tar_entry *entry, size_t count)
{
    size_t len = 0;

    for (size_t i = 0; i < count; i++)
        len += 2 * sizeof(uint32_t) + entry->xattrs[i].key.len + entry->xattrs[i].value.len;
    return len;
}

/* The attributes of a file have been set; those of the rest are the adopter's to set. */
int log_put(struct log_writer *log, const struct log_head *facts, const struct tar_entry *entry)
{
    size_t count = entry->type == 'f' ? 0 : entry->xattr_count;
    struct log_head head = *facts;
    int failed;

    head.len = sizeof head + entry->path.len + entry->link.len + xattrs_len(entry, count);
    head.size = entry->size;
    head.offset = entry->offset;
    head.uid = entry->uid;
    head.gid = entry->gid;
    head.mtime = entry->mtime;
    head.devmajor = entry->devmajor;
    head.devminor = entry->devminor;
    head.mode = entry->mode;
    head.mtime_ns = entry->mtime_ns;
    head.path_len = (uint32_t)entry->path.len;
    head.link_len = (uint32_t)entry->link.len;
    head.xattr_count = (uint32_t)count;
    head.type = entry->type;
    failed = append(log, &head, sizeof head) || append(log, entry->path.data, entry->path.len) ||
             append(log, entry->link.data, entry->link.len);
    for (size_t i = 0; i < count && !failed; i++) {
        const struct tar_bytes *key = &entry->xattrs[i].key, *value = &entry->xattrs[i].value;
        uint32_t lengths[2] = {(uint32_t)key->len, (uint32_t)value->len};
        failed = append(log, lengths, sizeof lengths) || append(log, key->data, key->len) || append(log, value->data, value->len);
    }
    return failed ? -1 : 0;
}

/* --- reading --- */

static int make_room(struct log_reader *reader, size_t len)
{
    uint8_t *bigger;

    if (reader->start + len <= reader->capacity)
        return 0;
    if (reader->have > reader->start)
        memmove(reader->buffer, reader->buffer + reader->start, reader->have - reader->start);
    reader->have -= reader->start;
    reader->start = 0;
    if (len <= reader->capacity)
        return 0;
    if (len < LOG_BUFFER)
        len = LOG_BUFFER;
    if (!(bigger = realloc(reader->buffer, len))) {
        errno = ENOMEM;
        return -1;
    }
    reader->buffer = bigger;
    reader->capacity = len;
    return 0;
}

/* Have len bytes in the buffer: 1; 0 when there are not so many; -1 with errno. */
static int fill(struct log_reader *reader, const struct log_writer *log, size_t len)
{
    while (reader->have - reader->start < len) {
        ssize_t got;
        if (make_room(reader, len))
            return -1;
        size_t room = reader->capacity - reader->have;
        room = room < log->end - reader->at ? room : (size_t)(log->end - reader->at);
        RETRY(got, pread(log->fd, reader->buffer + reader->have, room, (off_t)reader->at));
        if (got <= 0)
            return got < 0 ? -1 : 0;
        reader->at += (uint64_t)got;
        reader->have += (size_t)got;
    }
    return 1;
}

/* The lengths in a record are a file's, which a disk may have damaged: -1 with EIO. */
static int damaged(void)
{
    errno = EIO;
    return -1;
}

static int take_xattrs(struct log_reader *reader, const uint8_t *at, const uint8_t *end, size_t count)
{
    if (count > reader->xattr_capacity) {
        struct tar_xattr *bigger = realloc(reader->xattrs, count * sizeof *bigger);
        if (!bigger) {
            errno = ENOMEM;
            return -1;
        }
        reader->xattrs = bigger;
        reader->xattr_capacity = count;
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t lengths[2];
        if ((size_t)(end - at) < sizeof lengths)
            return damaged();
        memcpy(lengths, at, sizeof lengths);
        at += sizeof lengths;
        if ((uint64_t)(end - at) < (uint64_t)lengths[0] + lengths[1])
            return damaged();
        reader->xattrs[i].key = (struct tar_bytes){at, lengths[0]};
        reader->xattrs[i].value = (struct tar_bytes){at + lengths[0], lengths[1]};
        at += (size_t)lengths[0] + lengths[1];
    }
    return 0;
}

int log_next(struct log_reader *reader, const struct log_writer *log, struct log_head *head, struct tar_entry *entry)
{
    const uint8_t *record;
    int found = fill(reader, log, sizeof *head);

    if (found <= 0)
        return found;
    memcpy(head, reader->buffer + reader->start, sizeof *head);
    if (head->len > log->end - (reader->at - (reader->have - reader->start)))
        return 0;
    if (head->len < sizeof *head + (uint64_t)head->path_len + head->link_len + (uint64_t)head->xattr_count * sizeof(uint32_t[2]))
        return damaged();
    if ((found = fill(reader, log, (size_t)head->len)) <= 0)
        return found;
    record = reader->buffer + reader->start + sizeof *head;
    reader->start += (size_t)head->len;
    *entry = (struct tar_entry){
        .path = {record, head->path_len},
        .link = {record + head->path_len, head->link_len},
        .type = head->type,
        .mode = head->mode,
        .uid = head->uid,
        .gid = head->gid,
        .size = head->size,
        .mtime = head->mtime,
        .mtime_ns = head->mtime_ns,
        .devmajor = head->devmajor,
        .devminor = head->devminor,
        .xattr_count = head->xattr_count,
        .offset = head->offset,
    };
    record += (size_t)head->path_len + head->link_len;
    if (head->xattr_count && take_xattrs(reader, record, reader->buffer + reader->start, head->xattr_count))
        return -1;
    entry->xattrs = reader->xattrs;
    return 1;
}

void log_reader_free(struct log_reader *reader)
{
    free(reader->buffer);
    free(reader->xattrs);
    *reader = (struct log_reader){0};
}
