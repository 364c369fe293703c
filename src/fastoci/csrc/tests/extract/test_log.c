/* The stager's log: what was put comes back, and what a disk made of it is an error or another record, never a wild read. */
#define _GNU_SOURCE

#include "extract/log.h"
#include "support/check.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { RECORDS = 3 };

static uint8_t text[RECORDS * 40];

static struct tar_bytes bytes_of(size_t at, size_t len)
{
    return (struct tar_bytes){text + at, len};
}

/* Three directories: without xattrs, with two, and with one that is empty. */
static void put_all(struct log_writer *log)
{
    for (size_t i = 0; i < RECORDS; i++) {
        struct tar_xattr xattrs[2] = {{bytes_of(40 * i, 6), bytes_of(40 * i + 6, i == 1 ? 9 : 0)}, {bytes_of(0, 8), bytes_of(8, 3)}};
        struct tar_entry entry = {.type = 'd', .path = bytes_of(40 * i, 10 + i), .link = bytes_of(20, i), .xattrs = xattrs};
        struct log_head head = {.number = i, .whole = 1};
        entry.xattr_count = i == 2 ? 1 : 2 * i;
        CHECK(log_put(log, &head, &entry) == 0);
    }
    CHECK(log_flush(log) == 0);
}

/* The sum of all that the records point to, and how it ended. */
static int read_all_of(const struct log_writer *log, int *records, uint64_t *sum)
{
    struct log_reader reader = {0};
    struct log_head head;
    struct tar_entry entry;
    int found;

    *records = 0, *sum = 0;
    while ((found = log_next(&reader, log, &head, &entry)) > 0) {
        ++*records;
        for (size_t i = 0; i < entry.path.len; i++)
            *sum += entry.path.data[i];
        for (size_t i = 0; i < entry.link.len; i++)
            *sum += entry.link.data[i];
        for (size_t x = 0; x < entry.xattr_count; x++) {
            for (size_t i = 0; i < entry.xattrs[x].key.len; i++)
                *sum += entry.xattrs[x].key.data[i];
            for (size_t i = 0; i < entry.xattrs[x].value.len; i++)
                *sum += entry.xattrs[x].value.data[i];
        }
    }
    CHECK(found == 0 || errno == EIO);
    log_reader_free(&reader);
    return found;
}

int main(void)
{
    static struct log_writer log;
    uint64_t whole, sum;
    int records, dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i * 7 + 1);
    CHECK(dir >= 0 && log_create(&log, dir) == 0);
    put_all(&log);
    CHECK(read_all_of(&log, &records, &whole) == 0 && records == RECORDS);
    for (uint64_t at = 0; at < log.end; at++)
        for (int bit = 0; bit < 8; bit++) {
            uint8_t byte, flipped;
            CHECK(pread(log.fd, &byte, 1, (off_t)at) == 1);
            flipped = byte ^ (uint8_t)(1 << bit);
            CHECK(pwrite(log.fd, &flipped, 1, (off_t)at) == 1);
            errno = 0;
            (void)read_all_of(&log, &records, &sum);
            CHECK(pwrite(log.fd, &byte, 1, (off_t)at) == 1);
        }
    for (uint64_t end = log.end; end-- > 0;) { /* and cut */
        CHECK(ftruncate(log.fd, (off_t)end) == 0);
        CHECK(read_all_of(&log, &records, &sum) == 0 && records < RECORDS);
    }
    close(log.fd);
    close(dir);
    puts("test_log: ok");
    return 0;
}
