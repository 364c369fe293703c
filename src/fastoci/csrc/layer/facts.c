/* The names of reasons, which stand in files of the store. */
#include "layer/facts.h"

const char *layer_reason_name(unsigned reason)
{
    switch (reason) {
    case REASON_IMPLIED_PARENT:
        return "implied-parent";
    case REASON_HARD_LINK:
        return "hard-link";
    case REASON_WHITEOUT:
        return "whiteout";
    case REASON_OPAQUE_ROOT:
        return "opaque-root";
    default:
        return NULL;
    }
}
