/* The reader: pax records and the four forms of sparse files. */
#include "support/read_all.h"

static void pax_records(void)
{
    struct archive a = {0};

    put_keys(&a, "path=pax/name", "linkpath=other", "size=3", "uid=100000", "gid=7", "mtime=1700000000.12345", "SCHILY.xattr.user.b=second", "SCHILY.xattr.user.a=first", "SCHILY.xattr.user.b=another", "SCHILY.xattr.user.c=", "comment=a\nb = c\n", NULL);
    put_header(&a, "short", '0', 600, NULL);
    put_body(&a, "abc", 3);
    CHECK(read_all(&a) == TAR_OK);
    CHECK(shows("f pax/name -> other m644 u100000 g7 s3 t1700000000.123450000 user.a=first user.b=another\n@0a@1b@2c.\n"));
    put_keys(&a, "path=aaa", NULL);
    put_keys(&a, "uid=100000", NULL);
    put_header(&a, "b", '0', 0, NULL); /* only the last of several headers counts */
    put_file(&a, "c", "");
    CHECK(read_all(&a) == TAR_OK && shows("f b m644 u100000") && shows("f c m644 u0"));
    put_keys(&a, "path=", NULL);
    put_header(&a, "kept", '0', 0, NULL);
    CHECK(read_all(&a) == TAR_OK && shows("f kept m"));
    put_keys(&a, "mtime=-1.25000", NULL);
    put_header(&a, "t", '0', 0, NULL);
    CHECK(read_all(&a) == TAR_OK && shows("t-2.750000000"));
    put_keys(&a, "size=100", NULL);
    put_header(&a, "dir", '5', 0, NULL); /* a directory has no body, whatever size it is given */
    put_file(&a, "after", "x");
    CHECK(read_all(&a) == TAR_OK && shows("d dir ") && shows("f after "));
    put_special(&a, 'g', "17 path=pax/name\n", 17);
    put_file(&a, "own", "x");
    CHECK(read_all(&a) == TAR_OK && shows("f own "));
}

static void bad_pax(void)
{
    static const char *const RECORDS[] = {
        "99 path=x\n", "5 path=xyz\n", "0 path=x\n", "9 path=xy", "18446744073709551625 path=x\n", "-9 path=x\n", "9path=xy\n",
        "5 =x\n", "\xff\xfe garbage", "9 path x\n", "+9 path=x\n", " 9 path=x\n", "9 path=x\ntrailing", "\n",
    };
    static const char *const VALUES[] = {
        "size=-1", "size=+5", "size=0x5", "size= 5", "size=5.0", "size=99999999999999999999",
        "uid=1_0", "mtime=nan", "mtime=1.x", "mtime=--1", "mtime=.", "atime=bad", "ctime=x",
        "mtime=999999999999999999999999999",
    };
    struct archive a = {0};

    for (size_t i = 0; i < sizeof RECORDS / sizeof *RECORDS; i++) {
        put_pax(&a, RECORDS[i]);
        put_file(&a, "f", "");
        CHECK(read_all(&a) == TAR_PAX_RECORD);
        put_special(&a, 'g', RECORDS[i], strlen(RECORDS[i]));
        put_file(&a, "f", "");
        CHECK(read_all(&a) == TAR_PAX_RECORD);
    }
    for (size_t i = 0; i < sizeof VALUES / sizeof *VALUES; i++) {
        put_keys(&a, VALUES[i], NULL);
        put_file(&a, "f", "");
        CHECK(read_all(&a) == TAR_PAX_VALUE);
    }
    put_special(&a, 'x', "11 path=\0b\n", 11);
    CHECK(read_all(&a) == TAR_PAX_RECORD);
    put_special(&a, 'x', "16 linkpath=a\0b\n", 16);
    CHECK(read_all(&a) == TAR_PAX_RECORD);
    put_special(&a, 'x', "9 a\0b=xx\n", 9);
    CHECK(read_all(&a) == TAR_PAX_RECORD);
}

static void put_sparse_1(struct archive *a, const char *map, size_t data)
{
    put_keys(a, "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=sp", "GNU.sparse.realsize=20", NULL);
    put_header(a, "x", '0', 512 + data, NULL);
    put(a, map, strlen(map));
    put_zeros(a, 512 - strlen(map));
    put_body(a, "abcdefghijkl", data);
}

