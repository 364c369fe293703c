/* What the C tests share: a check that says where it failed, and a writer of tar archives that can also write wrong ones. */
#ifndef FASTOCI_CHECK_H
#define FASTOCI_CHECK_H

#include "tar/tar.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                                         \
    do {                                                                                                                         \
        if (!(condition)) {                                                                                                      \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #condition);                                        \
            exit(1);                                                                                                             \
        }                                                                                                                        \
    } while (0)

/* Whether some of many like cases are enough: SHORT is in the environment of an emulator, under which all take half a minute. */
static inline int is_short(void)
{
    return getenv("SHORT") != NULL;
}

struct archive {
    uint8_t *data;
    size_t len;
};

static inline void put(struct archive *a, const void *data, size_t len)
{
    a->data = realloc(a->data, a->len + len + 1);
    CHECK(a->data);
    memcpy(a->data + a->len, data, len);
    a->len += len;
}

static inline void put_zeros(struct archive *a, size_t len)
{
    a->data = realloc(a->data, a->len + len + 1);
    CHECK(a->data);
    memset(a->data + a->len, 0, len);
    a->len += len;
}

static inline void seal(uint8_t *block)
{
    unsigned sum = 0;

    memset(block + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += block[i];
    snprintf((char *)block + 148, 8, "%06o", sum);
}

/* A ustar header; the caller may spoil it through the pointer and seal it again. Valid until the next put. */
static inline uint8_t *put_header(struct archive *a, const char *name, char type, size_t size, const char *link)
{
    uint8_t *block;

    put_zeros(a, 512);
    block = a->data + a->len - 512;
    memcpy(block, name, strlen(name) < 100 ? strlen(name) : 100);
    memcpy(block + 100, "0000644", 8);
    memcpy(block + 108, "0000000", 8);
    memcpy(block + 116, "0000000", 8);
    snprintf((char *)block + 124, 12, "%011o", (unsigned)size & 0x7fffffff);
    memcpy(block + 136, "14707041000", 12);
    block[156] = (uint8_t)type;
    if (link)
        memcpy(block + 157, link, strlen(link) < 100 ? strlen(link) : 100);
    memcpy(block + 257, "ustar\00000", 8);
    seal(block);
    return block;
}

static inline void put_body(struct archive *a, const void *data, size_t len)
{
    put(a, data, len);
    put_zeros(a, (512 - len % 512) % 512);
}

static inline void put_file(struct archive *a, const char *name, const char *text)
{
    put_header(a, name, '0', strlen(text), NULL);
    put_body(a, text, strlen(text));
}

static inline void put_special(struct archive *a, char type, const void *data, size_t len)
{
    put_header(a, "special", type, len, NULL);
    put_body(a, data, len);
}

static inline void put_pax(struct archive *a, const char *records)
{
    put_special(a, 'x', records, strlen(records));
}

/* An extended header of "key=value" texts, ended by NULL; the lengths are computed. */
static inline void put_keys(struct archive *a, ...)
{
    struct archive text = {0};
    char record[4096];
    va_list list;

    va_start(list, a);
    for (const char *key; (key = va_arg(list, const char *));) {
        size_t len = strlen(key) + 3; /* a digit, a space, a newline */
        len += len >= 10;
        len += len >= 100;
        put(&text, record, (size_t)snprintf(record, sizeof record, "%zu %s\n", len, key));
    }
    va_end(list);
    put_special(a, 'x', text.data, text.len);
    free(text.data);
}

static inline void put_end(struct archive *a)
{
    put_zeros(a, 1024);
}

static inline void drop(struct archive *a)
{
    free(a->data);
    a->data = NULL;
    a->len = 0;
}

#endif
