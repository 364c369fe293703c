/* The path to a directory by its spelling in the archive, one component at a time.
 *
 * Invariants: ".." in a link goes to the directory above and stops at the root; an absolute link begins at the root; links and
 * their text are bounded, and so is the work. */
#include "layer/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINKS_MAX = 255,
    LINK_BYTES_MAX = 16384 /* text of all links on one path: four longest paths; it bounds work */
};

static int reserve(struct layer *layer, struct layer_text *buffer, size_t len)
{
    char *bigger;

    if (len <= buffer->capacity)
        return TAR_OK;
    if (!(bigger = realloc(buffer->text, len + 256))) {
        errno = ENOMEM;
        return layer_io(layer);
    }
    buffer->text = bigger;
    buffer->capacity = len + 256;
    return TAR_OK;
}

/* What is still to be walked, and how many links led there. */
struct rest {
    const char *at;
    size_t left;
    size_t links, link_bytes;
};

/* Go on with target + '/' + what is left of the path, in the buffer that does not hold the rest. */
static int follow(struct layer *layer, struct rest *rest, const char *target, size_t len)
{
    struct layer_text *buffer;
    int code;

    layer->work += WORK_LINK;
    rest->link_bytes += len;
    if (++rest->links > LINKS_MAX || rest->link_bytes > LINK_BYTES_MAX)
        return layer_bad(layer, LAYER_LINKS, (int64_t)rest->links);
    buffer = &layer->walk[rest->links & 1];
    if ((code = reserve(layer, buffer, len + 1 + rest->left)))
        return code;
    memcpy(buffer->text, target, len);
    buffer->text[len] = '/';
    memcpy(buffer->text + len + 1, rest->at, rest->left);
    rest->at = buffer->text;
    rest->left += len + 1;
    return TAR_OK;
}

/* Cut off the next component: its length, above NAME_LEN when it is too long. */
static size_t next_name(struct rest *rest, char name[NAME_LEN + 1])
{
    const char *slash = memchr(rest->at, '/', rest->left);
    size_t len = slash ? (size_t)(slash - rest->at) : rest->left, skip = slash ? len + 1 : len;

    if (len > NAME_LEN)
        return len;
    memcpy(name, rest->at, len);
    name[len] = 0;
    rest->at += skip;
    rest->left -= skip;
    return len;
}

static int walk(struct layer *layer, const struct layer_tree *tree, void *ctx, struct rest rest, int create, void **out)
{
    void *directory = tree->root, *child;
    char name[NAME_LEN + 1], target[WALK_TARGET_SIZE];

    while (rest.left) {
        size_t len = next_name(&rest, name), target_len;
        int code;
        if (len > NAME_LEN)
            return layer_bad(layer, LAYER_NAME_TOO_LONG, (int64_t)len);
        layer->work += WORK_COMPONENT;
        if (len == 0 || strcmp(name, ".") == 0)
            continue;
        if (strcmp(name, "..") == 0) {
            child = tree->parent(directory);
            directory = child ? child : directory;
            continue;
        }
        code = tree->enter(ctx, directory, name, len, create, &child, target, &target_len);
        if (code == WALK_LINK) {
            if ((code = follow(layer, &rest, target, target_len)))
                return code;
            child = target[0] == '/' ? tree->root : directory;
        } else if (code) {
            return code;
        }
        directory = child;
    }
    *out = directory;
    return TAR_OK;
}

int layer_remembers(const struct layer *layer, const uint8_t *path, size_t len)
{
    return layer->last_directory && layer->last_len == len && memcmp(layer->last.text, path, len) == 0;
}

void layer_forget(struct layer *layer)
{
    layer->last_directory = NULL;
}

int layer_walk(struct layer *layer, const struct layer_tree *tree, void *ctx, struct tar_bytes path, int create, void **out)
{
    int code;

    *out = tree->root;
    if (path.len == 0)
        return TAR_OK;
    if (layer_remembers(layer, path.data, path.len)) {
        *out = layer->last_directory;
        return TAR_OK;
    }
    code = walk(layer, tree, ctx, (struct rest){(const char *)path.data, path.len, 0, 0}, create, out);
    if (code || (code = reserve(layer, &layer->last, path.len)))
        return code;
    memcpy(layer->last.text, path.data, path.len);
    layer->last_len = path.len;
    layer->last_directory = *out;
    return TAR_OK;
}
