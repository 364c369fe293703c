/* What the reader of tars refuses, as codes from 1 to 31. Those of a sink lie above. */
#ifndef FASTOCI_TAR_CODE_H
#define FASTOCI_TAR_CODE_H

enum tar_code {
    TAR_OK = 0,
    TAR_MEMORY = 1,
    TAR_TRUNCATED = 2,       /* the stream ends inside a header or a body */
    TAR_CHECKSUM = 3,        /* value: the sum of the header's bytes */
    TAR_NUMBER = 4,          /* a numeric header field is malformed; value: its offset in the header */
    TAR_SIZE = 5,            /* a size is negative or too large; value: the size */
    TAR_LONE_ZERO = 6,       /* a zero block that is not followed by a second one */
    TAR_TYPE = 7,            /* value: the type byte */
    TAR_SPECIAL_SIZE = 8,    /* a special header is larger than 1 MiB; value: its size */
    TAR_PAX_RECORD = 9,      /* value: offset of the record in the extended header */
    TAR_PAX_VALUE = 10,      /* a pax number or time is malformed; value as TAR_PAX_RECORD */
    TAR_DANGLING = 11,       /* a special header that no entry follows */
    TAR_SPARSE_MAP = 12,     /* value: index of the segment at fault */
    TAR_SPARSE_LIMIT = 13,   /* value: the number of segments */
    TAR_SPARSE_VERSION = 14  /* a sparse form this reader does not know */
};

/* A kind ("format", "unsafe", "unsupported", "limit", "io", "stopped") and one sentence for each code. */
struct code_description {
    const char *kind;
    const char *sentence;
};

/* NULL when there is no such code. */
const struct code_description *tar_code_describe(int code);

#endif
