/* Entries go to the tree as the reader finds them. */
#include "extract/direct.h"

#include "extract/apply.h"
#include "extract/directories.h"
#include "extract/file.h"
#include "extract/remove.h"
#include "extract/tree.h"

#include <stddef.h>

int direct_entry(void *ctx, const struct tar_entry *entry)
{
    return apply_entry(ctx, entry);
}

int direct_entry_end(void *ctx)
{
    return file_end(ctx);
}

void direct_failed(struct extract *ex)
{
    (void)ex;
}

const struct extract_writer direct_writer = {
    .sink = {direct_entry, file_data, direct_entry_end, NULL},
    .begin = tree_init,
    .make_file = file_make,
    .hide = apply_whiteout,
    .vacate = remove_name,
    .failed = direct_failed,
    .finish = directories_finish,
    .free = tree_free,
};
