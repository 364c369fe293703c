/* seeds DIRECTORY: small archives and compressed streams of every kind, for the fuzz targets to begin with. */
#include "support/check.h"

static const char *directory;

static void save(const char *name, const void *data, size_t len)
{
    char path[4096];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", directory, name);
    CHECK((file = fopen(path, "wb")) && fwrite(data, 1, len, file) == len && fclose(file) == 0);
}

static void save_archive(const char *name, struct archive *a)
{
    put_end(a);
    save(name, a->data, a->len);
    drop(a);
}

static void save_plain(void)
{
    struct archive a = {0};

    put_header(&a, "dir/", '5', 0, NULL);
    put_file(&a, "dir/file", "content");
    put_header(&a, "dir/hard", '1', 0, "dir/file");
    put_header(&a, "soft", '2', 0, "dir/file");
    put_header(&a, "fifo", '6', 0, NULL);
    put_header(&a, "device", '3', 0, NULL);
    save_archive("plain.tar", &a);
}

static void save_extended(void)
{
    struct archive a = {0};

    put_keys(&a, "path=a/long/name", "mtime=-1.5", "uid=70000", "size=3", "SCHILY.xattr.user.key=value", NULL);
    put_file(&a, "short", "abc");
    put_keys(&a, "GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.name=sparse", "GNU.sparse.realsize=4096",
             "GNU.sparse.map=0,3,4096,0", NULL);
    put_file(&a, "short", "abc");
    put_special(&a, 'L', "gnu/long/name", 14);
    put_special(&a, 'K', "gnu/long/target", 16);
    put_header(&a, "short", '2', 0, "short");
    put_special(&a, 'g', "16 comment=more\n", 16);
    save_archive("extended.tar", &a);
}

static void save_escapes(void)
{
    struct archive a = {0};

    put_header(&a, "up", '2', 0, "../canary");
    put_file(&a, "up/file", "escaped");
    put_header(&a, "top", '2', 0, "/");
    put_file(&a, "top/made", "inside");
    put_header(&a, "hard", '1', 0, "up/file");
    put_header(&a, "loop", '2', 0, "loop/x");
    put_file(&a, "a/../b", "");
    save_archive("escapes.tar", &a);
}

static void save_whiteouts(void)
{
    struct archive a = {0};

    put_file(&a, "dir/one", "1");
    put_file(&a, "dir/two", "2");
    put_file(&a, "dir/.wh.one", "");
    put_file(&a, "dir/sub/.wh..wh..opq", "");
    put_header(&a, "dir", '2', 0, "elsewhere");
    put_file(&a, "dir/deep/file", "3");
    save_archive("whiteouts.tar", &a);
}

/* For the target that takes stacks: layers apart at a block that begins with its mark. */
static void put_mark(struct archive *a)
{
    uint8_t block[512] = "=== the next layer";

    put_end(a);
    put(a, block, sizeof block);
}

static void save_stacks(void)
{
    struct archive a = {0};

    put_file(&a, "dir/one", "1");
    put_file(&a, "dir/sub/two", "2");
    put_header(&a, "way", '2', 0, "dir");
    put_mark(&a);
    put_file(&a, "dir/.wh.one", "");
    put_file(&a, "way/three", "3");
    put_file(&a, "dir/sub/.wh..wh..opq", "");
    put_header(&a, "hard", '1', 0, "dir/three");
    put_mark(&a);
    put_file(&a, "way", "a file");
    put_file(&a, "dir/sub", "another");
    put_file(&a, ".wh.hard", "");
    save_archive("stack.tar", &a);
    put_header(&a, "b/", '5', 0, NULL);
    put_mark(&a);
    put_file(&a, "b/a", "");
    put_file(&a, "b/.wh..wh..opq", "");
    put_file(&a, ".wh..wh..opq", "");
    save_archive("opaque.tar", &a);
}

int main(int argc, char **argv)
{
    static const uint8_t GZIP[] = {
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x4b, 0x4b, 0x2c, 0x2e, 0xc9, 0x4f,
        0xce, 0x4c, 0x1b, 0xa5, 0x68, 0x41, 0x01, 0x00, 0xb3, 0xc4, 0xb6, 0x31, 0x5e, 0x01, 0x00, 0x00,
    };
    static const uint8_t ZSTD[] = {
        0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x07, 0x39, 0x00, 0x00, 'f', 'a', 's', 't', 'o', 'c', 'i', /* one segment */
        0x50, 0x2a, 0x4d, 0x18, 0x03, 0x00, 0x00, 0x00, 'a', 'b', 'c',                           /* a skippable frame */
        0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x60, 0x03, 0x00, 0x01, 'r',                               /* a window of 4 MiB; a run */
    };

    CHECK(argc == 2);
    directory = argv[1];
    save_plain();
    save_extended();
    save_escapes();
    save_whiteouts();
    save_stacks();
    save("member.gz", GZIP, sizeof GZIP);
    save("frames.zst", ZSTD, sizeof ZSTD);
    return 0;
}
