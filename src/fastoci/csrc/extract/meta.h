/* Owners, modes, extended attributes and times of one file or directory. */
#ifndef FASTOCI_EXTRACT_META_H
#define FASTOCI_EXTRACT_META_H

#include "extract/context.h"
#include <sys/types.h>
#include <time.h>

/* Where a file or directory comes from, for what must still be done to it. */
struct origin {
    int fresh;         /* made by us just now and still as made */
    unsigned inherits; /* what the directory it was made in may have given it (NODE_INHERITS) */
    mode_t born;       /* the mode it certainly has; 0: unknown */
};

/* The mode of an entry. Where owners are left alone, without the set-id bits that meant another: they would be this user's. */
mode_t meta_mode(const struct extract *ex, const struct tar_entry *entry);
/* Owner, xattrs, mode of an open file or directory. */
int meta_open(struct extract *ex, int fd, const struct tar_entry *entry, struct origin origin, mode_t mode);
/* Owner, xattrs, mode and time of what cannot be opened. */
int meta_closed(struct extract *ex, int dir, const char *name, const struct tar_entry *entry, unsigned inherits);
/* Note that an empty file is in the place of a device. */
int meta_note_device(struct extract *ex, int dir, const char *name, const struct tar_entry *entry);
/* As an implied directory: 0755, root, no xattrs. */
int meta_implied(struct extract *ex, int fd, struct origin origin);
void meta_time(const struct tar_entry *entry, struct timespec times[2]);

/* NODE_INHERITS of an open directory: NODE_ACL by its attributes, NODE_SETGID by its mode. */
unsigned meta_inherits(int fd, mode_t mode);

#endif
