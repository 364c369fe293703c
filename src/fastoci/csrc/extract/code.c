/* The sentences behind the extractor's codes. */
#include "extract/code.h"

#include <stddef.h>

static const struct code_description DESCRIPTIONS[] = {
    [EXTRACT_IO] = {"io", "the file system refused"},
    [EXTRACT_DOTDOT] = {"unsafe", "a name or the target of a hard link holds '..'"},
    [EXTRACT_EMPTY_NAME] = {"unsafe", "the entry has no name"},
    [EXTRACT_ROOT] = {"unsafe", "the entry would replace the root"},
    [EXTRACT_NAME_TOO_LONG] = {"unsafe", "a component of the name is longer than 255 bytes"},
    [EXTRACT_LINKS] = {"unsafe", "too many symbolic links on the path to the entry"},
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
    [EXTRACT_UNMAPPED] = {"owner", "the owner has no number in this user namespace"},
    [EXTRACT_CHOWN] = {"owner", "this process may not give files away"},
    [EXTRACT_MOUNT] = {"unsafe", "a mount point is in the way: nothing below it is written, and it is not removed"},
};

const struct code_description *extract_code_describe(int code)
{
    if (code < EXTRACT_IO)
        return tar_code_describe(code);
    return code < EXTRACT_CODE_END ? &DESCRIPTIONS[code] : NULL;
}
