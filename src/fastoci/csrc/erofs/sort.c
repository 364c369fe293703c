/* Most archives have names in order, which costs one pass. Else a merge sort of pairs: eight bytes behind what all names have in common,
 * and the name. Its time is n log n whatever the names are. */
#include "erofs/sort.h"

#include "erofs/arena.h"

#include <string.h>

struct key {
    uint64_t bytes;
    struct erofs_name *name;
};

int erofs_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int is_before(const struct erofs_name *a, const struct erofs_name *b)
{
    return erofs_compare(a->text, a->len, b->text, b->len) < 0;
}

/* The list is from the last name to the first. *count; whether it is in order now. */
static int reverse(struct erofs_directory *directory, size_t *count)
{
    struct erofs_name *reversed = NULL, *name = directory->inode.data.names, *next;
    int ordered = 1;

    for (*count = 0; name; name = next, ++*count) {
        next = name->next;
        ordered = ordered && (!reversed || is_before(name, reversed));
        name->next = reversed;
        reversed = name;
    }
    directory->inode.data.names = reversed;
    return ordered;
}

/* How many bytes all names begin with. */
static size_t common(const struct erofs_name *first)
{
    size_t len = first->len;

    for (const struct erofs_name *name = first->next; name; name = name->next) {
        size_t same = 0;
        while (same < len && same < name->len && name->text[same] == first->text[same])
            same++;
        len = same;
    }
    return len;
}

static uint64_t bytes_of(const struct erofs_name *name, size_t skip)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < 8; i++)
        bytes = bytes << 8 | (skip + i < name->len ? (uint8_t)name->text[skip + i] : 0);
    return bytes;
}

static int key_before(const struct key *a, const struct key *b)
{
    return a->bytes != b->bytes ? a->bytes < b->bytes : is_before(a->name, b->name);
}

/* spare has half as many. It calls itself as often as the number can be halved. */
static void merge_sort(struct key *keys, size_t count, struct key *spare)
{
    size_t half = count / 2, left = 0, right = half, at = 0;

    if (count < 2)
        return;
    merge_sort(keys, half, spare);
    merge_sort(keys + half, count - half, spare);
    memcpy(spare, keys, half * sizeof *keys);
    while (left < half && right < count)
        keys[at++] = key_before(&keys[right], &spare[left]) ? keys[right++] : spare[left++];
    memcpy(keys + at, spare + left, (half - left) * sizeof *keys);
}

static void relink(struct erofs_directory *directory, const struct key *keys, size_t count)
{
    struct erofs_name **last = &directory->inode.data.names;

    for (size_t i = 0; i < count; i++) {
        *last = keys[i].name;
        last = &keys[i].name->next;
    }
    *last = NULL;
}

int erofs_sort(struct erofs *e, struct erofs_directory *directory)
{
    size_t count, skip, size, at = 0;
    struct key *keys = NULL;

    if (reverse(directory, &count))
        return TAR_OK;
    size = (count + count / 2) * sizeof *keys;
    if (!(keys = erofs_alloc(e, size)))
        return erofs_no_memory(e);
    skip = common(directory->inode.data.names);
    for (struct erofs_name *name = directory->inode.data.names; name; name = name->next)
        keys[at++] = (struct key){bytes_of(name, skip), name};
    merge_sort(keys, count, keys + count);
    relink(directory, keys, count);
    erofs_drop(e, keys);
    return TAR_OK;
}
