/* An open hash table that doubles. */
#include "tarsplit/names.h"

#include "layer/hash.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST = 1024, MOST = 1 << 22 }; /* slots: 32 MiB at most, half of them in use */

int names_init(struct names *names)
{
    memset(names, 0, sizeof *names);
    return layer_hash_key(names->key);
}

void names_free(struct names *names)
{
    free(names->slots);
    free(names->text);
}

/* The slot of a hash, or the free one where it belongs. */
static uint64_t *slot_of(uint64_t *slots, size_t capacity, uint64_t hash)
{
    size_t at = (size_t)(hash >> 8) & (capacity - 1);

    while (slots[at] && (slots[at] | 1) != (hash | 1))
        at = (at + 1) & (capacity - 1);
    return &slots[at];
}

/* Room for one more: 0, or -1. */
static int grow(struct names *names)
{
    size_t capacity = names->capacity ? 2 * names->capacity : FIRST;
    uint64_t *slots;

    if (2 * names->count < names->capacity)
        return 0;
    if (capacity > MOST || (slots = calloc(capacity, sizeof *slots)) == NULL)
        return -1;
    for (size_t at = 0; at < names->capacity; at++)
        if (names->slots[at])
            *slot_of(slots, capacity, names->slots[at]) = names->slots[at];
    free(names->slots);
    names->slots = slots;
    names->capacity = capacity;
    return 0;
}

/* The name without empty components and "."; its length, or -1 when ".." is in it. */
static ptrdiff_t clean(uint8_t *text, struct tar_bytes name)
{
    size_t len = 0, begin = 0;

    while (begin < name.len) {
        const uint8_t *slash = memchr(name.data + begin, '/', name.len - begin);
        size_t part = slash ? (size_t)(slash - (name.data + begin)) : name.len - begin;
        if (part == 2 && memcmp(name.data + begin, "..", 2) == 0)
            return -1;
        if (part && !(part == 1 && name.data[begin] == '.')) {
            text[len++] = '/';
            memcpy(text + len, name.data + begin, part);
            len += part;
        }
        begin += part + 1;
    }
    return (ptrdiff_t)len;
}

enum name_is names_add(struct names *names, struct tar_bytes name, int directory)
{
    uint64_t hash, *slot;
    ptrdiff_t len;

    if (name.len + 1 > names->text_capacity) {
        uint8_t *text = realloc(names->text, 2 * (name.len + 1));
        if (text == NULL)
            return NAME_UNCLEAR;
        names->text = text;
        names->text_capacity = 2 * (name.len + 1);
    }
    if ((len = clean(names->text, name)) < 0 || grow(names) < 0)
        return NAME_UNCLEAR;
    hash = layer_hash(names->key, 0, (const char *)names->text, (size_t)len) | 2; /* never a free slot, whatever its lowest bit */
    hash = (hash & ~(uint64_t)1) | (directory != 0);
    slot = slot_of(names->slots, names->capacity, hash);
    if (*slot) {
        int again = !directory || !(*slot & 1);
        *slot = hash;
        return again ? NAME_AGAIN : NAME_NEW;
    }
    *slot = hash;
    names->count++;
    return NAME_NEW;
}
