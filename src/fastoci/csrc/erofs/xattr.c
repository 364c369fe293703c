/* Extended attributes as they are on the disk: a head, then each as {u8 length of the name, u8 prefix, u16 length of the value}, the
 * name behind its prefix, the value, and padding. What a file system would refuse from the extractor is not there. */
#include "erofs/xattr.h"

#include "erofs/acl.h"
#include "erofs/arena.h"
#include "erofs/tree.h"
#include "layer/xattr.h"

#include <string.h>
#include <sys/stat.h>

enum { ENTRY = 4, VALUE_MAX = 65535, TRUSTED = 4, REVISION_2 = 20, REVISION_3 = 24 };
enum { SIZE_LIMIT = XATTR_HEAD + 4 * 65534 - 2 * XATTR_OVERLAY }; /* their number of words has 16 bits */

static const struct prefix {
    const char *text;
    uint8_t index;
    uint8_t whole; /* it is the whole name */
} PREFIXES[] = {{"user.", 1, 0}, {"system.posix_acl_access", 2, 1}, {"system.posix_acl_default", 3, 1}, {"trusted.", TRUSTED, 0}, {"security.", 6, 0}};

static const struct prefix *prefix_of(const char *key)
{
    for (size_t i = 0; i < sizeof PREFIXES / sizeof *PREFIXES; i++)
        if (strncmp(key, PREFIXES[i].text, strlen(PREFIXES[i].text)) == 0)
            return &PREFIXES[i];
    return NULL;
}

/* A capability of a file in revision 2 or 3; the kernel takes no other. */
static int is_capability(const struct tar_bytes *value)
{
    static const uint8_t NOBODY[4] = {0xff, 0xff, 0xff, 0xff};
    const uint8_t *data = value->data;

    if (value->len < REVISION_2 || data[0] > 1 || data[1] || data[2])
        return 0;
    return data[3] == 2 ? value->len == REVISION_2 : data[3] == 3 && value->len == REVISION_3 && memcmp(data + REVISION_2, NOBODY, 4);
}

/* Put a value into out: its length, or -1 when the kernel would refuse it, or when there is none to be set (*quiet). */
static long put_value(const struct erofs_inode *inode, const struct prefix *prefix, const struct tar_xattr *xattr, uint8_t *out, int *quiet)
{
    int found;

    *quiet = 0;
    if (prefix->index == 1 && !S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
        return -1;
    if (prefix->index == 6 && !is_capability(&xattr->value))
        return -1;
    if (!prefix->whole) {
        memcpy(out, xattr->value.data, xattr->value.len);
        return (long)xattr->value.len;
    }
    if (S_ISLNK(inode->mode) || (prefix->index == 3 && !S_ISDIR(inode->mode)))
        return -1;
    found = erofs_acl(xattr->value.data, xattr->value.len, inode->mode, prefix->index == 2, out);
    *quiet = found == 0;
    return found > 0 ? (long)xattr->value.len : -1;
}

/* Append one to xattrs, which has room for it: 1, 0 when there is nothing to be set, or -1 when it cannot be. */
static int append(const struct erofs_inode *inode, const struct tar_xattr *xattr, const char *key, struct erofs_xattrs *xattrs)
{
    const struct prefix *prefix = prefix_of(key);
    uint8_t *out = xattrs->data + xattrs->size;
    size_t name = prefix ? xattr->key.len - strlen(prefix->text) : 0;
    uint64_t size = ENTRY + name + xattr->value.len;
    long value;
    int quiet;

    if (!prefix || (name == 0) != prefix->whole || xattr->value.len > VALUE_MAX || erofs_round_up(xattrs->size + size, 4) > SIZE_LIMIT)
        return -1;
    if ((value = put_value(inode, prefix, xattr, out + ENTRY + name, &quiet)) < 0)
        return quiet ? 0 : -1;
    out[0] = (uint8_t)name;
    out[1] = prefix->index;
    out[2] = (uint8_t)value;
    out[3] = (uint8_t)(value >> 8);
    memcpy(out + ENTRY, key + strlen(prefix->text), name);
    xattrs->size += (uint32_t)erofs_round_up(ENTRY + name + (uint64_t)value, 4);
    return 1;
}

static int is_allowed(const struct tar_xattr *xattr, char key[NAME_LEN + 1])
{
    size_t len = xattr->key.len < NAME_LEN ? xattr->key.len : NAME_LEN;

    memcpy(key, xattr->key.data, len);
    key[len] = 0;
    return layer_xattr_allowed(key);
}

int erofs_set_xattrs(struct erofs *e, struct erofs_inode *inode, const struct tar_entry *entry)
{
    char key[NAME_LEN + 1];
    size_t room = XATTR_HEAD;
    struct erofs_xattrs *xattrs;

    for (size_t i = 0; i < entry->xattr_count; i++)
        if (is_allowed(&entry->xattrs[i], key))
            room += ENTRY + entry->xattrs[i].key.len + entry->xattrs[i].value.len + 3;
    if (room == XATTR_HEAD)
        return TAR_OK;
    if (!(xattrs = erofs_take(e, sizeof *xattrs + room)))
        return erofs_no_memory(e);
    xattrs->size = XATTR_HEAD;
    for (size_t i = 0; i < entry->xattr_count; i++) {
        const struct tar_xattr *xattr = &entry->xattrs[i];
        if (!is_allowed(xattr, key))
            continue;
        e->layer.work += WORK_XATTR + xattr->value.len / 256;
        if (xattr->key.len > NAME_LEN || append(inode, xattr, key, xattrs) < 0)
            e->layer.facts.skipped_xattrs++;
    }
    inode->xattrs = xattrs->size > XATTR_HEAD ? xattrs : NULL;
    return TAR_OK;
}

/* --- overlay's own, of a layer by itself --- */

/* How many of overlay's attributes an inode has: it is opaque; and whiteouts in it are hidden also where nothing is below it. */
static unsigned overlay_of(const struct erofs *e, const struct erofs_inode *inode, int *opaque)
{
    const struct erofs_directory *directory = erofs_single(e) ? erofs_directory_of((struct erofs_inode *)inode) : NULL;

    *opaque = directory && directory->flags & DIR_OPAQUE;
    return (unsigned)*opaque + (directory && directory->flags & DIR_WHITEOUTS ? 1 : 0);
}

uint32_t erofs_xattr_size(const struct erofs *e, const struct erofs_inode *inode)
{
    int opaque;
    unsigned overlay = overlay_of(e, inode, &opaque);
    uint32_t own = inode->xattrs ? inode->xattrs->size : overlay ? XATTR_HEAD : 0;

    return own + overlay * XATTR_OVERLAY;
}

static void put_overlay(uint8_t *out, const char *name, uint8_t value)
{
    out[0] = (uint8_t)strlen(name);
    out[1] = TRUSTED;
    out[2] = value != 0;
    memcpy(out + ENTRY, name, strlen(name));
    out[ENTRY + strlen(name)] = value;
}

void erofs_put_xattrs(const struct erofs *e, const struct erofs_inode *inode, uint8_t *out)
{
    int opaque;
    unsigned overlay = overlay_of(e, inode, &opaque);
    uint32_t at = inode->xattrs ? inode->xattrs->size : XATTR_HEAD;

    memset(out, 0, erofs_xattr_size(e, inode));
    if (inode->xattrs)
        memcpy(out, inode->xattrs->data, inode->xattrs->size);
    if (opaque)
        put_overlay(out + at, "overlay.opaque", 'y');
    if (overlay > (unsigned)opaque)
        put_overlay(out + at + (opaque ? XATTR_OVERLAY : 0), "overlay.origin", 0);
}
