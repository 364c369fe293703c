/* The stager: of a layer, all that needs no lower layers. Files are made in a flat directory, named by number; every entry goes
 * into the log, for the tree to be made from it later.
 *
 * Invariant: an entry is in the log exactly when an extractor that is fed it would have looked at the tree for it, so whoever
 * reads the log to its end and then takes the stager's own failure meets the failure that comes first. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract_stage.h"

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
    stage->head.bytes = ex->facts.bytes - stage->head.bytes;
    stage->head.skipped_owners = ex->facts.skipped_owners - stage->head.skipped_owners;
    stage->head.skipped_xattrs = ex->facts.skipped_xattrs - stage->head.skipped_xattrs;
    stage->head.work = ex->work - stage->head.work;
    return log_put(&stage->log, &stage->head, ex->entry);
}

/* Checks of the target and of device numbers come after the walk to the parent, which may fail first: they are the tree's. */
static int on_entry(void *ctx, const struct tar_entry *entry)
{
    struct extract *ex = ctx;
    struct stage *stage = ex->stage;
    struct split_name name;
    enum verdict verdict;
    char number[LOG_NUMBER_SIZE];
    int code = extract_judge(ex, entry, &name, &verdict);

    if (code)
        return code;
    ex->entry = entry;
    stage->pending = 1;
    stage->head = (struct log_head){
        .number = stage->files,
        .bytes = ex->facts.bytes,
        .skipped_owners = ex->facts.skipped_owners,
        .skipped_xattrs = ex->facts.skipped_xattrs,
        .work = ex->work,
    };
    if (verdict != VERDICT_MAKE || entry->type != 'f')
        return TAR_OK;
    log_name(number, stage->files++);
    return make_file(ex, stage->dir, stage->inherits, number, entry) ? extract_io(ex) : TAR_OK;
}

static int on_entry_end(void *ctx)
{
    struct extract *ex = ctx;
    int code = extract_file_end(ex);

    if (code)
        return code;
    return put_pending(ex, 1) ? extract_io(ex) : TAR_OK;
}

static int stage_init(struct stage *stage, int directory_fd)
{
    struct stat st;

    stage->log.fd = -1;
    RETRY(stage->dir, openat(directory_fd, ".", DIRECTORY_FLAGS));
    if (stage->dir < 0 || fstat(stage->dir, &st))
        return -1;
    stage->inherits = tree_inherits(stage->dir, st.st_mode);
    return log_create(&stage->log, stage->dir);
}

struct extract *extract_new_stager(int directory_fd, const struct extract_options *options)
{
    static const struct tar_sink SINK = {on_entry, extract_data, on_entry_end};
    struct extract *ex = extract_create(options, &SINK);

    if (!ex)
        return NULL;
    if (!(ex->stage = calloc(1, sizeof *ex->stage))) {
        extract_free(ex);
        return NULL;
    }
    if (stage_init(ex->stage, directory_fd))
        ex->start_error = errno;
    return ex;
}

/* What cannot be written is what failed, or is told by the failure that is there already. */
void stage_failed(struct extract *ex)
{
    struct stage *stage = ex->stage;

    if (stage->log.fd < 0)
        return;
    if (!stage->pending || !put_pending(ex, 0))
        (void)!log_flush(&stage->log);
    stage->ended = 1;
}

int stage_finish(struct extract *ex)
{
    if (log_flush(&ex->stage->log))
        return extract_io(ex);
    ex->stage->ended = 1;
    return TAR_OK;
}

void stage_free(struct extract *ex)
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
