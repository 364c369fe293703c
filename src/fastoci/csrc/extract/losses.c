/* Notes on files, in two files: records of one size, and the values of attributes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/losses.h"

#include "io/write.h"
#include "layer/xattr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { KEY_MAX = 256 };

static int put(int fd, const void *data, size_t len, uint64_t at)
{
    int result = write_all(fd, data, len, (int64_t)at, 0);

    if (!result)
        return 0;
    errno = -result;
    return -1;
}

/* Whether an attribute is one that only root may set. */
static int is_lost(const struct tar_xattr *xattr)
{
    char key[KEY_MAX];

    if (xattr->key.len >= sizeof key)
        return 0;
    memcpy(key, xattr->key.data, xattr->key.len);
    key[xattr->key.len] = 0;
    return layer_xattr_allowed(key) && layer_xattr_privileged(key);
}

static size_t values_len(const struct tar_entry *entry)
{
    size_t len = 0;

    for (size_t i = 0; i < entry->xattr_count; i++)
        if (is_lost(&entry->xattrs[i]))
            len += sizeof(uint32_t[2]) + entry->xattrs[i].key.len + entry->xattrs[i].value.len;
    return len;
}

/* Each: the lengths of key and value, and both. */
static int put_values(struct losses *losses, struct loss *loss, const struct tar_entry *entry)
{
    size_t len = values_len(entry), have = 0;
    uint8_t *data;
    int failed;

    if (len == 0)
        return 0;
    if (len > UINT32_MAX || !(data = malloc(len))) {
        errno = ENOMEM;
        return -1;
    }
    for (size_t i = 0; i < entry->xattr_count; i++) {
        const struct tar_bytes *key = &entry->xattrs[i].key, *value = &entry->xattrs[i].value;
        uint32_t lengths[2] = {(uint32_t)key->len, (uint32_t)value->len};
        if (!is_lost(&entry->xattrs[i]))
            continue;
        memcpy(data + have, lengths, sizeof lengths);
        memcpy(data + have + sizeof lengths, key->data, key->len);
        have += sizeof lengths + key->len;
        if (value->len)
            memcpy(data + have, value->data, value->len);
        have += value->len;
    }
    loss->kind = loss->kind ? loss->kind : LOSS_METADATA;
    loss->values_len = (uint32_t)len;
    loss->values_at = __atomic_fetch_add(&losses->size, len, __ATOMIC_RELAXED);
    failed = put(losses->values, data, len, loss->values_at);
    free(data);
    return failed;
}

int losses_note(struct losses *losses, uint64_t inode, enum loss_kind kind, const struct tar_entry *entry, int with_values)
{
    struct loss loss = {.inode = inode, .kind = kind};

    if (entry) {
        loss.uid = (uint32_t)entry->uid;
        loss.gid = (uint32_t)entry->gid;
        loss.mode = entry->mode | (entry->type == 'c' ? S_IFCHR : entry->type == 'b' ? S_IFBLK : 0);
        loss.mtime = entry->mtime;
        loss.mtime_ns = entry->mtime_ns;
        loss.devmajor = (uint32_t)entry->devmajor;
        loss.devminor = (uint32_t)entry->devminor;
        if (with_values && put_values(losses, &loss, entry))
            return -1;
    }
    loss.number = __atomic_fetch_add(&losses->count, 1, __ATOMIC_RELAXED);
    return put(losses->records, &loss, sizeof loss, loss.number * sizeof loss);
}

/* --- finding --- */

static int is_before(const struct loss *one, const struct loss *other)
{
    return one->inode != other->inode ? one->inode < other->inode : one->number < other->number;
}

static void sift(struct loss *at, size_t root, size_t count)
{
    struct loss moving = at[root];

    for (size_t child = 2 * root + 1; child < count; child = 2 * root + 1) {
        if (child + 1 < count && is_before(&at[child], &at[child + 1]))
            child++;
        if (!is_before(&moving, &at[child]))
            break;
        at[root] = at[child];
        root = child;
    }
    at[root] = moving;
}

/* In the file itself, which the kernel may write out: a layer chooses how many notes there are. Never quadratic. */
static void heap_sort(struct loss *at, size_t count)
{
    for (size_t root = count / 2; root-- > 0;)
        sift(at, root, count);
    for (size_t last = count; last-- > 1;) {
        struct loss largest = at[0];
        at[0] = at[last];
        at[last] = largest;
        sift(at, 0, last);
    }
}

int losses_sort(struct losses *losses)
{
    void *mapped;

    if (losses->count == 0)
        return 0;
    losses->sorted_size = losses->count * sizeof(struct loss);
    mapped = mmap(NULL, losses->sorted_size, PROT_READ | PROT_WRITE, MAP_SHARED, losses->records, 0);
    if (mapped == MAP_FAILED)
        return -1;
    losses->sorted = mapped;
    heap_sort(losses->sorted, losses->count);
    return 0;
}

const struct loss *losses_find(const struct losses *losses, uint64_t inode)
{
    size_t low = 0, high = losses->sorted ? losses->count : 0;

    while (low < high) { /* the first of a larger inode */
        size_t middle = low + (high - low) / 2;
        if (losses->sorted[middle].inode <= inode)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 || losses->sorted[low - 1].inode != inode || losses->sorted[low - 1].kind == LOSS_NONE)
        return NULL;
    return &losses->sorted[low - 1];
}

void losses_close(struct losses *losses)
{
    if (losses->sorted)
        munmap(losses->sorted, losses->sorted_size);
    losses->sorted = NULL;
}
