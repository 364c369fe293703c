/* The reader: headers, formats, numbers, endings, long names. */
#include "support/read_all.h"

static void plain_entries(void)
{
    struct archive a = {0};
    uint8_t *h;

    put_file(&a, "dir/file", "hello");
    put_header(&a, "dir/", '5', 0, NULL);
    put_header(&a, "sym", '2', 0, "target");
    put_header(&a, "hard", '1', 0, "dir/file");
    put_header(&a, "pipe", '6', 0, NULL);
    h = put_header(&a, "null", '3', 0, NULL);
    memcpy(h + 329, "0000001", 8);
    memcpy(h + 337, "0000003", 8);
    seal(h);
    put_header(&a, "empty", '7', 0, NULL);
    put_end(&a);
    put(&a, "ignored", 7);
    CHECK(read_all(&a) == TAR_OK);
    CHECK(shows("f dir/file m644 u0 g0 s5 t1729905152.000000000\n@0h@1e@2l@3l@4o.\n"));
    CHECK(shows("d dir/ ") && shows("l sym -> target ") && shows("h hard -> dir/file ") && shows("p pipe ") && shows("c null "));
    CHECK(shows(" d1:3\n.\n") && shows("f empty m644 u0 g0 s0"));
}

static void endings(void)
{
    struct archive a = {0};

    CHECK(read_all(&a) == TAR_OK);
    put_zeros(&a, 512);
    CHECK(read_all(&a) == TAR_OK);
    put_file(&a, "f", "x");
    CHECK(read_all(&a) == TAR_OK);
    put_header(&a, "f", '0', 1, NULL);
    put(&a, "x", 1);
    CHECK(read_all(&a) == TAR_OK); /* the padding may be missing */
    put_header(&a, "f", '0', 2, NULL);
    put(&a, "x", 1);
    CHECK(read_all(&a) == TAR_TRUNCATED && last_offset == 0);
    put_file(&a, "f", "x");
    put(&a, "abc", 3);
    CHECK(read_all(&a) == TAR_TRUNCATED && last_offset == 1024 && last_value == 1027);
    put_zeros(&a, 512);
    put_file(&a, "f", "x");
    CHECK(read_all(&a) == TAR_LONE_ZERO && last_offset == 512);
    put_zeros(&a, 700);
    CHECK(read_all(&a) == TAR_TRUNCATED);
    put_end(&a);
    put_file(&a, "hidden", "x");
    CHECK(read_all(&a) == TAR_OK && last.len == 0);
}

static void numbers(void)
{
    static const struct {
        const char *size;
        int code;
    } SIZES[] = {
        {"00000000001\0", TAR_OK},       {"          1 ", TAR_OK},         {"1\0\0\0\0\0\0\0\0\0\0", TAR_OK}, {"\0\0\0\0\0\0\0\0\0\0\0001", TAR_OK},
        {"-0000000001\0", TAR_NUMBER},   {"+0000000001\0", TAR_NUMBER},    {"0000000000x\0", TAR_NUMBER},    {"00000000009\0", TAR_NUMBER},
        {"\x80\0\0\0\0\0\0\0\0\0\0\1", TAR_OK},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", TAR_SIZE},
        {"\x80\0\0\0\x80\0\0\0\0\0\0\0", TAR_NUMBER},
        {"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", TAR_SIZE},
        {"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", TAR_NUMBER},
    };

    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        struct archive a = {0};
        uint8_t *h = put_header(&a, "f", '0', 1, NULL);
        memcpy(h + 124, SIZES[i].size, 12);
        seal(h);
        put_body(&a, "x", 1);
        CHECK(read_all(&a) == SIZES[i].code);
        CHECK(SIZES[i].code != TAR_NUMBER || last_value == 124);
    }
}

