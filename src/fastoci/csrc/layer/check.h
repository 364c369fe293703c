/* What can be said of an entry before the tree is asked: limits, names, owners. All ask the same, whatever entries become. */
#ifndef FASTOCI_LAYER_CHECK_H
#define FASTOCI_LAYER_CHECK_H

#include "layer/context.h"

/* What an entry asks for, as far as its header says. */
enum action { ACTION_NOTHING, ACTION_WHITEOUT, ACTION_OPAQUE, ACTION_ROOT, ACTION_MAKE };

/* A name split at its last component. */
struct split_name {
    struct tar_bytes parent;
    size_t base_len; /* 0: the root */
    char base[NAME_LEN + 1];
};

/* Count and check an entry as far as its header goes. */
int check_entry(struct layer *layer, const struct tar_entry *entry, struct split_name *name, enum action *action);
/* Split and check a name. *aufs: it is below a directory that AUFS left behind. */
int check_name(struct layer *layer, struct tar_bytes path, struct split_name *out, int *aufs);
/* Split and check the target of a hard link, which may be missing. */
int check_target(struct layer *layer, struct tar_bytes link, struct split_name *out);
/* Check the numbers of a device. */
int check_device(struct layer *layer, const struct tar_entry *entry);
uint64_t check_xattr_bytes(const struct tar_entry *entry);

#endif
