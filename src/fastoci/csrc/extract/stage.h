/* The writer that makes aside what needs no lower layers; what it has is for adopt.c to read. */
#ifndef FASTOCI_EXTRACT_STAGE_H
#define FASTOCI_EXTRACT_STAGE_H

#include "extract/context.h"
#include "extract/log.h"

struct stage {
    int dir;
    unsigned inherits; /* what the directory gives to what is made in it */
    uint64_t files;    /* numbers given */
    int pending;       /* an entry that is not in the log yet */
    int ended;         /* the log is complete */
    struct log_head head; /* of the pending entry; bytes and skipped: the totals before it */
    struct log_writer log;
};

extern const struct extract_writer stage_writer;

#endif
