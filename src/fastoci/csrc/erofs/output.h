/* Bytes to the file that is written: buffered, one behind the other. */
#ifndef FASTOCI_EROFS_OUTPUT_H
#define FASTOCI_EROFS_OUTPUT_H

#include "erofs/context.h"

/* Each: TAR_OK or a code. Go on at this offset; what lies between stays as it is in the file: zeros, since each byte is written once. */
int erofs_seek(struct erofs *e, struct erofs_output *output, uint64_t at);
int erofs_put(struct erofs *e, struct erofs_output *output, const void *data, size_t len);
int erofs_flush(struct erofs *e, struct erofs_output *output);
/* Write a window of the tar, past the page cache where that is possible. */
int erofs_write_window(struct erofs *e, const uint8_t *data, size_t len, uint64_t at);

#endif
