/* Fields of a header block by their offsets in each of the formats: v7, ustar, star, GNU. */
#include "tar/block.h"

#include <string.h>

struct field {
    uint16_t at;
    uint16_t len;
};

static const struct field NAME = {0, 100}, MODE = {100, 8}, UID = {108, 8}, GID = {116, 8}, SIZE = {124, 12}, MTIME = {136, 12};
static const struct field CHECKSUM = {148, 8}, LINK = {157, 100}, DEVMAJOR = {329, 8}, DEVMINOR = {337, 8};
static const struct field USTAR_PREFIX = {345, 155}, STAR_PREFIX = {345, 131}, STAR_ATIME = {476, 12}, STAR_CTIME = {488, 12};
static const struct field GNU_ATIME = {345, 12}, GNU_CTIME = {357, 12};

enum { TYPE_AT = 156, MAGIC_AT = 257, STAR_TRAILER_AT = 508 };

static int base256(const uint8_t *field, size_t len, int64_t *value)
{
    uint8_t invert = field[0] & 0x40 ? 0xff : 0;
    uint64_t sum = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t byte = field[i] ^ invert;
        if (i == 0)
            byte &= 0x7f;
        if (sum >> 56)
            return -1;
        sum = sum << 8 | byte;
    }
    if (sum >> 63)
        return -1;
    *value = invert ? -(int64_t)sum - 1 : (int64_t)sum;
    return 0;
}

int tar_number(const uint8_t *field, size_t len, int64_t *value)
{
    size_t start = 0;
    uint64_t sum = 0;

    *value = 0;
    if (field[0] & 0x80)
        return base256(field, len, value);
    while (start < len && (field[start] == ' ' || field[start] == 0))
        start++;
    while (len > start && (field[len - 1] == ' ' || field[len - 1] == 0))
        len--;
    for (size_t i = start; i < len && field[i]; i++) {
        if (field[i] < '0' || field[i] > '7')
            return -1;
        sum = sum << 3 | (uint64_t)(field[i] - '0'); /* 12 digits at most: 36 bits */
    }
    *value = (int64_t)sum;
    return 0;
}

static int number(const uint8_t *block, struct field field, int64_t *out, int64_t *value)
{
    if (tar_number(block + field.at, field.len, out) == 0)
        return TAR_OK;
    *value = field.at;
    return TAR_NUMBER;
}

static int checksum_holds(const uint8_t *block, int64_t *value)
{
    uint32_t sum = 0, high = 0;
    int64_t stated;

    for (size_t i = 0; i < TAR_BLOCK; i++) {
        sum += block[i];
        high += block[i] >> 7;
    }
    for (size_t i = CHECKSUM.at; i < (size_t)CHECKSUM.at + CHECKSUM.len; i++) {
        sum += ' ' - block[i];
        high -= block[i] >> 7;
    }
    *value = sum;
    /* Go reads this field as octal only; base-256 would set the high bit. Old Sun tar summed signed bytes. */
    if (block[CHECKSUM.at] & 0x80 || tar_number(block + CHECKSUM.at, CHECKSUM.len, &stated))
        return 0;
    return stated == (int64_t)sum || stated == (int64_t)sum - 256 * (int64_t)high;
}

static enum tar_format format_of(const uint8_t *block)
{
    if (memcmp(block + MAGIC_AT, "ustar\0", 6) == 0)
        return memcmp(block + STAR_TRAILER_AT, "tar\0", 4) == 0 ? TAR_STAR : TAR_USTAR;
    if (memcmp(block + MAGIC_AT, "ustar  \0", 8) == 0)
        return TAR_GNU;
    return TAR_V7;
}

static size_t text_len(const uint8_t *block, struct field field)
{
    const uint8_t *nul = memchr(block + field.at, 0, field.len);

    return nul ? (size_t)(nul - block) - field.at : field.len;
}

/* A GNU header has times where ustar has a prefix; some old Go writers put a prefix there, so text that is no time is one. */
static size_t gnu_prefix(const uint8_t *block)
{
    int64_t ignored;
    int bad = 0;
    size_t len = text_len(block, USTAR_PREFIX);

    if (block[GNU_ATIME.at])
        bad |= tar_number(block + GNU_ATIME.at, GNU_ATIME.len, &ignored);
    if (block[GNU_CTIME.at])
        bad |= tar_number(block + GNU_CTIME.at, GNU_CTIME.len, &ignored);
    if (!bad)
        return 0;
    for (size_t i = 0; i < len; i++)
        if (block[USTAR_PREFIX.at + i] & 0x80)
            return 0;
    return len;
}

static void set_name(const uint8_t *block, size_t prefix, struct tar_header *header)
{
    size_t len = text_len(block, NAME);

    header->name_len = 0;
    if (prefix) {
        memcpy(header->name, block + USTAR_PREFIX.at, prefix);
        header->name[prefix] = '/';
        header->name_len = prefix + 1;
    }
    memcpy(header->name + header->name_len, block + NAME.at, len);
    header->name_len += len;
    header->link_len = text_len(block, LINK);
    memcpy(header->link, block + LINK.at, header->link_len);
}

static int times_of_star(const uint8_t *block, int64_t *value)
{
    int64_t ignored;
    int code = number(block, STAR_ATIME, &ignored, value);

    return code ? code : number(block, STAR_CTIME, &ignored, value);
}

int tar_block_decode(const uint8_t *block, struct tar_header *header, int64_t *value)
{
    int code = TAR_OK;
    size_t prefix = 0;

    if (!checksum_holds(block, value))
        return TAR_CHECKSUM;
    header->format = format_of(block);
    header->type = block[TYPE_AT];
    header->devmajor = header->devminor = 0;
    if (header->format == TAR_USTAR)
        prefix = text_len(block, USTAR_PREFIX);
    else if (header->format == TAR_STAR)
        prefix = text_len(block, STAR_PREFIX);
    else if (header->format == TAR_GNU)
        prefix = gnu_prefix(block);
    set_name(block, prefix, header);
    if ((code = number(block, SIZE, &header->size, value)) || (code = number(block, MODE, &header->mode, value)) ||
        (code = number(block, UID, &header->uid, value)) || (code = number(block, GID, &header->gid, value)) ||
        (code = number(block, MTIME, &header->mtime, value)) || header->format == TAR_V7)
        return code;
    if ((code = number(block, DEVMAJOR, &header->devmajor, value)) || (code = number(block, DEVMINOR, &header->devminor, value)))
        return code;
    return header->format == TAR_STAR ? times_of_star(block, value) : TAR_OK;
}
