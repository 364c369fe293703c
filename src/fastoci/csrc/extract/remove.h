/* What an entry removes from the tree: one name with all below it, or only what lower layers left. */
#ifndef FASTOCI_EXTRACT_REMOVE_H
#define FASTOCI_EXTRACT_REMOVE_H

#include "extract/context.h"

/* Remove whatever has this name; nothing there is fine. */
int remove_name(struct extract *ex, struct node *dir, const char *name);
/* Remove what lower layers left in a directory; keep what this layer made. */
int remove_lower(struct extract *ex, struct node *dir);
/* The same for one name. */
int remove_lower_name(struct extract *ex, struct node *dir, const char *name);

#endif
