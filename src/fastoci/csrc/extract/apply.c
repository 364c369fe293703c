/* What an entry asks for, done by remove.c and make.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/apply.h"

#include "layer/check.h"
#include "extract/make.h"
#include "extract/remove.h"
#include "extract/walk.h"

#include <string.h>

int apply_whiteout(struct extract *ex, const struct split_name *name, int opaque)
{
    struct node *dir;
    int code;

    if (!ex->options.base)
        return TAR_OK;
    code = walk_to(ex, name->parent, 0, &dir);
    if (code == WALK_MISSING || code == LAYER_NOT_DIRECTORY)
        return TAR_OK; /* nothing is there that could be hidden */
    if (code)
        return code;
    return opaque ? remove_lower(ex, dir) : remove_lower_name(ex, dir, name->base + strlen(".wh."));
}

int apply_entry(struct extract *ex, const struct tar_entry *entry)
{
    struct split_name name;
    enum action action;
    int code = check_entry(&ex->layer, entry, &name, &action);

    if (code || action == ACTION_NOTHING || (action == ACTION_ROOT && ex->options.snapshot))
        return code;
    if (action == ACTION_WHITEOUT || action == ACTION_OPAQUE) {
        code = ex->writer->hide(ex, &name, action == ACTION_OPAQUE);
        return code ? code : layer_worked(&ex->layer);
    }
    ex->entry = entry;
    code = action == ACTION_ROOT ? make_root(ex, entry) : make_entry(ex, &name, entry);
    return code ? code : layer_worked(&ex->layer);
}
