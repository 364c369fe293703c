/* Why a layer cannot become files, as codes from 32 on; those below are the tar reader's. */
#ifndef FASTOCI_EXTRACT_CODE_H
#define FASTOCI_EXTRACT_CODE_H

#include "tar/code.h"

enum extract_code {
    EXTRACT_IO = 32,            /* value: errno */
    EXTRACT_DOTDOT = 33,        /* a ".." component in a name or in the target of a hard link */
    EXTRACT_EMPTY_NAME = 34,
    EXTRACT_ROOT = 35,          /* the root itself as something else than a directory */
    EXTRACT_NAME_TOO_LONG = 36, /* a component above 255 bytes; value: its length */
    EXTRACT_LINKS = 37,         /* more than 255 symbolic links on the path */
    EXTRACT_NOT_DIRECTORY = 38, /* a parent is not a directory */
    EXTRACT_HARDLINK = 39,      /* the target is missing, a directory, or below what the entry replaces; value: errno or 0 */
    EXTRACT_SYMLINK = 40,       /* a target that is empty or longer than 4095 bytes; value: its length */
    EXTRACT_OWNER = 41,         /* uid or gid outside 0 .. 2^32-2; value: the number */
    EXTRACT_DEVICE = 42,        /* a number out of range or 0:0; value: the major number */
    EXTRACT_WHITEOUT = 43,      /* a whiteout of nothing, of "." or of ".." */
    EXTRACT_ENTRIES = 44,       /* value: the limit */
    EXTRACT_BYTES = 45,         /* value: the limit */
    EXTRACT_CLOSED = 46,        /* used after extract_close or after the end */
    EXTRACT_STOPPED = 47,       /* on request */
    EXTRACT_MOUNT = 48,         /* a mount point is on the path, or in what would be removed */
    EXTRACT_PATH = 49,          /* a path above 4095 bytes, as it is spelled or below the root; value: its length */
    EXTRACT_DIRECTORIES = 50,   /* value: the limit */
    EXTRACT_WORK = 51,          /* value: the limit */
    EXTRACT_XATTRS = 52,        /* more than 512 extended attributes; value: their number */
    EXTRACT_UNMAPPED = 53,      /* an owner without a number in this user namespace; value: uid << 32 | gid */
    EXTRACT_CHOWN = 54,         /* this process may not give files away; value: uid << 32 | gid */
    EXTRACT_CODE_END = 55
};

/* As tar_code_describe, for the reader's codes and for these. */
const struct code_description *extract_code_describe(int code);

#endif
