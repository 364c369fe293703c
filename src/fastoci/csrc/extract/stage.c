/* The stager: of a layer, all that needs no lower layers. Files are made in a flat directory, named by number; every entry goes
 * into the log, for the tree to be made from it later.
 *
 * Invariant: an entry is in the log exactly when an extractor that is fed it would have looked at the tree for it, so a
 * reader of the whole log that then takes the stager's own failure meets the failure that comes first. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/stage.h"

#include "layer/check.h"
#include "extract/file.h"
#include "extract/meta.h"
#include "io/directory.h"
#include "io/retry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int put_pending(struct extract *ex, int whole)
{
    struct stage *stage = ex->stage;

    stage->pending = 0;
    stage->head.whole = (char)whole;
    stage->head.bytes = ex->layer.facts.bytes - stage->head.bytes;
    stage->head.skipped_owners = ex->layer.facts.skipped_owners - stage->head.skipped_owners;
    stage->head.skipped_xattrs = ex->layer.facts.skipped_xattrs - stage->head.skipped_xattrs;
    stage->head.work = ex->layer.work - stage->head.work;
    stage->head.xattr_bytes = ex->entry->type == 'f' ? check_xattr_bytes(ex->entry) : 0;
    return log_put(&stage->log, &stage->head, ex->entry);
}

/* Checks of the target and of device numbers come after the walk to the parent, which may fail first: they are the tree's. */
static int on_entry(void *ctx, const struct tar_entry *entry)
{
    struct extract *ex = ctx;
    struct stage *stage = ex->stage;
    struct split_name name;
    enum action action;
    char number[LOG_NUMBER_SIZE];
    int code = check_entry(&ex->layer, entry, &name, &action);

    if (code)
        return code;
    ex->entry = entry;
    stage->pending = 1;
    stage->head = (struct log_head){
        .number = stage->files,
        .bytes = ex->layer.facts.bytes,
        .skipped_owners = ex->layer.facts.skipped_owners,
        .skipped_xattrs = ex->layer.facts.skipped_xattrs,
        .work = ex->layer.work,
    };
    if (action != ACTION_MAKE || entry->type != 'f')
        return TAR_OK;
    log_name(number, stage->files++);
    return file_make(ex, stage->dir, stage->inherits, number, entry) ? layer_io(&ex->layer) : TAR_OK;
}

static int on_entry_end(void *ctx)
{
    struct extract *ex = ctx;
    int code = file_end(ex);

    if (code)
        return code;
    return put_pending(ex, 1) ? layer_io(&ex->layer) : TAR_OK;
}

static int begin(struct extract *ex, int directory_fd)
{
    struct stage *stage = calloc(1, sizeof *stage);
    struct stat st;

    if (!stage) {
        errno = ENOMEM;
        return -1;
    }
    ex->stage = stage;
    stage->log.fd = -1;
    RETRY(stage->dir, openat(directory_fd, ".", DIRECTORY_FLAGS));
    if (stage->dir < 0 || fstat(stage->dir, &st))
        return -1;
    stage->inherits = meta_inherits(stage->dir, st.st_mode);
    return log_create(&stage->log, stage->dir);
}

/* Log what was being written, so that the adopter sees it. An error of the log is this failure, or comes after it. */
static void on_failure(struct extract *ex)
{
    struct stage *stage = ex->stage;

    if (!stage || stage->log.fd < 0)
        return;
    if (!stage->pending || !put_pending(ex, 0))
        (void)!log_flush(&stage->log);
    stage->ended = 1;
}

static int finish(struct extract *ex)
{
    if (log_flush(&ex->stage->log))
        return layer_io(&ex->layer);
    ex->stage->ended = 1;
    return TAR_OK;
}

static void free_stage(struct extract *ex)
{
    struct stage *stage = ex->stage;

    if (!stage)
        return;
    if (stage->dir >= 0)
        close(stage->dir);
    if (stage->log.fd >= 0)
        close(stage->log.fd);
    free(stage);
    ex->stage = NULL;
}

const struct extract_writer stage_writer = {
    .sink = {on_entry, file_data, on_entry_end, NULL},
    .begin = begin,
    .failed = on_failure,
    .finish = finish,
    .free = free_stage,
};
