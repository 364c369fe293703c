/* The extractor on one layer: types, names, metadata, limits, descriptors. */
#include "support/sandbox.h"

static void a_layer_becomes_a_tree(void)
{
    struct archive a = {0};
    uint8_t *h;

    for (size_t window = 1; window <= 4096; window *= 7) {
        fresh();
        dir(&a, "./d/", "0000750", OLD);
        put_keys(&a, "mtime=-1.5", "SCHILY.xattr.user.k=v", "SCHILY.xattr.security.selinux=label", NULL);
        h = put_header(&a, "d/f", '0', 5, NULL);
        memcpy(h + 100, "0104751", 8);
        seal(h);
        put_body(&a, "hello", 5);
        put_header(&a, "/implied/deep/s", '2', 0, "../../..///x");
        put_header(&a, "d/p", '6', 0, NULL);
        put_header(&a, "d/h", '1', 0, "./d//f");
        put_file(&a, "d/empty", "");
        CHECK(extract_windows(&a, window) == TAR_OK);
        drop(&a);
        CHECK((stat_of("d").st_mode & 07777) == 0750 && stat_of("d").st_mtim.tv_sec == 1000);
        CHECK(is("d/f", "hello") && stat_of("d/f").st_mode == (S_IFREG | (geteuid() ? 0751 : 04751)));
        CHECK(stat_of("d/f").st_mtim.tv_sec == -2 && stat_of("d/f").st_mtim.tv_nsec == 500000000);
        CHECK(stat_of("d/h").st_ino == stat_of("d/f").st_ino && stat_of("d/f").st_nlink == 2);
        CHECK(S_ISLNK(stat_of("implied/deep/s").st_mode) && stat_of("implied/deep/s").st_size == 12);
        CHECK(S_ISFIFO(stat_of("d/p").st_mode) && (stat_of("d/p").st_mode & 07777) == 0644);
        CHECK((stat_of("implied/deep").st_mode & 07777) == 0755 && is("d/empty", ""));
        CHECK(facts.entries == 6 && facts.bytes == 5);
    }
}

static void what_is_in_the_way_goes(void)
{
    struct archive a = {0};

    fresh();
    put_file(&a, "x", "1");
    put_header(&a, "y", '1', 0, "x");
    put_file(&a, "x", "22"); /* must not write through the link */
    dir(&a, "t/", "0000755", OLD);
    put_file(&a, "t/a/b/c", "c");
    put_header(&a, "t", '2', 0, "elsewhere");
    put_header(&a, "l", '2', 0, "../outside");
    put_file(&a, "l", "mine");
    put_header(&a, "m", '2', 0, "..");
    dir(&a, "m/", "0000711", OLD);
    put_header(&a, "p", '6', 0, NULL);
    put_file(&a, "p", "no hang");
    CHECK(layer(&a) == TAR_OK);
    CHECK(is("x", "22") && is("y", "1") && S_ISLNK(stat_of("t").st_mode) && is("l", "mine") && is("p", "no hang"));
    CHECK(stat_of("m").st_mode == (S_IFDIR | 0711));
    check_outside();
}

static void names_that_are_refused(void)
{
    static const struct {
        const char *name;
        char type;
        int code;
    } NAMES[] = {
        {"", '0', LAYER_EMPTY_NAME}, {"..", '5', LAYER_DOTDOT},    {"../x", '0', LAYER_DOTDOT}, {"a/../b", '0', LAYER_DOTDOT},
        {"a/..", '5', LAYER_DOTDOT}, {"a/../", '5', LAYER_DOTDOT}, {"/", '0', LAYER_ROOT},      {".", '2', LAYER_ROOT},
        {"./", '1', LAYER_ROOT},     {"f/x", '0', LAYER_NOT_DIRECTORY},
    };
    struct archive a = {0};
    char record[400] = "path=dir/", *name = record + 5;

    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        fresh();
        put_file(&a, "f", "");
        put_header(&a, NAMES[i].name, NAMES[i].type, 0, "f");
        CHECK(layer(&a) == NAMES[i].code && facts.offset == 512 && strcmp(fault, NAMES[i].name) == 0);
        check_outside();
    }
    memset(record + strlen(record), 'n', 255);
    fresh();
    put_keys(&a, record, NULL);
    put_file(&a, "x", "long");
    CHECK(layer(&a) == TAR_OK && is(name, "long"));
    strcat(record, "n");
    for (int parent = 0; parent < 2; parent++) {
        put_keys(&a, record, NULL);
        put_file(&a, "x", "");
        CHECK(layer(&a) == LAYER_NAME_TOO_LONG && facts.value == 256);
        strcat(record, "/y");
    }
    fresh();
    dir(&a, "/./", "0000711", OLD);
    CHECK(layer(&a) == TAR_OK && stat_of(".").st_mode == (S_IFDIR | 0711) && stat_of(".").st_mtim.tv_sec == 1000);
}

