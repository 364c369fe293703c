/* Making the tree from a stager's log: the extractor's own rules for every entry, but files are moved into place. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

struct adoption {
    const struct stage *stage;
    struct log_reader reader;
    struct log_head head; /* of the entry at hand */
    int ended;
};

/* A taken name is never replaced in one step: what has it may be on the way to a directory that is remembered. */
int adopt_file(const struct extract *ex, int dir, const char *name)
{
    const struct adoption *adoption = ex->adoption;
    char number[LOG_NUMBER_SIZE];
    struct stat st;
    long moved;

    log_name(number, adoption->head.number);
    RETRY(moved, syscall(SYS_renameat2, adoption->stage->dir, number, dir, name, RENAME_NOREPLACE));
    if (moved == 0 || (errno != EINVAL && errno != ENOSYS))
        return (int)moved;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) { /* a file system without the flag */
        errno = EEXIST;
        return -1;
    }
    RETRY(moved, renameat(adoption->stage->dir, number, dir, name));
    return (int)moved;
}

/* One entry of the log; a code. Inside a file that failed nothing counts but what comes before its content. */
static int adopt_entry(struct extract *ex, const struct tar_entry *entry)
{
    const struct log_head *head = &ex->adoption->head;
    int code = extract_apply(ex, entry);

    if (code == EXTRACT_IO && !head->whole)
        return TAR_OK;
    if (code)
        return code;
    ex->facts.bytes += head->bytes;
    ex->facts.skipped_owners += head->skipped_owners;
    ex->facts.skipped_xattrs += head->skipped_xattrs;
    ex->work += head->work;
    code = head->whole ? extract_worked(ex) : TAR_OK;
    return code ? code : extract_count_extra(ex, head->xattr_bytes);
}

/* The log ends: all is well, or the stager's failure is the layer's. */
static int adopt_end(struct extract *ex, const struct extract *stager)
{
    const struct extract_facts *facts = &stager->facts;

    ex->adoption->ended = 1;
    if (!facts->code)
        return TAR_OK;
    ex->facts.entries = facts->entries;
    return extract_failed(ex, facts->code, facts->offset, facts->value,
                          (struct tar_bytes){(const uint8_t *)facts->path, facts->path_len});
}

static int start(struct extract *ex, const struct extract *stager)
{
    struct tar_bytes nothing = {NULL, 0};
    int code = extract_usable(ex);

    if (code)
        return code;
    if (!stager->stage || (ex->adoption && ex->adoption->stage != stager->stage))
        return extract_failed(ex, EXTRACT_CLOSED, 0, 0, nothing);
    if (!stager->facts.code && !stager->stage->ended)
        return extract_failed(ex, TAR_TRUNCATED, 0, 0, nothing);
    if (!ex->adoption && !(ex->adoption = calloc(1, sizeof *ex->adoption)))
        return extract_failed(ex, TAR_MEMORY, 0, 0, nothing);
    ex->adoption->stage = stager->stage;
    return TAR_OK;
}

static int adopt(struct extract *ex, const struct extract *stager, uint64_t count)
{
    struct tar_entry entry = {0};
    int code, found;

    for (; count; count--) {
        found = stager->stage->log.fd < 0 ? 0 : log_next(&ex->adoption->reader, &stager->stage->log, &ex->adoption->head, &entry);
        if (found < 0)
            return -extract_failed(ex, EXTRACT_IO, entry.offset, errno, entry.path);
        if (found == 0)
            return -adopt_end(ex, stager);
        if ((code = adopt_entry(ex, &entry)))
            return -extract_failed(ex, code, entry.offset, ex->value, entry.path);
    }
    return 1;
}

int extract_adopt(struct extract *ex, const struct extract *stager, uint64_t count)
{
    int code = start(ex, stager);

    if (code)
        return extract_publish(ex, -code);
    code = adopt(ex, stager, count);
    mode_restore(ex);
    return extract_publish(ex, code);
}

int adopt_ended(const struct extract *ex)
{
    return !ex->adoption || ex->adoption->ended;
}

void adopt_free(struct extract *ex)
{
    if (ex->adoption)
        log_reader_free(&ex->adoption->reader);
    free(ex->adoption);
    ex->adoption = NULL;
}
