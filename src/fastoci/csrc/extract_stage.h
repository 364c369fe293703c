/* What the stager has and whoever adopts from it reads. Not for other units. */
#ifndef FASTOCI_EXTRACT_STAGE_H
#define FASTOCI_EXTRACT_STAGE_H

#include "extract_internal.h"
#include "extract_log.h"

struct stage {
    int dir;
    unsigned inherits; /* what the directory gives to what is made in it */
    uint64_t files;    /* numbers given */
    int pending;       /* an entry that is not in the log yet */
    int ended;         /* the log is complete */
    struct log_head head; /* of the pending entry; bytes and skipped: the totals before it */
    struct log_writer log;
};

#endif
