/* The writer of EROFS files: the same file in whatever way its tar comes, its bounds and failures. What the files hold is looked at by
 * a reader in tests/unpack. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "erofs/erofs.h"

#include "support/check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int stop;

static struct erofs_options options_of(enum erofs_form form)
{
    return (struct erofs_options){
        .form = form, .uuid = {1, 2, 3}, .max_entries = 200000, .max_bytes = 1 << 30, .max_memory = 1 << 24, .max_work = 1 << 24, .stop = &stop};
}

static int new_file(void)
{
    int fd = memfd_create("erofs", MFD_CLOEXEC);

    CHECK(fd >= 0);
    return fd;
}

/* All bytes of a file; the descriptor is closed. */
static struct archive content(int fd)
{
    struct archive a = {0};
    struct stat st;

    CHECK(fstat(fd, &st) == 0);
    put_zeros(&a, st.st_size > 1 << 28 ? 4096 : (size_t)st.st_size); /* memory that is left of a failure lies far behind */
    CHECK(pread(fd, a.data, a.len, 0) == (ssize_t)a.len && close(fd) == 0);
    return a;
}

static int feed_windows(struct erofs *e, const struct archive *a, size_t window)
{
    int code = 0;

    for (size_t at = 0; at < a->len && !code; at += window) {
        size_t len = a->len - at < window ? a->len - at : window;
        uint8_t *copy = malloc(len); /* so that a sanitizer sees a read beyond the window */
        CHECK(copy);
        memcpy(copy, a->data + at, len);
        code = erofs_feed(e, copy, len);
        free(copy);
    }
    return code;
}

static int write_layer(const struct archive *a, size_t window, struct erofs_options options, struct archive *out)
{
    int fd = new_file(), code;
    struct erofs *e = erofs_new(fd, &options);
    struct erofs_file file;
    struct layer_facts facts;

    CHECK(e);
    code = feed_windows(e, a, window);
    code = code ? code : erofs_finish(e);
    erofs_get_facts(e, &facts);
    erofs_get_file(e, &file);
    CHECK(facts.code == code && erofs_feed(e, a->data, 1) == (code ? code : LAYER_CLOSED));
    CHECK(file.memory <= options.max_memory);
    erofs_close(e);
    erofs_close(e);
    erofs_free(e);
    *out = content(fd);
    CHECK(code || (file.size == out->len && file.metadata_at < file.size));
    return code;
}

/* One of everything, garbage in a padding, and more names than a block holds. */
static void fill(struct archive *a)
{
    char name[64], *garbage;

    put_header(a, "d/", '5', 0, NULL);
    put_file(a, "d/clean", "clean");
    put_file(a, "d/dirty", "dirty");
    garbage = (char *)a->data + a->len - 7;
    memcpy(garbage, "garbage", 7);
    put_header(a, "d/link", '2', 0, "clean");
    put_header(a, "d/second", '1', 0, "d/dirty");
    put_header(a, "fifo", '6', 0, NULL);
    put_file(a, "d/.wh.gone", "");
    put_keys(a, "SCHILY.xattr.user.a=b", "SCHILY.xattr.trusted.overlay.opaque=y", NULL);
    put_file(a, "attributes", "");
    put_keys(a, "GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=5000", "GNU.sparse.numblocks=2", "GNU.sparse.map=512,512,4999,1", NULL);
    put_header(a, "sparse", '0', 513, NULL);
    put_zeros(a, 1024);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "flat/name-%d", i * 7919 % 200);
        put_file(a, name, "x");
    }
    put_end(a);
}