static void sparse_forms(void)
{
    static const char *WANT = "s20 t1729905152.000000000 sparse\n@2a@3b@10c.\n";
    struct archive a = {0};
    uint8_t *h;

    put_keys(&a, "GNU.sparse.size=20", "GNU.sparse.numblocks=2", "GNU.sparse.offset=2", "GNU.sparse.numbytes=2", "GNU.sparse.offset=10", "GNU.sparse.numbytes=1", NULL);
    put_file(&a, "sp", "abc");
    CHECK(read_all(&a) == TAR_OK && shows(WANT));
    put_keys(&a, "GNU.sparse.size=20", "GNU.sparse.numblocks=2", "GNU.sparse.map=2,2,10,1", "GNU.sparse.name=sp", NULL);
    put_file(&a, "x", "abc");
    CHECK(read_all(&a) == TAR_OK && shows(WANT) && shows("f sp m"));
    put_sparse_1(&a, "2\n2\n2\n10\n1\n", 3);
    CHECK(read_all(&a) == TAR_OK && shows(WANT) && shows("f sp m"));
    h = put_header(&a, "sp", 'S', 3, NULL);
    memcpy(h + 257, "ustar  \0", 8);
    memset(h + 345, 0, 155);
    for (int i = 0; i < 4; i++) {
        memcpy(h + 386 + i * 24, i < 1 ? "00000000002" : "00000000010", 12);
        memcpy(h + 398 + i * 24, i < 1 ? "00000000001" : "00000000000", 12);
    }
    h[482] = 1;
    memcpy(h + 483, "00000000024", 12);
    seal(h);
    put_zeros(&a, 512);
    memcpy(a.data + a.len - 512, "00000000011\00000000000002\0", 24);
    put_body(&a, "abc", 3);
    put_file(&a, "next", "");
    CHECK(read_all(&a) == TAR_OK && shows("s20 t1729905152.000000000 sparse\n@2a@9b@10c.\n") && shows("f next "));
    put_keys(&a, "GNU.sparse.realsize=99", NULL);
    put_file(&a, "orphan", "abc");
    CHECK(read_all(&a) == TAR_OK && shows("f orphan m644 u0 g0 s3"));
}

static void bad_sparse(void)
{
    static const struct {
        const char *map;
        size_t data;
        int code;
    } MAPS[] = {
        {"2\n2\n2\n3\n1\n", 3, TAR_SPARSE_MAP},  {"1\n19\n2\n", 2, TAR_SPARSE_MAP},    {"1\n-1\n2\n", 2, TAR_SPARSE_MAP},
        {"1\n2\n3\n", 2, TAR_SPARSE_MAP},        {"1\n2\n1\n", 2, TAR_SPARSE_MAP},     {"65537\n", 2, TAR_SPARSE_LIMIT},
        {"1000000000\n", 2, TAR_SPARSE_LIMIT},   {"3\n1\n1\n", 2, TAR_SPARSE_MAP},     {"x\n", 2, TAR_SPARSE_MAP},
        {"\n", 2, TAR_SPARSE_MAP},               {"1\n9223372036854775807\n2\n", 2, TAR_SPARSE_MAP},
        {"1\n99999999999999999999\n2\n", 2, TAR_SPARSE_MAP}, {"0\n", 0, TAR_OK},       {"1\n20\n0\n", 0, TAR_OK},
    };
    struct archive a = {0};

    for (size_t i = 0; i < sizeof MAPS / sizeof *MAPS; i++) {
        put_sparse_1(&a, MAPS[i].map, MAPS[i].data);
        CHECK(read_all(&a) == MAPS[i].code);
    }
    put_keys(&a, "GNU.sparse.major=2", "GNU.sparse.minor=0", NULL);
    put_file(&a, "x", "abc");
    CHECK(read_all(&a) == TAR_SPARSE_VERSION);
    put_header(&a, "x", 'S', 0, NULL);
    CHECK(read_all(&a) == TAR_SPARSE_VERSION);
    put_keys(&a, "GNU.sparse.size=20", "GNU.sparse.numblocks=2", "GNU.sparse.map=2,2", NULL);
    put_file(&a, "x", "ab");
    CHECK(read_all(&a) == TAR_SPARSE_MAP);
    put_keys(&a, "GNU.sparse.numbytes=2", NULL);
    put_file(&a, "x", "ab");
    CHECK(read_all(&a) == TAR_PAX_VALUE);
}

int main(void)
{
    pax_records();
    bad_pax();
    sparse_forms();
    bad_sparse();
    printf("test_pax: ok\n");
    return 0;
}
