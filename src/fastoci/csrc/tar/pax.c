/* Splitting "LEN KEY=VALUE" records, and a table of the keys that count. Spec: POSIX pax, "Extended Header"; SCHILY and GNU keys. */
#include "tar/pax.h"

#include <stdlib.h>
#include <string.h>

static const char XATTR_PREFIX[] = "SCHILY.xattr.";

struct key {
    const char *name;
    size_t at;        /* in struct tar_pax; NO_FIELD when the value is only checked */
    int value_no_nul; /* POSIX strings: a NUL would cut them; all other keys may not hold one themselves */
};

enum { NO_FIELD = sizeof(struct tar_pax) };
#define FIELD(member) offsetof(struct tar_pax, member)

static const struct key KEYS[] = {
    {"path", FIELD(path), 1},
    {"linkpath", FIELD(linkpath), 1},
    {"uname", NO_FIELD, 1},
    {"gname", NO_FIELD, 1},
    {"size", FIELD(size), 0},
    {"uid", FIELD(uid), 0},
    {"gid", FIELD(gid), 0},
    {"mtime", FIELD(mtime), 0},
    {"atime", FIELD(atime), 0},
    {"ctime", FIELD(ctime), 0},
    {"GNU.sparse.major", FIELD(sparse_major), 0},
    {"GNU.sparse.minor", FIELD(sparse_minor), 0},
    {"GNU.sparse.name", FIELD(sparse_name), 1},
    {"GNU.sparse.size", FIELD(sparse_size), 0},
    {"GNU.sparse.realsize", FIELD(sparse_realsize), 0},
    {"GNU.sparse.map", FIELD(sparse_map), 0},
    {"GNU.sparse.numblocks", FIELD(sparse_numblocks), 0},
};

static int equals(struct tar_bytes bytes, const char *text)
{
    return bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

static int has_nul(struct tar_bytes bytes)
{
    return bytes.len && memchr(bytes.data, 0, bytes.len) != NULL;
}

static int xattrs_add(struct tar_xattrs *xattrs, struct tar_bytes key, struct tar_bytes value)
{
    void *items = xattrs->items;
    int code = tar_grow(&items, &xattrs->capacity, xattrs->count, sizeof *xattrs->items);

    if (code)
        return code;
    xattrs->items = items;
    xattrs->items[xattrs->count].key = key;
    xattrs->items[xattrs->count].value = value;
    xattrs->count++;
    return TAR_OK;
}

/* By key; equal keys in the order of the records, which lie in one buffer. */
static int by_key(const void *a, const void *b)
{
    const struct tar_xattr *left = a, *right = b;
    size_t len = left->key.len < right->key.len ? left->key.len : right->key.len;
    int order = len ? memcmp(left->key.data, right->key.data, len) : 0;

    if (order)
        return order;
    if (left->key.len != right->key.len)
        return left->key.len < right->key.len ? -1 : 1;
    return left->key.data < right->key.data ? -1 : left->key.data > right->key.data;
}

/* The last record of a key counts, and an empty value deletes it. */
static void xattrs_unique(struct tar_xattrs *xattrs)
{
    struct tar_xattr *items = xattrs->items;
    size_t kept = 0;

    if (xattrs->count > 1)
        qsort(items, xattrs->count, sizeof *items, by_key);
    for (size_t i = 0; i < xattrs->count; i++) {
        int last = i + 1 == xattrs->count || items[i].key.len != items[i + 1].key.len ||
                   memcmp(items[i].key.data, items[i + 1].key.data, items[i].key.len) != 0;
        if (last && items[i].value.len)
            items[kept++] = items[i];
    }
    xattrs->count = kept;
}

int tar_pax_number(struct tar_bytes text, int64_t *value)
{
    uint64_t sum = 0;

    if (text.len == 0)
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t digit = (uint8_t)(text.data[i] - '0');
        if (digit > 9 || sum > (INT64_MAX - (uint64_t)digit) / 10)
            return -1;
        sum = sum * 10 + digit;
    }
    *value = (int64_t)sum;
    return 0;
}

