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
};

#endif
