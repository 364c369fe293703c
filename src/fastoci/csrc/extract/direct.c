/* Entries go to the tree as the reader finds them. */
#include "extract/direct.h"

#include "extract/apply.h"
#include "extract/directories.h"
#include "extract/file.h"
#include "extract/tree.h"

static int on_entry(void *ctx, const struct tar_entry *entry)
{
    return apply_entry(ctx, entry);
}

static int on_entry_end(void *ctx)
{
    return file_end(ctx);
}

/* What has been made is the caller's to remove. */
static void on_failure(struct extract *ex)
{
    (void)ex;
}

const struct extract_writer direct_writer = {
    .sink = {on_entry, file_data, on_entry_end},
    .begin = tree_init,
    .make_file = file_make,
    .failed = on_failure,
    .finish = directories_finish,
    .free = tree_free,
};
