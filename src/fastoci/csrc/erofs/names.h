/* The names of a directory as they are on the disk, block by block. */
#ifndef FASTOCI_EROFS_NAMES_H
#define FASTOCI_EROFS_NAMES_H

#include "erofs/context.h"

/* Where the next block begins: "." and ".." are names among the others. */
struct erofs_cursor {
    const struct erofs_directory *directory;
    const struct erofs_name *name; /* sorted; NULL: none is left */
    unsigned dots;                 /* "." and ".." are passed */
};

struct erofs_cursor erofs_first_name(const struct erofs_directory *directory);
/* Pass over the names of one block: the bytes that they take, 0 when none is left. */
size_t erofs_next_block(const struct erofs *e, struct erofs_cursor *cursor);
/* Write them: the bytes. */
size_t erofs_put_block(const struct erofs *e, struct erofs_cursor *cursor, uint8_t *out);

#endif
