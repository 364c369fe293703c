/* What an extractor says of its layer: how far it is, and the first failure. */
#ifndef FASTOCI_LAYER_FACTS_H
#define FASTOCI_LAYER_FACTS_H

#include <stddef.h>
#include <stdint.h>

struct layer_facts {
    int code;         /* TAR_OK, or the first failure */
    uint64_t offset;  /* of the header at fault, in the tar */
    int64_t value;    /* errno for LAYER_IO, else the number that was wrong */
    const char *path; /* name of the entry at fault; holds until extract_free; not NUL-terminated */
    size_t path_len;
    uint64_t entries; /* entries read, whiteouts included */
    uint64_t bytes;   /* bytes of file content written, holes excluded */
    uint64_t extra;   /* bytes of extended attributes and long names, which count as well */
    uint64_t skipped_owners;
    uint64_t skipped_devices;
    uint64_t skipped_xattrs;
    unsigned reasons; /* enum layer_reason: why a layer made alone is not exact on top of others */
    int names_root;   /* an entry gives the root its metadata */
};

/* What a layer needs of lower layers to be exact, so that it cannot be made alone. */
enum layer_reason {
    REASON_IMPLIED_PARENT = 1, /* a directory on the way to an entry that no entry names: lower layers may have it otherwise */
    REASON_HARD_LINK = 2,      /* the target of a hard link may be in lower layers */
    REASON_WHITEOUT = 4,       /* a whiteout in a directory that only lower layers may have */
    REASON_OPAQUE_ROOT = 8,    /* all of lower layers is hidden, which overlayfs cannot be told */
    REASON_END = 16
};

/* The name of one reason; NULL: there is none. */
const char *layer_reason_name(unsigned reason);

#endif
