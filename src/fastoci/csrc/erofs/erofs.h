/* Writes a layer as one EROFS file that mounts: tar bytes in, a file out. The tar lies in it byte for byte, from byte 4096 on, and
 * metadata behind it point into it. Or the metadata of all layers of an image, which point into their layer files.
 *
 * Entries are judged as the extractor judges them. The file is the same however the bytes are cut. Its first block is written last, so
 * a file that is not whole does not mount. It is neither synced nor renamed. It knows no compression, no digests and no Python.
 * Spec: kernel Documentation/filesystems/erofs.rst, erofs_fs.h; OCI image-spec v1.1 layer.md. Codes are those of layer/code.h. */
#ifndef FASTOCI_EROFS_EROFS_H
#define FASTOCI_EROFS_EROFS_H

#include "erofs/options.h"
#include "layer/code.h"
#include "layer/facts.h"

#include <stddef.h>
#include <stdint.h>

struct erofs;

/* What the file is, once it is finished. */
struct erofs_file {
    uint64_t tar_size;    /* of a layer: bytes that were fed */
    uint64_t metadata_at; /* where the metadata begin */
    uint64_t size;
    uint64_t memory;  /* that names and metadata take */
};

/* fd: an empty file, open for reading and writing; it stays the caller's. NULL: no memory. */
struct erofs *erofs_new(int fd, const struct erofs_options *options);

/* Parse and write len bytes; TAR_OK or a code. After a code the file is lost and every call returns that code. */
int erofs_feed(struct erofs *e, const uint8_t *data, size_t len);

/* Of an image, for each layer, the lowest first: begin, feed or read all of its tar, end. The tag is at most 64 bytes; read passes over
 * the content of files. */
int erofs_begin_layer(struct erofs *e, const uint8_t *tag, size_t len);
int erofs_read_layer(struct erofs *e, int fd, uint64_t offset, uint64_t size);
int erofs_end_layer(struct erofs *e);

/* Demand the end of the archive, and make the file whole; TAR_OK or a code. */
int erofs_finish(struct erofs *e);

/* Free all but the facts; idempotent. */
void erofs_close(struct erofs *e);
/* erofs_close, then the rest; NULL is fine. */
void erofs_free(struct erofs *e);

/* As of the end of the last call; from any thread, also while a call is under way. */
void erofs_get_facts(const struct erofs *e, struct layer_facts *facts);
void erofs_get_file(const struct erofs *e, struct erofs_file *file);

#endif