static void hard_links(void)
{
    static const struct {
        const char *target;
        int code;
        int64_t value;
    } BAD[] = {
        {"later", LAYER_HARDLINK, ENOENT}, {"d", LAYER_HARDLINK, EPERM},        {"no/x", LAYER_HARDLINK, ENOENT},
        {"f/x", LAYER_HARDLINK, ENOTDIR},  {"", LAYER_HARDLINK, ENOENT},        {"/", LAYER_HARDLINK, ENOENT},
        {"../outside", LAYER_DOTDOT, 0},   {"up/outside", LAYER_HARDLINK, ENOENT},
    };
    struct archive a = {0};

    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        fresh();
        put_file(&a, "f", "");
        put_file(&a, "d/x", "");
        put_header(&a, "up", '2', 0, "..");
        put_header(&a, "h", '1', 0, BAD[i].target);
        put_file(&a, "later", "");
        CHECK(layer(&a) == BAD[i].code && facts.value == BAD[i].value);
        check_outside();
    }
    fresh();
    put_file(&a, "f", "only copy");
    put_header(&a, "f", '1', 0, "f");
    put_file(&a, "other", "o");
    put_header(&a, "other", '1', 0, "f");
    put_header(&a, "sym", '2', 0, "../outside");
    put_header(&a, "hsym", '1', 0, "sym");
    put_file(&a, "d/e/x", "x");
    CHECK(layer(&a) == TAR_OK);
    CHECK(is("f", "only copy") && stat_of("other").st_ino == stat_of("f").st_ino && stat_of("hsym").st_ino == stat_of("sym").st_ino);
    put_header(&a, "d", '1', 0, "d/e/x");
    CHECK(layer(&a) == LAYER_HARDLINK && is("d/e/x", "x"));
    put_header(&a, "d", '1', 0, "f");
    CHECK(layer(&a) == TAR_OK && is("d", "only copy"));
    check_outside();
}

static void owners_devices_and_xattrs(void)
{
    struct archive a = {0};
    uint8_t *h;
    char value[64];

    fresh();
    h = dir(&a, "d/", "0002755", OLD);
    memcpy(h + 108, "0000005", 8);
    memcpy(h + 116, "0000006", 8);
    seal(h);
    put_file(&a, "d/f", "");
    put_file(&a, "d/implied/f", "");
    put_keys(&a, "uid=4294967294", "SCHILY.xattr.user.a=1", NULL);
    put_header(&a, "owned", '0', 0, NULL);
    put_keys(&a, "SCHILY.xattr.user.overlay.opaque=y", "SCHILY.xattr.trusted.overlay.opaque=y", "SCHILY.xattr.security.ima=x", "SCHILY.xattr.=x", NULL);
    put_header(&a, "plain", '0', 0, NULL);
    h = put_header(&a, "null", '3', 0, NULL);
    memcpy(h + 329, "0000001", 8);
    memcpy(h + 337, "0000003", 8);
    seal(h);
    CHECK(layer(&a) == TAR_OK);
    CHECK(flistxattr(openat(root, "plain", O_RDONLY | O_CLOEXEC), value, sizeof value) == 0);
    if (options.owners) {
        CHECK(stat_of("d").st_uid == 5 && stat_of("d").st_gid == 6 && stat_of("d").st_mode == (S_IFDIR | 02755));
        CHECK(stat_of("d/f").st_gid == 0 && stat_of("d/implied").st_gid == 0 && stat_of("d/implied/f").st_gid == 0);
        CHECK(stat_of("owned").st_uid == 4294967294u && S_ISCHR(stat_of("null").st_mode) && stat_of("null").st_rdev == makedev(1, 3));
        CHECK(facts.skipped_owners == 0 && facts.skipped_devices == 0 && stat_of("null").st_mode == (S_IFCHR | 0644));
    } else {
        CHECK(stat_of("owned").st_uid == geteuid() && gone("null"));
        CHECK(facts.skipped_owners == 5 && facts.skipped_devices == 1);
    }
    put_keys(&a, "uid=4294967295", NULL);
    put_header(&a, "x", '0', 0, NULL);
    CHECK(layer(&a) == LAYER_OWNER && facts.value == 4294967295);
    put_header(&a, "x", '3', 0, NULL);
    CHECK(layer(&a) == LAYER_DEVICE);
    h = put_header(&a, "x", '4', 0, NULL);
    memcpy(h + 329, "0100000", 8);
    seal(h);
    CHECK(layer(&a) == LAYER_DEVICE);
    put_header(&a, "x", '2', 0, "");
    CHECK(layer(&a) == LAYER_SYMLINK);
}