static void the_file_is_the_same_in_whatever_way_the_tar_comes(void)
{
    for (enum erofs_form form = EROFS_TAR; form <= EROFS_4K; form++) {
        struct archive a = {0}, whole, pieces;
        fill(&a);
        CHECK(write_layer(&a, a.len, options_of(form), &whole) == TAR_OK);
        for (size_t window = 1; window <= 4097; window += 1024) {
            CHECK(write_layer(&a, window, options_of(form), &pieces) == TAR_OK);
            CHECK(pieces.len == whole.len && memcmp(pieces.data, whole.data, whole.len) == 0);
            drop(&pieces);
        }
        CHECK(memcmp(whole.data + 1024, "\xe2\xe1\xf5\xe0", 4) == 0 && whole.len % 4096 == 0);
        CHECK(form != EROFS_TAR || memcmp(whole.data + 4096, a.data, a.len) == 0);
        drop(&whole);
        drop(&a);
    }
}

static int merge(const struct archive *layers, int count, int read, struct archive *out)
{
    struct erofs_options options = options_of(EROFS_MERGED);
    int fd = new_file(), code = 0;
    struct erofs *e = erofs_new(fd, &options);

    CHECK(e);
    for (int i = 0; i < count && !code; i++) {
        int tar = new_file();
        CHECK(pwrite(tar, layers[i].data, layers[i].len, 99) == (ssize_t)layers[i].len);
        if (!(code = erofs_begin_layer(e, (const uint8_t *)"tag", 3)))
            code = read ? erofs_read_layer(e, tar, 99, layers[i].len) : feed_windows(e, &layers[i], 1000);
        code = code ? code : erofs_end_layer(e);
        close(tar);
    }
    code = code ? code : erofs_finish(e);
    erofs_free(e);
    *out = content(fd);
    return code;
}

static void reading_passes_over_what_feeding_ignores(void)
{
    struct archive layers[3] = {{0}, {0}, {0}}, read, fed;
    char *large = calloc(1, 500001);

    CHECK(large);
    memset(large, 'x', 500000);
    fill(&layers[0]);
    put_file(&layers[1], "large", large);
    put_file(&layers[1], "d/.wh.dirty", "");
    put_file(&layers[1], "flat/.wh..wh..opq", ""); /* and no end */
    put_file(&layers[2], "flat/new", "");
    put_header(&layers[2], "third", '1', 0, "d/clean");
    put_end(&layers[2]);
    put_zeros(&layers[2], 300000);
    CHECK(merge(layers, 3, 0, &fed) == TAR_OK && merge(layers, 3, 1, &read) == TAR_OK);
    CHECK(read.len == fed.len && memcmp(read.data, fed.data, fed.len) == 0);
    drop(&read);
    drop(&fed);
    layers[1].len = 300000; /* inside the content */
    CHECK(merge(layers, 2, 1, &read) == TAR_TRUNCATED && merge(layers, 2, 0, &fed) == TAR_TRUNCATED);
    drop(&read);
    drop(&fed);
    for (int i = 0; i < 3; i++)
        drop(&layers[i]);
    free(large);
}

static void bounds_hold(void)
{
    struct erofs_options options = options_of(EROFS_TAR);
    struct archive a = {0}, out, whole;
    int mapped = 0;

    fill(&a);
    CHECK(write_layer(&a, a.len, options, &whole) == TAR_OK);
    for (options.max_memory = 0; options.max_memory < 1 << 20; options.max_memory += is_short() ? 17000 : 1000) {
        int code = write_layer(&a, a.len, options, &out);
        CHECK(code == TAR_OK || code == LAYER_MEMORY);
        CHECK(code != TAR_OK || (out.len == whole.len && memcmp(out.data, whole.data, whole.len) == 0));
        mapped += code == TAR_OK && options.max_memory < 1 << 16; /* too little for one block */
        CHECK(code == TAR_OK || out.len < 4096 || memcmp(out.data + 1024, "\0\0\0\0", 4) == 0);
        drop(&out);
    }
    CHECK(mapped > 0);
    drop(&whole);
    options = options_of(EROFS_TAR);
    options.max_entries = 10;
    CHECK(write_layer(&a, a.len, options, &out) == LAYER_ENTRIES);
    drop(&out);
    options = options_of(EROFS_TAR);
    options.max_bytes = 10;
    CHECK(write_layer(&a, 512, options, &out) == LAYER_BYTES);
    drop(&out);
    stop = 1;
    CHECK(write_layer(&a, a.len, options_of(EROFS_TAR), &out) == LAYER_STOPPED);
    stop = 0;
    drop(&out);
    drop(&a);
}

