/* list [FILE]: the entries of a plain tar as the reader sees them, one a line; exit 1 and a code on stderr when it refuses. */
#include "tar/tar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print(struct tar_bytes bytes)
{
    for (size_t i = 0; i < bytes.len; i++)
        printf(bytes.data[i] > 32 && bytes.data[i] < 127 && bytes.data[i] != '\\' ? "%c" : "\\x%02x", bytes.data[i]);
}

static int on_entry(void *ctx, const struct tar_entry *entry)
{
    (void)ctx;
    printf("%c %04o %lld %lld %llu %lld.%09u %lld,%lld %s ", entry->type, entry->mode, (long long)entry->uid, (long long)entry->gid,
           (unsigned long long)entry->size, (long long)entry->mtime, entry->mtime_ns, (long long)entry->devmajor,
           (long long)entry->devminor, entry->sparse ? "sparse" : "-");
    print(entry->path);
    printf(" -> ");
    print(entry->link);
    for (size_t i = 0; i < entry->xattr_count; i++) {
        printf(" ");
        print(entry->xattrs[i].key);
        printf("=");
        print(entry->xattrs[i].value);
    }
    printf("\n");
    return 0;
}

static int on_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len)
{
    uint64_t *sum = ctx;

    for (size_t i = 0; i < len; i++)
        sum[0] = sum[0] * 1099511628211u + (offset + i) + data[i];
    return 0;
}

static int on_end(void *ctx)
{
    uint64_t *sum = ctx;

    printf("  %016llx\n", (unsigned long long)sum[0]);
    sum[0] = 0;
    return 0;
}

int main(int argc, char **argv)
{
    static const struct tar_sink SINK = {on_entry, on_data, on_end, NULL};
    const char *window = getenv("LIST_WINDOW");
    size_t size = window ? (size_t)atol(window) : 65536, got;
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : stdin;
    uint64_t sum = 0;
    struct tar *tar = tar_new(&SINK, &sum);
    uint8_t *buffer = malloc(size);
    int code = 0;

    if (!file || !tar || !buffer)
        return 2;
    while (!code && (got = fread(buffer, 1, size, file)) > 0)
        code = tar_feed(tar, buffer, got);
    if (!code)
        code = tar_finish(tar);
    if (code) {
        const struct code_description *text = tar_code_describe(code);
        fprintf(stderr, "code %d at %llu value %lld: %s\n", code, (unsigned long long)tar_offset(tar), (long long)tar_value(tar),
                text ? text->sentence : "?");
    }
    tar_free(tar);
    free(buffer);
    return code != 0;
}
