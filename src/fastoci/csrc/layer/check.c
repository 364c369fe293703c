/* Checks in an order that is part of the contract: counts, the name from its end to its beginning, whiteouts, owners. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "layer/check.h"

#include "io/stop.h"
#include "layer/walk.h"

#include <errno.h>
#include <string.h>

enum {
    XATTRS_MAX = 512,
    NAMES_FREE = 512, /* bytes of an entry's name and link that do not count as size */
    MAJOR_MAX = 0xfff,
    MINOR_MAX = 0xfffff
};

static const int64_t OWNER_MAX = 4294967294; /* 2^32-1 is "no change" to chown, and larger ones would wrap */

static const char WHITEOUT[] = ".wh.", OPAQUE[] = ".wh..wh..opq", AUFS[] = ".wh..wh.";

static int begins(const uint8_t *text, size_t len, const char *prefix)
{
    return len >= strlen(prefix) && memcmp(text, prefix, strlen(prefix)) == 0;
}

/* Every component of a parent part. *aufs: below a directory that AUFS left behind. */
static int check_parents(struct layer *layer, const uint8_t *at, size_t left, int *aufs)
{
    while (left) {
        const uint8_t *slash = memchr(at, '/', left);
        size_t len = slash ? (size_t)(slash - at) : left;
        if (len > NAME_LEN)
            return layer_bad(layer, LAYER_NAME_TOO_LONG, (int64_t)len);
        if (len == 2 && at[0] == '.' && at[1] == '.')
            return LAYER_DOTDOT;
        if (begins(at, len, AUFS))
            *aufs = 1;
        else if (begins(at, len, WHITEOUT))
            return LAYER_WHITEOUT;
        len += slash != NULL;
        at += len;
        left -= len;
    }
    return TAR_OK;
}

static size_t trimmed(const uint8_t *data, size_t len)
{
    for (;;) {
        if (len && data[len - 1] == '/')
            len--;
        else if (len && data[len - 1] == '.' && (len == 1 || data[len - 2] == '/'))
            len--;
        else
            return len;
    }
}

/* The parent part that was checked last is not checked again. */
int check_name(struct layer *layer, struct tar_bytes path, struct split_name *out, int *aufs)
{
    size_t len = trimmed(path.data, path.len);
    const uint8_t *slash = len ? memrchr(path.data, '/', len) : NULL;
    const uint8_t *base = slash ? slash + 1 : path.data;

    *aufs = 0;
    out->parent = (struct tar_bytes){path.data, slash ? (size_t)(slash - path.data) : 0};
    out->base_len = len - (size_t)(base - path.data);
    if (path.len == 0)
        return LAYER_EMPTY_NAME;
    if (path.len > PATH_LEN)
        return layer_bad(layer, LAYER_PATH, (int64_t)path.len);
    if (out->base_len > NAME_LEN)
        return layer_bad(layer, LAYER_NAME_TOO_LONG, (int64_t)out->base_len);
    memcpy(out->base, base, out->base_len);
    out->base[out->base_len] = 0;
    if (strcmp(out->base, "..") == 0)
        return LAYER_DOTDOT;
    if (layer_remembers(layer, path.data, out->parent.len))
        return TAR_OK;
    return check_parents(layer, path.data, out->parent.len, aufs);
}

int check_target(struct layer *layer, struct tar_bytes link, struct split_name *out)
{
    int aufs, code = check_name(layer, link, out, &aufs);

    if (code == LAYER_EMPTY_NAME || (!code && out->base_len == 0))
        return layer_bad(layer, LAYER_HARDLINK, ENOENT);
    return code;
}

int check_device(struct layer *layer, const struct tar_entry *entry)
{
    if (entry->devmajor < 0 || entry->devmajor > MAJOR_MAX || entry->devminor < 0 || entry->devminor > MINOR_MAX ||
        (entry->type == 'c' && entry->devmajor == 0 && entry->devminor == 0)) /* overlay reads 0:0 as a whiteout */
        return layer_bad(layer, LAYER_DEVICE, entry->devmajor);
    return TAR_OK;
}

static int check_owner(struct layer *layer, const struct tar_entry *entry)
{
    if (entry->uid < 0 || entry->uid > OWNER_MAX)
        return layer_bad(layer, LAYER_OWNER, entry->uid);
    if (entry->gid < 0 || entry->gid > OWNER_MAX)
        return layer_bad(layer, LAYER_OWNER, entry->gid);
    if (entry->type == 'l' && (entry->link.len == 0 || entry->link.len > TARGET_MAX))
        return layer_bad(layer, LAYER_SYMLINK, (int64_t)entry->link.len);
    if (entry->type == 'h' && entry->link.len > PATH_LEN)
        return layer_bad(layer, LAYER_PATH, (int64_t)entry->link.len);
    return TAR_OK;
}

uint64_t check_xattr_bytes(const struct tar_entry *entry)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < entry->xattr_count; i++)
        sum += entry->xattrs[i].key.len + entry->xattrs[i].value.len;
    return sum;
}

static int count(struct layer *layer, const struct tar_entry *entry)
{
    uint64_t names = entry->path.len + entry->link.len;

    layer->facts.entries++;
    if (++layer->made > layer->limits.max_entries)
        return layer_bad(layer, LAYER_ENTRIES, (int64_t)layer->limits.max_entries);
    if (entry->xattr_count > XATTRS_MAX)
        return layer_bad(layer, LAYER_XATTRS, (int64_t)entry->xattr_count);
    if (entry->size > layer->limits.max_bytes - layer->size)
        return layer_bad(layer, LAYER_BYTES, (int64_t)layer->limits.max_bytes);
    layer->size += entry->size;
    return layer_count_extra(layer, (names > NAMES_FREE ? names : 0) + check_xattr_bytes(entry));
}

static int check_whiteout(const struct split_name *name, enum action *action)
{
    const char *hidden = name->base + strlen(WHITEOUT);

    *action = ACTION_NOTHING;
    if (strcmp(name->base, OPAQUE) == 0)
        *action = ACTION_OPAQUE;
    else if (begins((const uint8_t *)name->base, name->base_len, AUFS))
        return TAR_OK;
    else if (hidden[0] == 0 || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
        return LAYER_WHITEOUT;
    else
        *action = ACTION_WHITEOUT;
    return TAR_OK;
}

int check_entry(struct layer *layer, const struct tar_entry *entry, struct split_name *name, enum action *action)
{
    int aufs, code;

    *action = ACTION_NOTHING;
    layer->value = 0;
    if (stop_asked(layer->limits.stop))
        return LAYER_STOPPED;
    if ((code = count(layer, entry)) || (code = check_name(layer, entry->path, name, &aufs)) || aufs)
        return code;
    if (begins((const uint8_t *)name->base, name->base_len, WHITEOUT))
        return check_whiteout(name, action);
    if ((code = check_owner(layer, entry)))
        return code;
    *action = name->base_len ? ACTION_MAKE : ACTION_ROOT;
    return name->base_len || entry->type == 'd' ? TAR_OK : LAYER_ROOT;
}
