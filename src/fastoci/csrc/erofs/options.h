/* What a writer of EROFS files is asked for. */
#ifndef FASTOCI_EROFS_OPTIONS_H
#define FASTOCI_EROFS_OPTIONS_H

#include <stdint.h>

enum erofs_form {
    EROFS_TAR,   /* a layer: the tar byte for byte, and metadata that points into it; blocks of 512 bytes */
    EROFS_4K,    /* a layer: the content of files in blocks of 4096 bytes, and metadata */
    EROFS_MERGED /* an image: metadata that points into the layer files (EROFS_TAR) of its layers */
};

struct erofs_options {
    enum erofs_form form;
    uint8_t uuid[16];
    uint64_t max_entries; /* entries of each layer, whiteouts included */
    uint64_t max_bytes;   /* of each layer: sum of apparent file sizes, of extended attributes, and of names that are long together */
    uint64_t max_memory;  /* bytes that names and metadata may take, 128 and its name for each entry or less; 32 times as many in the file */
    uint64_t max_work;    /* as layer/context.h counts it, beside 512 for each entry */
    const int *stop;      /* a request to stop, as in io/stop.h; NULL: none */
};

#endif
