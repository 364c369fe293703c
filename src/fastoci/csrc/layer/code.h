/* Why a layer cannot become files, as codes from 32 on; those below are the tar reader's. */
#ifndef FASTOCI_LAYER_CODE_H
#define FASTOCI_LAYER_CODE_H

#include "tar/code.h"

enum layer_code {
    LAYER_IO = 32,            /* value: errno */
    LAYER_DOTDOT = 33,        /* a ".." component in a name or in the target of a hard link */
    LAYER_EMPTY_NAME = 34,
    LAYER_ROOT = 35,          /* the root itself as something else than a directory */
    LAYER_NAME_TOO_LONG = 36, /* a component above 255 bytes; value: its length */
    LAYER_LINKS = 37,         /* more than 255 symbolic links on the path */
    LAYER_NOT_DIRECTORY = 38, /* a parent is not a directory */
    LAYER_HARDLINK = 39,      /* the target is missing, a directory, or below what the entry replaces; value: errno or 0 */
    LAYER_SYMLINK = 40,       /* a target that is empty or longer than 4095 bytes; value: its length */
    LAYER_OWNER = 41,         /* uid or gid outside 0 .. 2^32-2; value: the number */
    LAYER_DEVICE = 42,        /* a number out of range or 0:0; value: the major number */
    LAYER_WHITEOUT = 43,      /* a whiteout of nothing, of "." or of ".." */
    LAYER_ENTRIES = 44,       /* value: the limit */
    LAYER_BYTES = 45,         /* value: the limit */
    LAYER_CLOSED = 46,        /* used after it was closed or after the end */
    LAYER_STOPPED = 47,       /* on request */
    LAYER_MOUNT = 48,         /* a mount point is on the path, or in what would be removed */
    LAYER_PATH = 49,          /* a path above 4095 bytes, as it is spelled or below the root; value: its length */
    LAYER_DIRECTORIES = 50,   /* value: the limit */
    LAYER_WORK = 51,          /* value: the limit */
    LAYER_XATTRS = 52,        /* more than 512 extended attributes; value: their number */
    LAYER_UNMAPPED = 53,      /* an owner without a number in this user namespace; value: uid << 32 | gid */
    LAYER_CHOWN = 54,         /* this process may not give files away; value: uid << 32 | gid */
    LAYER_MEMORY = 55,        /* the tree of an EROFS file needs more; value: the limit */
    LAYER_SPARSE = 56,        /* a sparse file too large for a table of chunks; value: its size */
    LAYER_FILE_SIZE = 57,     /* more blocks than an EROFS file can have; value: their number */
    LAYER_CODE_END = 58
};

/* As tar_code_describe, for the reader's codes and for these. */
const struct code_description *layer_code_describe(int code);

#endif