static void limits(void)
{
    struct archive a = {0};

    for (int spare = 0; spare < 2; spare++) {
        fresh();
        options.max_entries = 4 + (uint64_t)spare;
        put_file(&a, "a/b/c", ""); /* two implied directories */
        put_file(&a, "d", "");
        put_file(&a, ".wh.e", "");
        CHECK(layer(&a) == (spare ? TAR_OK : LAYER_ENTRIES));
        CHECK(spare || facts.value == 4);
        fresh();
        options.max_bytes = 5 + (uint64_t)spare;
        put_file(&a, "a", "123");
        put_file(&a, "b", "456");
        CHECK(layer(&a) == (spare ? TAR_OK : LAYER_BYTES));
    }
    fresh();
    options.max_bytes = 1 << 20;
    put_keys(&a, "GNU.sparse.map=0,0", "GNU.sparse.numblocks=1", "GNU.sparse.size=9223372036854775807", NULL);
    put_header(&a, "s", '0', 0, NULL);
    CHECK(layer(&a) == LAYER_BYTES && gone("s"));
    put_keys(&a, "GNU.sparse.map=1000,2", "GNU.sparse.numblocks=1", "GNU.sparse.size=5000", NULL);
    put_file(&a, "s", "ab");
    CHECK(layer(&a) == TAR_OK && stat_of("s").st_size == 5000 && stat_of("s").st_blocks <= 16 && facts.bytes == 2);
}

static size_t width = 2; /* bytes of a level of a deep name: letters and a slash */

/* A pax record of a name: a prefix, levels of "d/", then that many letters. */
static void put_name(struct archive *a, const char *key, const char *prefix, size_t levels, size_t letters)
{
    size_t len = strlen(key) + 1 + strlen(prefix) + levels * width + letters + 2; /* the space and the newline */
    char *record = malloc(len + 32), *at;

    len += snprintf(NULL, 0, "%zu", len) == snprintf(NULL, 0, "%zu", len + 3) ? (size_t)snprintf(NULL, 0, "%zu", len) : 4;
    at = record + sprintf(record, "%zu %s=%s", len, key, prefix);
    memset(at, 'd', levels * width);
    for (size_t i = 0; i < levels; i++, at += width)
        at[width - 1] = '/';
    memset(at, 'f', letters);
    record[len - 1] = '\n';
    CHECK(at + letters + 1 == record + len);
    put_special(a, 'x', record, len);
    free(record);
}

static void put_deep(struct archive *a, const char *prefix, size_t levels, size_t letters, char type)
{
    put_name(a, "path", prefix, levels, letters);
    put_header(a, "x", type, 0, NULL);
}

