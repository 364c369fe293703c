/* What a user who is not root cannot give to files: owners, devices, privileged attributes, set-id bits.
 *
 * Noted by inode, not by path: what becomes of a name in layers above, by whatever rule, needs no second look. Every file that
 * is made is noted, also one that lost nothing, for an inode may have been another file's that is gone. Of two notes on an
 * inode the later counts. One for all layers of a tree; notes come from several threads, the rest from one at a time. */
#ifndef FASTOCI_EXTRACT_LOSSES_H
#define FASTOCI_EXTRACT_LOSSES_H

#include "tar/sink.h"

#include <stddef.h>
#include <stdint.h>

enum loss_kind {
    LOSS_NONE = 0,
    LOSS_METADATA = 1, /* the file is there, without all that it should have */
    LOSS_DEVICE = 2    /* an empty file is in the place of a device */
};

/* A record, 64 bytes: as it is in the file. */
struct loss {
    uint64_t inode, number; /* number: of the note, from 0 on */
    uint64_t values_at;     /* where its attributes are in the other file */
    int64_t mtime;
    uint32_t values_len, uid, gid, mode; /* mode: permissions, and the type of a device */
    uint32_t mtime_ns, kind, devmajor, devminor;
};

struct losses {
    int records, values;  /* two files, the caller's */
    uint64_t count, size; /* records, bytes of values */
    struct loss *sorted;  /* NULL: not yet */
    size_t sorted_size;
};

/* Note on a file; entry is NULL for a directory that no entry names. 0 or -1 with errno. */
int losses_note(struct losses *losses, uint64_t inode, enum loss_kind kind, const struct tar_entry *entry, int with_values);

/* Make the notes ready to be found; 0 or -1 with errno. Nothing is noted any more. */
int losses_sort(struct losses *losses);
/* The note that counts for an inode; NULL: there is none, or nothing was lost. After losses_sort. */
const struct loss *losses_find(const struct losses *losses, uint64_t inode);
/* Let go of what losses_sort made. */
void losses_close(struct losses *losses);

#endif
