/* JSON by hand: numbers and base64 alone, so nothing needs to be escaped. */
#include "tarsplit/lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int reserve(struct lines *lines, size_t more)
{
    size_t capacity = lines->capacity ? lines->capacity : 4096;
    uint8_t *data;

    while (capacity - lines->len < more)
        capacity *= 2;
    if (capacity == lines->capacity)
        return 0;
    if ((data = realloc(lines->data, capacity)) == NULL)
        return -1;
    lines->data = data;
    lines->capacity = capacity;
    return 0;
}

int lines_put(struct lines *lines, const void *data, size_t len)
{
    if (reserve(lines, len) < 0)
        return -1;
    if (len)
        memcpy(lines->data + lines->len, data, len);
    lines->len += len;
    return 0;
}

static int put_base64(struct lines *lines, const uint8_t *data, size_t len)
{
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t *to;

    if (reserve(lines, (len + 2) / 3 * 4) < 0)
        return -1;
    to = lines->data + lines->len;
    for (; len >= 3; len -= 3, data += 3, to += 4) {
        to[0] = (uint8_t)DIGITS[data[0] >> 2];
        to[1] = (uint8_t)DIGITS[(data[0] & 3) << 4 | data[1] >> 4];
        to[2] = (uint8_t)DIGITS[(data[1] & 15) << 2 | data[2] >> 6];
        to[3] = (uint8_t)DIGITS[data[2] & 63];
    }
    if (len) {
        uint8_t second = len == 2 ? data[1] : 0;
        to[0] = (uint8_t)DIGITS[data[0] >> 2];
        to[1] = (uint8_t)DIGITS[(data[0] & 3) << 4 | second >> 4];
        to[2] = len == 2 ? (uint8_t)DIGITS[(second & 15) << 2] : '=';
        to[3] = '=';
        to += 4;
    }
    lines->len = (size_t)(to - lines->data);
    return 0;
}

/* What is behind the payload, with the number of the line. */
static int end_line(struct lines *lines)
{
    char text[64];
    int len = snprintf(text, sizeof text, "\",\"position\":%llu}\n", (unsigned long long)lines->count++);

    return lines_put(lines, text, (size_t)len);
}

int lines_run(struct lines *lines, const uint8_t *data, size_t len)
{
    static const char HEAD[] = "{\"type\":2,\"payload\":\"";

    if (lines_put(lines, HEAD, sizeof HEAD - 1) < 0 || put_base64(lines, data, len) < 0)
        return -1;
    return end_line(lines);
}

int lines_file(struct lines *lines, const uint8_t *name, size_t len, uint64_t size, uint64_t crc)
{
    static const char HEAD[] = "{\"type\":1,\"name_raw\":\"";
    char text[64];
    uint8_t sum[8];
    int written = snprintf(text, sizeof text, "\",\"size\":%llu,\"payload\":\"", (unsigned long long)size);

    for (int at = 0; at < 8; at++)
        sum[at] = (uint8_t)(crc >> (56 - 8 * at));
    if (lines_put(lines, HEAD, sizeof HEAD - 1) < 0 || put_base64(lines, name, len) < 0 ||
        lines_put(lines, text, (size_t)written) < 0 || put_base64(lines, sum, sizeof sum) < 0)
        return -1;
    return end_line(lines);
}
