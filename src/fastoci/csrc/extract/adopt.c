/* Making the tree from a stager's log: the extractor's own rules for every entry, but files are moved into place. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/adopt.h"

#include "extract/apply.h"
#include "extract/direct.h"
#include "extract/directories.h"
#include "extract/file.h"
#include "extract/remove.h"
#include "extract/stage.h"
#include "extract/tree.h"
#include "io/retry.h"

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

/* A taken name is never replaced in one step: what has it may be on the path to a directory that is remembered. */
static int adopt_file(struct extract *ex, int dir, unsigned inherits, const char *name, const struct tar_entry *entry)
{
    const struct adoption *adoption = ex->adoption;
    char number[LOG_NUMBER_SIZE];
    struct stat st;
    long moved;

    (void)inherits, (void)entry; /* it has its metadata */
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
    int code = apply_entry(ex, entry);

    if (code == LAYER_IO && !head->whole)
        return TAR_OK;
    if (code)
        return code;
    ex->layer.facts.bytes += head->bytes;
    ex->layer.facts.skipped_owners += head->skipped_owners;
    ex->layer.facts.skipped_xattrs += head->skipped_xattrs;
    ex->layer.work += head->work;
    code = head->whole ? layer_worked(&ex->layer) : TAR_OK;
    return code ? code : layer_count_extra(&ex->layer, head->xattr_bytes);
}

/* The log ends: all is well, or the stager's failure is the layer's. */
static int adopt_end(struct extract *ex, const struct extract *stager)
{
    const struct layer_facts *facts = &stager->layer.facts;

    ex->adoption->ended = 1;
    if (!facts->code)
        return TAR_OK;
    ex->layer.facts.entries = facts->entries;
    return layer_failed(&ex->layer, facts->code, facts->offset, facts->value,
                          (struct tar_bytes){(const uint8_t *)facts->path, facts->path_len});
}

static int finish(struct extract *ex)
{
    return ex->adoption->ended ? directories_finish(ex) : TAR_TRUNCATED;
}

static void free_adoption(struct extract *ex)
{
    log_reader_free(&ex->adoption->reader);
    free(ex->adoption);
    ex->adoption = NULL;
    tree_free(ex);
}

static const struct extract_writer adopt_writer = {
    .make_file = adopt_file,
    .hide = apply_whiteout,
    .vacate = remove_name,
    .failed = direct_failed,
    .finish = finish,
    .free = free_adoption,
};

static int start(struct extract *ex, const struct extract *stager)
{
    struct tar_bytes nothing = {NULL, 0};

    if (!stager->stage || (ex->adoption && ex->adoption->stage != stager->stage))
        return layer_failed(&ex->layer, LAYER_CLOSED, 0, 0, nothing);
    if (!stager->layer.facts.code && !stager->stage->ended)
        return layer_failed(&ex->layer, TAR_TRUNCATED, 0, 0, nothing);
    if (!ex->adoption && !(ex->adoption = calloc(1, sizeof *ex->adoption)))
        return layer_failed(&ex->layer, TAR_MEMORY, 0, 0, nothing);
    ex->adoption->stage = stager->stage;
    ex->writer = &adopt_writer;
    return TAR_OK;
}

int adopt_entries(struct extract *ex, const struct extract *stager, uint64_t count)
{
    struct tar_entry entry = {0};
    int code = start(ex, stager), found;

    if (code)
        return -code;
    for (; count; count--) {
        found = stager->stage->log.fd < 0 ? 0 : log_next(&ex->adoption->reader, &stager->stage->log, &ex->adoption->head, &entry);
        if (found < 0)
            return -layer_failed(&ex->layer, LAYER_IO, entry.offset, errno, entry.path);
        if (found == 0)
            return -adopt_end(ex, stager);
        if ((code = adopt_entry(ex, &entry)))
            return -layer_failed(&ex->layer, code, entry.offset, ex->layer.value, entry.path);
    }
    return 1;
}
