/* A block of names: for each {u64 inode, u16 offset of the name, u8 type, u8 0}, then the names. The first offset says how many there
 * are. They are sorted by bytes, "." and ".." among them, and no block splits one. */
#include "erofs/names.h"

#include "erofs/put.h"
#include "erofs/sort.h"

#include <string.h>
#include <sys/stat.h>

enum { ENTRY = 12 };

static const char DOTS[] = "..";

struct one {
    const char *text;
    size_t len;
    const struct erofs_inode *inode;
};

struct erofs_cursor erofs_first_name(const struct erofs_directory *directory)
{
    return (struct erofs_cursor){directory, directory->inode.data.names, 0};
}

/* The name at the cursor; 0: none is left. */
static int at_cursor(const struct erofs_cursor *cursor, struct one *one)
{
    const struct erofs_directory *directory = cursor->directory, *parent = directory->parent ? directory->parent : directory;
    const struct erofs_name *name = cursor->name;
    size_t dots = cursor->dots + 1;

    if (dots <= 2 && (!name || erofs_compare(DOTS, dots, name->text, name->len) < 0))
        *one = (struct one){DOTS, dots, dots == 1 ? &directory->inode : &parent->inode};
    else if (name)
        *one = (struct one){name->text, name->len, name->inode};
    return dots <= 2 || name;
}

static void pass(struct erofs_cursor *cursor, const struct one *one)
{
    if (one->text == DOTS)
        cursor->dots++;
    else
        cursor->name = cursor->name->next;
}

/* *count: of the names. */
static size_t next_block(const struct erofs *e, struct erofs_cursor *cursor, size_t *count)
{
    size_t used = 0;
    struct one one;

    for (*count = 0; at_cursor(cursor, &one) && used + ENTRY + one.len <= (size_t)1 << e->block_bits; ++*count) {
        used += ENTRY + one.len;
        pass(cursor, &one);
    }
    return used;
}

size_t erofs_next_block(const struct erofs *e, struct erofs_cursor *cursor)
{
    size_t count;

    return next_block(e, cursor, &count);
}

static uint8_t type_of(const struct erofs_inode *inode)
{
    switch (inode->mode & S_IFMT) {
    case S_IFDIR:
        return 2;
    case S_IFCHR:
        return 3;
    case S_IFBLK:
        return 4;
    case S_IFIFO:
        return 5;
    case S_IFLNK:
        return 7;
    default:
        return 1;
    }
}

size_t erofs_put_block(const struct erofs *e, struct erofs_cursor *cursor, uint8_t *out)
{
    struct erofs_cursor from = *cursor;
    size_t count, used = next_block(e, cursor, &count), at = count * ENTRY;
    struct one one;

    for (size_t i = 0; i < count && at_cursor(&from, &one); i++) {
        uint8_t *entry = out + i * ENTRY;
        put64(entry, one.inode->slot);
        put16(entry + 8, (uint16_t)at);
        entry[10] = type_of(one.inode);
        entry[11] = 0;
        memcpy(out + at, one.text, one.len);
        at += one.len;
        pass(&from, &one);
    }
    return used;
}
