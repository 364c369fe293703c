/* From a decoded header and the extensions before it to one entry. */
#ifndef FASTOCI_TAR_ENTRY_H
#define FASTOCI_TAR_ENTRY_H

#include "tar/context.h"

/* Ends in tar_begin_body, a state that wants more blocks, or tar_fail. */
void tar_begin_entry(struct tar *tar, const uint8_t *block);

#endif
