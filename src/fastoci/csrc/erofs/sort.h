/* The names of a directory in the order of their bytes. */
#ifndef FASTOCI_EROFS_SORT_H
#define FASTOCI_EROFS_SORT_H

#include "erofs/context.h"

/* Sort what is listed: TAR_OK or a code. */
int erofs_sort(struct erofs *e, struct erofs_directory *directory);
int erofs_compare(const char *a, size_t a_len, const char *b, size_t b_len);

#endif