/* Anything may follow the end of an archive, and headers need no entries; the file does not grow with them for ever. */
static void what_is_no_entry_is_bounded(void)
{
    struct erofs_options options = options_of(EROFS_TAR);
    struct archive a = {0};
    int fd = new_file(), code = 0, fed = 0;
    struct erofs *e = erofs_new(fd, &options);

    put_end(&a);
    put_zeros(&a, 1 << 20);
    CHECK(e);
    while (!code && fed < 100) {
        code = erofs_feed(e, a.data, a.len);
        fed++;
    }
    CHECK(code == LAYER_BYTES && fed < 70);
    erofs_free(e);
    close(fd);
    drop(&a);
}

/* Names in no order, in one directory: neither their insertion nor their sorting takes a time that grows with the square. */
static void a_flat_directory_is_no_burden(void)
{
    struct erofs_options options = options_of(EROFS_TAR);
    struct archive a = {0};
    int fd = new_file();
    struct erofs *e = erofs_new(fd, &options);
    uint32_t name = 1;
    char text[32];

    CHECK(e);
    for (int i = 0; i < (is_short() ? 20000 : 100000); i++) {
        name = name * 1664525u + 1013904223u; /* each 32-bit number once */
        snprintf(text, sizeof text, "flat/%08x", name);
        put_header(&a, text, '0', 0, NULL);
        CHECK(erofs_feed(e, a.data, a.len) == TAR_OK);
        drop(&a);
    }
    CHECK(erofs_finish(e) == TAR_OK);
    erofs_free(e);
    close(fd);
}

static void failures_are_told(void)
{
    struct erofs_options options = options_of(EROFS_TAR);
    struct archive a = {0};
    struct layer_facts facts;
    int fd = new_file();
    struct erofs *e;

    fill(&a);
    CHECK(write(fd, "x", 1) == 1); /* not empty */
    CHECK((e = erofs_new(fd, &options)) && erofs_feed(e, a.data, a.len) == LAYER_IO);
    erofs_get_facts(e, &facts);
    CHECK(facts.value == EINVAL);
    erofs_free(e);
    close(fd);
    fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    CHECK((e = erofs_new(fd, &options)) && erofs_feed(e, a.data, a.len) == LAYER_IO);
    erofs_free(e);
    close(fd);
    options.form = EROFS_MERGED;
    fd = new_file();
    CHECK((e = erofs_new(fd, &options)) && erofs_feed(e, a.data, a.len) == LAYER_IO); /* no layer has begun */
    erofs_free(e);
    CHECK((e = erofs_new(fd, &options)) && erofs_end_layer(e) == LAYER_IO);
    erofs_free(e);
    CHECK((e = erofs_new(fd, &options)) && erofs_begin_layer(e, a.data, 65) == LAYER_IO);
    erofs_free(e);
    CHECK((e = erofs_new(fd, &options)) && erofs_begin_layer(e, a.data, 64) == TAR_OK);
    erofs_close(e);
    CHECK(erofs_feed(e, a.data, a.len) == LAYER_CLOSED && erofs_finish(e) == LAYER_CLOSED);
    erofs_free(e);
    erofs_free(NULL);
    close(fd);
    drop(&a);
}

int main(void)
{
    the_file_is_the_same_in_whatever_way_the_tar_comes();
    reading_passes_over_what_feeding_ignores();
    bounds_hold();
    what_is_no_entry_is_bounded();
    a_flat_directory_is_no_burden();
    failures_are_told();
    printf("test_erofs: ok\n");
    return 0;
}