static void owners_and_modes(void)
{
    struct archive a = {0};
    uint8_t *h = put_header(&a, "f", '0', 0, NULL);

    memcpy(h + 100, "0104755", 8);
    memcpy(h + 108, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    memcpy(h + 116, "\x80\0\0\0\xff\xff\xff\xfe", 8);
    seal(h);
    CHECK(read_all(&a) == TAR_OK && shows("m4755 u-1 g4294967294 "));
}

static void checksums(void)
{
    struct archive a = {0};
    uint8_t *h = put_header(&a, "f", '0', 0, NULL);
    int sum = 0;

    h[148] ^= 1;
    CHECK(read_all(&a) == TAR_CHECKSUM && last_offset == 0);
    h = put_header(&a, "f\xe9", '0', 0, NULL);
    memset(h + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += (signed char)h[i];
    snprintf((char *)h + 148, 8, "%06o", (unsigned)sum);
    CHECK(read_all(&a) == TAR_OK);
    h = put_header(&a, "f", '0', 0, NULL);
    memset(h + 148, ' ', 8);
    CHECK(read_all(&a) == TAR_CHECKSUM);
    put(&a, "<html>", 6);
    put_zeros(&a, 1000);
    CHECK(read_all(&a) == TAR_CHECKSUM);
}

static void names_and_formats(void)
{
    struct archive a = {0};
    char name[101] = {0}, prefix[156] = {0}, want[300];
    uint8_t *h;

    memset(name, 'n', 100);
    memset(prefix, 'p', 155);
    h = put_header(&a, name, '0', 0, NULL);
    memcpy(h + 345, prefix, 155);
    seal(h);
    snprintf(want, sizeof want, "f %s/%s m", prefix, name);
    CHECK(read_all(&a) == TAR_OK && shows(want));
    h = put_header(&a, "gnu", '0', 0, NULL);
    memcpy(h + 257, "ustar  \0", 8);
    memcpy(h + 345, "14707041000", 12);
    seal(h);
    CHECK(read_all(&a) == TAR_OK && shows("f gnu m"));
    h = put_header(&a, "go17", '0', 0, NULL);
    memcpy(h + 257, "ustar  \0", 8);
    memcpy(h + 345, "some/prefix", 12);
    seal(h);
    CHECK(read_all(&a) == TAR_OK && shows("f some/prefix/go17 m"));
    h = put_header(&a, "v7", '0', 0, NULL);
    memset(h + 257, 0, 8);
    memcpy(h + 345, "noprefix", 8);
    memcpy(h + 329, "garbage", 7);
    seal(h);
    CHECK(read_all(&a) == TAR_OK && shows("f v7 m"));
    h = put_header(&a, "old/", 0, 0, NULL);
    CHECK(read_all(&a) == TAR_OK && shows("d old/ "));
    h = put_header(&a, "odd/", '0', 0, NULL);
    CHECK(read_all(&a) == TAR_OK && shows("f odd/ "));
    h = put_header(&a, "what", 'Z', 0, NULL);
    CHECK(read_all(&a) == TAR_TYPE && last_value == 'Z');
}

static void special_headers(void)
{
    struct archive a = {0};
    char *large = malloc(1 << 20);
    struct tar *tar;
    char text[300];

    memset(text, 'l', sizeof text);
    text[299] = 0;
    put_special(&a, 'L', text, 300);
    put_special(&a, 'K', "link/name", 10);
    put_header(&a, "short", '2', 0, "x");
    put_file(&a, "next", "");
    CHECK(read_all(&a) == TAR_OK && shows("-> link/name m") && shows("llll") && shows("f next m"));
    put_keys(&a, "size=2", NULL);
    put_special(&a, 'L', "gnu\0ignored", 11);
    put_header(&a, "f", '0', 0, NULL);
    put_body(&a, "ab", 2);
    CHECK(read_all(&a) == TAR_OK && shows("f gnu m644 u0 g0 s2"));
    for (const char *type = "xLK"; *type; type++) {
        put_special(&a, *type, "9 path=x\n", 9);
        CHECK(read_all(&a) == TAR_DANGLING);
        put_special(&a, *type, "9 path=x\n", 9);
        put_end(&a);
        CHECK(read_all(&a) == TAR_DANGLING);
        put_special(&a, *type, "9 path=x\n", 9);
        put_special(&a, 'g', "", 0);
        CHECK(read_all(&a) == TAR_DANGLING);
        put_header(&a, "s", *type, (1 << 20) + 1, NULL);
        CHECK(read_all(&a) == TAR_SPECIAL_SIZE && last_value == (1 << 20) + 1);
    }
    memset(large, 'n', 1 << 20);
    put_special(&a, 'L', large, 1 << 20);
    put_file(&a, "f", "");
    free(large);
    tar = tar_new(&SINK, &last);
    CHECK(tar_feed(tar, a.data, a.len - 512) == TAR_OK); /* up to the entry: 1 MiB itself is allowed */
    tar_free(tar);
    drop(&a);
}

static void callbacks_stop_the_parse(void)
{
    static struct log log;

    for (int stop = 1; stop <= 3; stop++) {
        struct archive a = {0};
        int64_t value;
        uint64_t offset;
        put_file(&a, "f", "x");
        put_file(&a, "g", "x");
        memset(&log, 0, sizeof log);
        log.stop_at = stop;
        CHECK(run(&a, 0, a.len, &log, &value, &offset) == 77);
        CHECK(!strstr(log.text, "f g"));
        drop(&a);
    }
}

static void every_code_has_a_sentence(void)
{
    const struct code_description *text;
    int known = 0;

    for (int code = -5; code < 100; code++)
        if ((text = tar_code_describe(code))) {
            CHECK(strlen(text->kind) && strlen(text->sentence));
            known++;
        }
    CHECK(known == 14);
}

int main(void)
{
    plain_entries();
    endings();
    numbers();
    owners_and_modes();
    checksums();
    names_and_formats();
    special_headers();
    callbacks_stop_the_parse();
    every_code_has_a_sentence();
    printf("test_tar: ok\n");
    return 0;
}
