/* The writer that makes the tree while the layer is fed. */
#ifndef FASTOCI_EXTRACT_DIRECT_H
#define FASTOCI_EXTRACT_DIRECT_H

#include "extract/context.h"

extern const struct extract_writer direct_writer;

#endif
