/* The sentences behind the extractor's codes. */
#include "layer/code.h"

#include <stddef.h>

static const struct code_description DESCRIPTIONS[] = {
    [LAYER_IO] = {"io", "the file system refused"},
    [LAYER_DOTDOT] = {"unsafe", "a name or the target of a hard link holds '..'"},
    [LAYER_EMPTY_NAME] = {"unsafe", "the entry has no name"},
    [LAYER_ROOT] = {"unsafe", "the entry would replace the root"},
    [LAYER_NAME_TOO_LONG] = {"unsafe", "a component of the name is longer than 255 bytes"},
    [LAYER_LINKS] = {"unsafe", "too many symbolic links on the path to the entry"},
    [LAYER_NOT_DIRECTORY] = {"unsafe", "a parent of the entry is not a directory"},
    [LAYER_HARDLINK] = {"unsafe", "the target of a hard link is missing, a directory, or inside what the link replaces"},
    [LAYER_SYMLINK] = {"unsafe", "the target of a symbolic link is empty or longer than 4095 bytes"},
    [LAYER_OWNER] = {"unsafe", "the owner or group is outside 0 to 4294967294"},
    [LAYER_DEVICE] = {"unsafe", "the device number is out of range, or is that of an overlay whiteout"},
    [LAYER_WHITEOUT] = {"unsafe", "a whiteout without a name, of '.', of '..', or in the place of a directory"},
    [LAYER_ENTRIES] = {"limit", "the layer has too many entries"},
    [LAYER_BYTES] = {"limit", "the files of the layer have more bytes than the limit"},
    [LAYER_CLOSED] = {"io", "the reader of the layer is closed"},
    [LAYER_STOPPED] = {"stopped", "the extraction was stopped"},
    [LAYER_PATH] = {"unsafe", "a path is longer than 4095 bytes"},
    [LAYER_DIRECTORIES] = {"limit", "the layer reaches too many directories"},
    [LAYER_WORK] = {"limit", "the names, links and attributes of the layer ask for too much work"},
    [LAYER_XATTRS] = {"limit", "the entry has more than 512 extended attributes"},
    [LAYER_UNMAPPED] = {"owner", "the owner has no number in this user namespace"},
    [LAYER_CHOWN] = {"owner", "this process may not give files away"},
    [LAYER_MOUNT] = {"unsafe", "a mount point is in the way: nothing below it is written, and it is not removed"},
    [LAYER_MEMORY] = {"limit", "the names of the layer need more memory than the limit (--memory)"},
    [LAYER_SPARSE] = {"limit", "a sparse file is too large for an EROFS file"},
    [LAYER_FILE_SIZE] = {"limit", "the layer is too large for an EROFS file"},
};

const struct code_description *layer_code_describe(int code)
{
    if (code < LAYER_IO)
        return tar_code_describe(code);
    return code < LAYER_CODE_END ? &DESCRIPTIONS[code] : NULL;
}