static void paths_are_as_long_as_the_kernel_takes(void)
{
    static const char TYPES[] = {'0', '5', '2', '6'};
    struct archive a = {0};

    for (size_t i = 0; i < sizeof TYPES; i++)
        for (size_t letters = 94; letters <= 96; letters++) { /* 4000 + letters; and by way of a link, 2005 + 1 + 1994 + letters */
            width = i ? 20 : 2;                               /* as many levels as can be, once */
            fresh();
            put_name(&a, "path", "", 4000 / width, letters);
            put_header(&a, "x", TYPES[i], 0, TYPES[i] == '2' ? "y" : NULL);
            CHECK(layer(&a) == (letters <= 95 ? TAR_OK : LAYER_PATH) && (letters <= 95 || facts.value == 4096));
            fresh();
            put_deep(&a, "", 2000 / width, 5, '5');
            put_name(&a, "linkpath", "", 2000 / width, 5);
            put_header(&a, "l", '2', 0, "x");
            put_name(&a, "path", "l/ddddddddddddd/", 1980 / width, letters);
            put_header(&a, "x", TYPES[i], 0, TYPES[i] == '2' ? "y" : NULL);
            CHECK(layer(&a) == (letters <= 95 ? TAR_OK : LAYER_PATH) && (letters <= 95 || facts.value == 4096));
        }
    width = 2;
    fresh();
    put_file(&a, "f", "");
    put_name(&a, "linkpath", "", 2000, 96);
    put_header(&a, "h", '1', 0, "x");
    CHECK(layer(&a) == LAYER_PATH && facts.value == 4096);
}

/* The way to the one directory is longer than the descriptors that may be open, and so is the way to the other. */
static void hard_links_between_directories_that_are_deep(void)
{
    struct archive a = {0};
    struct stat from, to;

    fresh();
    options.base = 1;
    put_deep(&a, "a/", 1000, 1, '0');
    put_name(&a, "linkpath", "a/", 1000, 0);
    put_header(&a, "l", '2', 0, "x");
    put_deep(&a, "b/", 1000, 1, '5');
    put_header(&a, "other/f", '0', 0, NULL);
    for (int i = 0; i < 2; i++) { /* new, and there already */
        put_name(&a, "path", "b/", 1000, 2);
        put_header(&a, "x", '1', 0, "l/f");
        put_header(&a, "other/f", '0', 0, NULL);
    }
    put_name(&a, "linkpath", "b/", 1000, 0);
    put_header(&a, "m", '2', 0, "x");
    CHECK(layer(&a) == TAR_OK);
    CHECK(chdir("root") == 0 && stat("l/f", &from) == 0 && stat("m/ff", &to) == 0 && chdir("..") == 0);
    CHECK(from.st_ino == to.st_ino && from.st_nlink == 2);
}

static void every_budget_has_its_number(void)
{
    struct archive a = {0};

    for (int spare = -1; spare < 2; spare++) {
        fresh();
        options.max_directories = (uint64_t)(4 + spare);
        put_file(&a, "a/b/c", "");
        dir(&a, "d/", "0000755", OLD);
        dir(&a, "d/e/", "0000755", OLD);
        CHECK(layer(&a) == (spare < 0 ? LAYER_DIRECTORIES : TAR_OK) && (spare >= 0 || facts.value == 3));
        fresh();
        options.max_bytes = (uint64_t)(6 + 7 + spare); /* user.k and its value; the content */
        put_keys(&a, "SCHILY.xattr.user.k=123", NULL);
        put_file(&a, "a", "4567");
        CHECK(layer(&a) == (spare < 0 ? LAYER_BYTES : TAR_OK));
        CHECK(spare < 0 ? facts.value == 12 : facts.extra == 9 && facts.bytes == 4);
        fresh();
        options.max_bytes = (uint64_t)(601 + spare);
        put_deep(&a, "", 300, 1, '5');
        CHECK(layer(&a) == (spare < 0 ? LAYER_BYTES : TAR_OK) && (spare < 0 || facts.extra == 601));
        fresh(); /* two implied directories, three components, and each entry's own budget */
        options.max_work = (uint64_t)(2 * 256 + 2 + spare) - 512;
        put_file(&a, "a/b/c", "");
        CHECK(layer(&a) == (spare < 0 ? LAYER_WORK : TAR_OK) && (spare >= 0 || facts.value == 513));
    }
}

