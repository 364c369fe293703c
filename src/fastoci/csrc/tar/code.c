/* The sentences behind the reader's codes. */
#include "tar/code.h"

#include <stddef.h>

static const struct code_description DESCRIPTIONS[] = {
    [TAR_MEMORY] = {"io", "out of memory"},
    [TAR_TRUNCATED] = {"format", "the tar stream ends inside a header or a body"},
    [TAR_CHECKSUM] = {"format", "not a tar header: the checksum is wrong"},
    [TAR_NUMBER] = {"format", "a numeric field of the tar header is malformed"},
    [TAR_SIZE] = {"format", "the size of an entry is negative or too large"},
    [TAR_LONE_ZERO] = {"format", "a single zero block lies between tar entries"},
    [TAR_TYPE] = {"unsupported", "the type of the tar entry is unknown"},
    [TAR_SPECIAL_SIZE] = {"limit", "a special tar header is larger than 1 MiB"},
    [TAR_PAX_RECORD] = {"format", "a pax record is malformed"},
    [TAR_PAX_VALUE] = {"format", "a number or time in a pax record is malformed"},
    [TAR_DANGLING] = {"format", "no entry follows a special tar header"},
    [TAR_SPARSE_MAP] = {"format", "the map of a sparse file is malformed or does not fit its size"},
    [TAR_SPARSE_LIMIT] = {"limit", "the map of a sparse file has more than 65536 segments"},
    [TAR_SPARSE_VERSION] = {"unsupported", "the sparse format of the entry is unknown"},
};

const struct code_description *tar_code_describe(int code)
{
    if (code <= TAR_OK || (size_t)code >= sizeof DESCRIPTIONS / sizeof *DESCRIPTIONS)
        return NULL;
    return &DESCRIPTIONS[code];
}