/* [-]digits[.digits], rounded towards the past to a nanosecond: 0 or -1. */
static int read_time(struct tar_bytes text, int64_t *seconds, uint32_t *nanoseconds)
{
    int negative = text.len && text.data[0] == '-';
    struct tar_bytes whole = {text.data + negative, text.len - (size_t)negative};
    const uint8_t *dot = whole.len ? memchr(whole.data, '.', whole.len) : NULL;
    uint32_t fraction = 0;
    size_t digits = 0;

    if (dot)
        whole.len = (size_t)(dot - whole.data);
    if (tar_pax_number(whole, seconds))
        return -1;
    for (const uint8_t *at = dot ? dot + 1 : NULL; at && at < text.data + text.len; at++) {
        if (*at < '0' || *at > '9')
            return -1;
        if (digits++ < 9)
            fraction = fraction * 10 + (uint32_t)(*at - '0');
    }
    for (; digits < 9; digits++)
        fraction *= 10;
    if (negative)
        *seconds = -*seconds - (fraction != 0);
    *nanoseconds = negative && fraction ? 1000000000 - fraction : fraction;
    return 0;
}

void tar_apply_number(struct tar *tar, struct tar_bytes text, int64_t *field)
{
    if (text.len && tar_pax_number(text, field))
        tar_fail(tar, TAR_PAX_VALUE, text.data - tar->pax_text.data);
}

void tar_apply_time(struct tar *tar, struct tar_bytes text, int64_t *seconds, uint32_t *nanoseconds)
{
    if (text.len && read_time(text, seconds, nanoseconds))
        tar_fail(tar, TAR_PAX_VALUE, text.data - tar->pax_text.data);
}

/* GNU form 0.0 repeats two keys, an offset and then a length. */
static int sparse_record(struct tar_bytes key, struct tar_bytes value, struct tar_pax *pax, struct tar_segments *segments)
{
    int is_length = equals(key, "GNU.sparse.numbytes");
    int64_t number;

    if (is_length != (int)(pax->sparse_values & 1) || tar_pax_number(value, &number))
        return TAR_PAX_VALUE;
    pax->sparse_values++;
    if (!is_length)
        return tar_segments_add(segments, number, 0);
    segments->items[segments->count - 1].length = (uint64_t)number;
    return TAR_OK;
}

static int keep(struct tar_bytes key, struct tar_bytes value, struct tar_pax *pax, struct tar_xattrs *xattrs, struct tar_segments *segments)
{
    const size_t prefix = sizeof XATTR_PREFIX - 1;

    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        if (!equals(key, KEYS[i].name))
            continue;
        if (KEYS[i].value_no_nul && has_nul(value))
            return TAR_PAX_RECORD;
        if (KEYS[i].at != NO_FIELD)
            memcpy((char *)pax + KEYS[i].at, &value, sizeof value);
        return TAR_OK;
    }
    if (has_nul(key))
        return TAR_PAX_RECORD;
    if (equals(key, "GNU.sparse.offset") || equals(key, "GNU.sparse.numbytes"))
        return sparse_record(key, value, pax, segments);
    if (key.len < prefix || memcmp(key.data, XATTR_PREFIX, prefix) != 0)
        return TAR_OK;
    return xattrs_add(xattrs, (struct tar_bytes){key.data + prefix, key.len - prefix}, value);
}

/* Split "LEN KEY=VALUE\n" off data; its length, or 0 when it is malformed. */
static size_t record(const uint8_t *data, size_t len, struct tar_bytes *key, struct tar_bytes *value)
{
    const uint8_t *space = memchr(data, ' ', len), *equal;
    int64_t total;
    size_t head;

    if (!space || tar_pax_number((struct tar_bytes){data, (size_t)(space - data)}, &total))
        return 0;
    head = (size_t)(space - data) + 1;
    if (total < 5 || (uint64_t)total > len || (size_t)total <= head || data[total - 1] != '\n')
        return 0;
    equal = memchr(space + 1, '=', (size_t)total - head - 1);
    if (!equal || equal == space + 1)
        return 0;
    *key = (struct tar_bytes){space + 1, (size_t)(equal - space) - 1};
    *value = (struct tar_bytes){equal + 1, (size_t)total - 1 - (size_t)(equal + 1 - data)};
    return (size_t)total;
}

int tar_pax_parse(const uint8_t *data, size_t len, struct tar_pax *pax, struct tar_xattrs *xattrs, struct tar_segments *segments,
                  int64_t *value)
{
    struct tar_bytes key, text;

    memset(pax, 0, sizeof *pax);
    xattrs->count = segments->count = 0;
    for (size_t at = 0, used; at < len; at += used) {
        int code = TAR_PAX_RECORD;
        used = record(data + at, len - at, &key, &text);
        if (used)
            code = keep(key, text, pax, xattrs, segments);
        if (code) {
            *value = code == TAR_SPARSE_LIMIT ? (int64_t)segments->count : (int64_t)at;
            return code;
        }
    }
    xattrs_unique(xattrs);
    return TAR_OK;
}
