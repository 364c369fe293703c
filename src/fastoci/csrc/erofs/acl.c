/* Access control lists: version 2, then entries of 8 bytes {u16 tag, u16 permissions, u32 id}, in the order of tags and ids as the
 * kernel demands it. After chmod the owner's, the mask's (or the group's) and the others' permissions are the mode's. */
#include "erofs/acl.h"

#include <string.h>

enum { HEAD = 4, ENTRY = 8, VERSION = 2 };
enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t get32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Which tags may come after one, so that the order is the kernel's. */
static unsigned allowed_after(unsigned tag)
{
    switch (tag) {
    case 0:
        return USER_OBJ;
    case USER_OBJ:
    case USER:
        return USER | GROUP_OBJ;
    case GROUP_OBJ:
    case GROUP:
        return GROUP | MASK | OTHER;
    case MASK:
        return OTHER;
    default:
        return 0;
    }
}

/* All tags of a valid list; 0: it is not one. */
static unsigned tags_of(const uint8_t *value, size_t size)
{
    unsigned last = 0, found = 0;
    uint32_t last_id = 0;

    for (size_t at = HEAD; at < size; at += ENTRY) {
        unsigned tag = get16(value + at);
        uint32_t id = get32(value + at + 4);
        if (!(tag & allowed_after(last)) || tag & (tag - 1) || get16(value + at + 2) & ~7u)
            return 0;
        if (tag & (USER | GROUP) && (id == UINT32_MAX || (tag == last && id <= last_id)))
            return 0;
        last = tag;
        last_id = id;
        found |= tag;
    }
    return last == OTHER && (found & MASK || !(found & (USER | GROUP))) ? found : 0;
}

int erofs_acl(const uint8_t *value, size_t size, uint16_t mode, int access, uint8_t *out)
{
    unsigned tags;

    if (size < HEAD || (size - HEAD) % ENTRY || get32(value) != VERSION)
        return -1;
    if (size == HEAD)
        return 0;
    if (!(tags = tags_of(value, size)))
        return -1;
    if (access && !(tags & (USER | GROUP | MASK)))
        return 0;
    memcpy(out, value, size);
    for (size_t at = HEAD; at < size; at += ENTRY) {
        unsigned tag = get16(value + at);
        int group = tag == (tags & MASK ? MASK : GROUP_OBJ);
        if (!(tag & (USER | GROUP)))
            memset(out + at + 4, 0xff, 4);
        if (access && (tag == USER_OBJ || tag == OTHER || group))
            out[at + 2] = (uint8_t)(mode >> (tag == USER_OBJ ? 6 : group ? 3 : 0) & 7);
    }
    return 1;
}
