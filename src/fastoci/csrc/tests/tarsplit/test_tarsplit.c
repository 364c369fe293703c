/* The checksum, and that no window changes what comes out. */
#include "support/check.h"
#include "tar/code.h"
#include "tarsplit/crc64.h"
#include "tarsplit/tarsplit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void entry(uint8_t *at, const char *name, char type, unsigned size)
{
    unsigned sum = 0;

    memset(at, 0, 512);
    snprintf((char *)at, 100, "%s", name);
    memcpy(at + 100, "0000644", 7);
    memcpy(at + 108, "0000007", 7);
    memcpy(at + 116, "0000011", 7);
    snprintf((char *)at + 124, 12, "%011o", size);
    memcpy(at + 136, "00000000000", 11);
    memset(at + 148, ' ', 8);
    at[156] = (uint8_t)type;
    memcpy(at + 257, "ustar\00000", 8);
    for (int i = 0; i < 512; i++)
        sum += at[i];
    snprintf((char *)at + 148, 8, "%06o", sum);
}

/* A directory, a file of 600 bytes, an empty one, the end, and a tail behind it. */
static size_t make_tar(uint8_t *tar)
{
    memset(tar, 0, 8192);
    entry(tar, "d/", '5', 0);
    entry(tar + 512, "d/file", '0', 600);
    memset(tar + 1024, 'x', 600);
    entry(tar + 2048, "d/empty", '0', 0);
    tar[3584 + 7] = 'z';
    return 3584 + 512;
}

static void take(struct tarsplit *split, char *text)
{
    struct tar_bytes lines = tarsplit_lines(split);

    if (lines.len)
        strncat(text, (const char *)lines.data, lines.len);
    tarsplit_taken(split);
}

static char *split(const uint8_t *tar, size_t len, size_t window)
{
    struct tarsplit *split = tarsplit_new();
    char *text = calloc(1, 65536);
    int64_t uid, gid;

    for (size_t at = 0; at < len; at += window) {
        CHECK(tarsplit_feed(split, tar + at, len - at < window ? len - at : window) == TAR_OK);
        take(split, text);
    }
    CHECK(tarsplit_finish(split) == TAR_OK);
    take(split, text);
    tarsplit_owners(split, &uid, &gid);
    CHECK(uid == 7 && gid == 9);
    CHECK(tarsplit_is_exact(split));
    tarsplit_free(split);
    return text;
}

static void windows_give_the_same_lines(void)
{
    static const size_t WINDOWS[] = {4096, 1000, 512, 7, 1};
    uint8_t tar[8192];
    size_t len = make_tar(tar);
    char *whole = split(tar, len, len);

    CHECK(strstr(whole, "\"name_raw\":\"ZC9maWxl\",\"size\":600,") != NULL);
    for (size_t i = 0; i < sizeof WINDOWS / sizeof *WINDOWS; i++) {
        char *pieces = split(tar, len, WINDOWS[i]);
        CHECK(strcmp(pieces, whole) == 0);
        free(pieces);
    }
    free(whole);
}

static int is_exact(const char *first, char first_type, const char *second, char second_type)
{
    struct tarsplit *split = tarsplit_new();
    uint8_t tar[2048];
    int exact;

    memset(tar, 0, sizeof tar);
    entry(tar, first, first_type, 0);
    entry(tar + 512, second, second_type, 0);
    CHECK(tarsplit_feed(split, tar, sizeof tar) == TAR_OK);
    exact = tarsplit_is_exact(split);
    tarsplit_free(split);
    return exact;
}

static void a_name_that_comes_again_is_told(void)
{
    CHECK(is_exact("a", '0', "b", '0'));
    CHECK(is_exact("d/", '5', "./d", '5'));
    CHECK(!is_exact("a", '0', "./a", '0'));
    CHECK(!is_exact("d//a", '0', "d/./a", '2'));
    CHECK(!is_exact("d", '5', "d", '0'));
    CHECK(!is_exact("a", '0', "b/../a", '0'));
}

static void the_checksum_is_that_of_go(void)
{
    uint8_t data[1000];
    uint64_t whole;

    CHECK(crc64_update(0, (const uint8_t *)"123456789", 9) == 0xb90956c775a41001u);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 31);
    whole = crc64_update(0, data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut += 37)
        CHECK(crc64_update(crc64_update(0, data, cut), data + cut, sizeof data - cut) == whole);
}

int main(void)
{
    the_checksum_is_that_of_go();
    windows_give_the_same_lines();
    a_name_that_comes_again_is_told();
    puts("test_tarsplit: ok");
    return 0;
}
