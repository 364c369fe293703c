/* What can be said of an entry before the tree is asked: limits, names, owners. The stager and the extractor ask the same. */
#ifndef FASTOCI_EXTRACT_CHECK_H
#define FASTOCI_EXTRACT_CHECK_H

#include "extract/context.h"

/* What an entry asks for, as far as its header says. */
enum action { ACTION_NOTHING, ACTION_WHITEOUT, ACTION_OPAQUE, ACTION_ROOT, ACTION_MAKE };

/* A name split at its last component. */
struct split_name {
    const uint8_t *parent;
    size_t parent_len;
    size_t base_len; /* 0: the root */
    char base[NAME_LEN + 1];
};

/* Count and check an entry as far as its header goes. */
int check_entry(struct extract *ex, const struct tar_entry *entry, struct split_name *name, enum action *action);
/* Split and check a name. *aufs: it is below a directory that AUFS left behind. */
int check_name(struct extract *ex, struct tar_bytes path, struct split_name *out, int *aufs);
uint64_t check_xattr_bytes(const struct tar_entry *entry);

#endif
