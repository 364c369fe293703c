/* Memory for the tree: it only grows, is freed at once, and is counted. */
#ifndef FASTOCI_EROFS_ARENA_H
#define FASTOCI_EROFS_ARENA_H

#include "erofs/context.h"

/* Zeroed memory for size bytes. NULL: the limit, which is noted, or no memory. */
void *erofs_take(struct erofs *e, size_t size);
/* The code of the NULL that erofs_take or erofs_count gave. */
int erofs_no_memory(struct erofs *e);
/* Count memory that is not of the arena: 0, or -1 above the limit. */
int erofs_count(struct erofs *e, uint64_t more, uint64_t less);
void erofs_arena_free(struct erofs_arena *arena);

#endif
