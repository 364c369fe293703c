/* The sentences behind the codes of tar.h. */
#include "tar.h"

struct description {
    const char *kind;
    const char *sentence;
};

static const struct description DESCRIPTIONS[TAR_CODE_END] = {
    [TAR_MEMORY] = {"io", "out of memory"},
    [TAR_TRUNCATED] = {"format", "the tar stream ends inside a header or a body"},
    [TAR_CHECKSUM] = {"format", "not a tar header: the checksum is wrong"},
    [TAR_NUMBER] = {"format", "a numeric field of the tar header is malformed"},
    [TAR_SIZE] = {"format", "the size of an entry is negative or too large"},
    [TAR_LONE_ZERO] = {"format", "a single zero block stands between tar entries"},
    [TAR_TYPE] = {"unsupported", "the type of the tar entry is unknown"},
    [TAR_SPECIAL_SIZE] = {"limit", "a special tar header is larger than 1 MiB"},
    [TAR_PAX_RECORD] = {"format", "a pax record is malformed"},
    [TAR_PAX_VALUE] = {"format", "a number or time in a pax record is malformed"},
    [TAR_DANGLING] = {"format", "no entry follows a special tar header"},
    [TAR_SPARSE_MAP] = {"format", "the map of a sparse file is malformed or does not fit its size"},
    [TAR_SPARSE_LIMIT] = {"limit", "the map of a sparse file has more than 65536 segments"},
    [TAR_SPARSE_VERSION] = {"unsupported", "the sparse format of the entry is unknown"},
    [EXTRACT_IO] = {"io", "the file system refused"},
    [EXTRACT_DOTDOT] = {"unsafe", "a name or the target of a hard link holds '..'"},
    [EXTRACT_EMPTY_NAME] = {"unsafe", "the entry has no name"},
    [EXTRACT_ROOT] = {"unsafe", "the entry would replace the root"},
    [EXTRACT_NAME_TOO_LONG] = {"unsafe", "a component of the name is longer than 255 bytes"},
    [EXTRACT_LINKS] = {"unsafe", "too many symbolic links on the way to the entry"},
    [EXTRACT_NOT_DIRECTORY] = {"unsafe", "a parent of the entry is not a directory"},
    [EXTRACT_HARDLINK] = {"unsafe", "the target of a hard link is missing, a directory, or inside what the link replaces"},
    [EXTRACT_SYMLINK] = {"unsafe", "the target of a symbolic link is empty or longer than 4095 bytes"},
    [EXTRACT_OWNER] = {"unsafe", "the owner or group is outside 0 to 4294967294"},
    [EXTRACT_DEVICE] = {"unsafe", "the device number is out of range, or is that of an overlay whiteout"},
    [EXTRACT_WHITEOUT] = {"unsafe", "a whiteout without a name, of '.', of '..', or in the place of a directory"},
    [EXTRACT_ENTRIES] = {"limit", "the layer has too many entries"},
    [EXTRACT_BYTES] = {"limit", "the files of the layer have more bytes than the limit"},
    [EXTRACT_CLOSED] = {"io", "the extractor is closed"},
    [EXTRACT_STOPPED] = {"stopped", "the extraction was stopped"},
    [EXTRACT_PATH] = {"unsafe", "a path is longer than 4095 bytes"},
    [EXTRACT_DIRECTORIES] = {"limit", "the layer reaches too many directories"},
    [EXTRACT_WORK] = {"limit", "the names, links and attributes of the layer ask for too much work"},
    [EXTRACT_XATTRS] = {"limit", "the entry has more than 512 extended attributes"},
    [EXTRACT_MOUNT] = {"unsafe", "a mount point is in the way: nothing below it is written, and it is not removed"},
};

int tar_code_info(int code, const char **kind, const char **sentence)
{
    if (code <= TAR_OK || code >= TAR_CODE_END || !DESCRIPTIONS[code].kind)
        return -1;
    *kind = DESCRIPTIONS[code].kind;
    *sentence = DESCRIPTIONS[code].sentence;
    return 0;
}
