/* Memory for the tree: counted, and above a limit in the file that is written, far behind its end, where the kernel can take it out of
 * memory. The tree itself is in blocks that are freed at once. */
#ifndef FASTOCI_EROFS_ARENA_H
#define FASTOCI_EROFS_ARENA_H

#include "erofs/context.h"

/* Zeroed memory for size bytes of the tree. NULL: the limit, the file takes no more, or no memory. */
void *erofs_take(struct erofs *e, size_t size);
/* The same for what is given back by erofs_drop. */
void *erofs_alloc(struct erofs *e, size_t size);
void erofs_drop(struct erofs *e, void *memory);
/* The code of a NULL of these. */
int erofs_no_memory(struct erofs *e);
/* LAYER_FILE_SIZE when so many bytes of the file come too near to the memory in it, or TAR_OK. */
int erofs_keep_off(struct erofs *e, uint64_t size);
/* Free what erofs_take gave, and these, which may be NULL. The file is not touched, since it may be closed; but none of this may be cut
 * off it before. What was allocated stays counted. */
void erofs_arena_free(struct erofs_arena *arena, void *table, void *pending);

#endif
