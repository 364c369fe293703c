/* A libFuzzer target: the reader gives the same events for any window, and the extractor stays in its root and leaves it removable.
 * The first byte chooses the window. FUZZ_ROOT names an empty directory on a memory file system. */
#include "../extract.h"
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

static uint64_t mix(uint64_t sum, const void *data, size_t len)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < len; i++)
        sum = (sum ^ bytes[i]) * 1099511628211u;
    return sum;
}

static int on_entry(void *ctx, const struct tar_entry *e)
{
    uint64_t *sum = ctx, numbers[6] = {(uint64_t)e->type, e->mode, (uint64_t)e->uid, (uint64_t)e->gid, e->size, (uint64_t)e->mtime};

    *sum = mix(*sum, e->path.data, e->path.len);
    *sum = mix(*sum, e->link.data, e->link.len);
    *sum = mix(*sum, numbers, sizeof numbers);
    CHECK(!memchr(e->path.data, 0, e->path.len) && !memchr(e->link.data, 0, e->link.len) && e->mtime_ns < 1000000000);
    for (size_t i = 0; i < e->xattr_count; i++)
        *sum = mix(mix(*sum, e->xattrs[i].key.data, e->xattrs[i].key.len), e->xattrs[i].value.data, e->xattrs[i].value.len);
    return 0;
}

static int on_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len)
{
    uint64_t *sum = ctx;

    for (size_t i = 0; i < len; i++) {
        uint64_t at = offset + i;
        *sum = mix(mix(*sum, &at, sizeof at), data + i, 1);
    }
    return 0;
}

static int on_end(void *ctx)
{
    uint64_t *sum = ctx;

    *sum = mix(*sum, "end", 3);
    return 0;
}

static int read_windows(const uint8_t *data, size_t len, size_t window, uint64_t *sum)
{
    static const struct tar_sink SINK = {on_entry, on_data, on_end};
    struct tar *tar = tar_new(&SINK, sum);
    int code = 0;

    for (size_t at = 0; at < len && !code; at += window)
        code = tar_feed(tar, data + at, len - at < window ? len - at : window);
    code = tar_finish(tar);
    tar_free(tar);
    return code;
}

static void extract_all(int root, const uint8_t *data, size_t len, int base)
{
    struct extract_options options = {geteuid() == 0, base, 2000, 1 << 22};
    struct extract *ex = extract_new(root, &options);

    if (!extract_feed(ex, data, len))
        (void)extract_finish(ex);
    extract_free(ex);
}

static void empty(int root)
{
    struct archive a = {0};
    struct dirent *entry;
    DIR *dir;
    int left = 0;

    put_file(&a, ".wh..wh..opq", "");
    extract_all(root, a.data, a.len, 1);
    drop(&a);
    dir = fdopendir(openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    while ((entry = readdir(dir)))
        left += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(dir);
    CHECK(left == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const char *place = getenv("FUZZ_ROOT");
    static int root = -1;
    uint64_t whole = 0, cut = 0;

    if (len < 1)
        return 0;
    CHECK(read_windows(data + 1, len - 1, len, &whole) == read_windows(data + 1, len - 1, (size_t)data[0] + 1, &cut));
    CHECK(whole == cut);
    if (!place)
        return 0;
    if (root < 0)
        root = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    extract_all(root, data + 1, len - 1, 0);
    extract_all(root, data + 1, len - 1, 1);
    empty(root);
    return 0;
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed);

/* Checksums would stop nearly every mutation: seal what still looks like a header, most of the time. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed)
{
    len = LLVMFuzzerMutate(data, len, max);
    for (size_t at = 1; seed % 8 && at + 512 <= len; at += 512)
        if (memcmp(data + at + 257, "ustar", 5) == 0)
            seal(data + at);
    return len;
}