static void what_little_text_can_ask_for_is_bounded(void)
{
    struct archive a = {0}, records = {0};
    char text[64];

    for (int count = 511; count <= 513; count++) {
        for (int i = 0; i < count; i++)
            put(&records, text, (size_t)snprintf(text, sizeof text, "29 SCHILY.xattr.user.k%04d=v\n", i));
        CHECK(strlen(text) == 29);
        fresh();
        put_special(&a, 'x', records.data, records.len);
        put_file(&a, "a", "");
        CHECK(layer(&a) == (count <= 512 ? TAR_OK : LAYER_XATTRS) && (count <= 512 || facts.value == 513));
        drop(&records);
    }
    fresh();
    options.max_work = 1000;
    for (int i = 0; i < 100; i++) { /* 90 units an xattr and more, of 512 an entry */
        for (int k = 0; k < 10; k++)
            put(&records, text, (size_t)snprintf(text, sizeof text, "29 SCHILY.xattr.user.k%04d=v\n", k));
        put_special(&a, 'x', records.data, records.len);
        put_file(&a, "a", "");
        drop(&records);
    }
    CHECK(layer(&a) == LAYER_WORK);
    fresh();
    options.max_work = 0;
    put_keys(&a, "GNU.sparse.map=0,1,2,1,4,1,6,1,8,1,10,1,12,1,14,1,16,1,18,1,20,1,22,1,24,1,26,1,28,1,30,1,32,1,34,1,36,1,38,1,"
                 "40,1,42,1,44,1,46,1,48,1,50,1,52,1,54,1,56,1,58,1,60,1,62,1,64,1",
             "GNU.sparse.numblocks=33", "GNU.sparse.size=65", NULL);
    put_file(&a, "s", "123456789012345678901234567890123");
    CHECK(layer(&a) == LAYER_WORK && strcmp(fault, "s") == 0);
}

static void deep_and_wide_trees_need_few_descriptors(void)
{
    struct archive a = {0};
    struct rlimit limit, few;
    char name[100];

    fresh();
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    few = limit;
    few.rlim_cur = 80;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    put_deep(&a, "", 2000, 2, '0');
    dir(&a, "d/d/d/", "0000700", OLD);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 300; i++) {
            snprintf(name, sizeof name, "w%03d/x/y%d", i, round);
            put_file(&a, name, "");
        }
    CHECK(layer(&a) == TAR_OK);
    CHECK(!gone("w299/x/y2") && stat_of("d/d/d").st_mtim.tv_sec == 1000);
    put_file(&a, ".wh.d", "");
    put_file(&a, ".wh..wh..opq", "");
    put_file(&a, "w000/x/new", "");
    CHECK(layer(&a) == TAR_OK && gone("d") && gone("w001") && gone("w000/x/y0") && !gone("w000/x/new"));
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void errors_of_the_disk_are_told(void)
{
    struct archive a = {0};
    struct rlimit limit, small;
    struct extract *ex;

    fresh();
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    small = limit;
    small.rlim_cur = 3;
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    put_file(&a, "big", "1234");
    CHECK(extract_windows(&a, 600) == LAYER_IO && facts.value == EFBIG && strcmp(fault, "big") == 0);
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    drop(&a);
    put_file(&a, "cut", "1234");
    a.len = 514;
    CHECK(layer(&a) == TAR_TRUNCATED);
    ex = extract_new(-1, &options);
    CHECK(extract_feed(ex, (const uint8_t *)"", 1) == LAYER_IO);
    extract_get_facts(ex, &facts);
    CHECK(facts.value == EBADF && facts.path_len == 0);
    extract_free(ex);
    extract_free(NULL);
}

static void run(void)
{
    a_layer_becomes_a_tree();
    what_is_in_the_way_goes();
    names_that_are_refused();
    hard_links();
    owners_devices_and_xattrs();
    limits();
    paths_are_as_long_as_the_kernel_takes();
    hard_links_between_directories_that_are_deep();
    every_budget_has_its_number();
    what_little_text_can_ask_for_is_bounded();
    deep_and_wide_trees_need_few_descriptors();
    errors_of_the_disk_are_told();
    fresh();
}

static void every_code_has_a_sentence(void)
{
    const struct code_description *text;
    int known = 0;

    for (int code = -5; code < 100; code++)
        if ((text = layer_code_describe(code))) {
            CHECK(strlen(text->kind) && strlen(text->sentence));
            known++;
        }
    CHECK(known == 14 + 26);
}

int main(void)
{
    every_code_has_a_sentence();
    return in_sandbox("test_extract", run);
}
