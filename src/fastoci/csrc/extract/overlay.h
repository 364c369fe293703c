/* The writer that makes a layer alone, in the form of overlayfs. */
#ifndef FASTOCI_EXTRACT_OVERLAY_H
#define FASTOCI_EXTRACT_OVERLAY_H

#include "extract/context.h"

extern const struct extract_writer overlay_writer;

#endif
