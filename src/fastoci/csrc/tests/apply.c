/* apply ROOT LAYER...: the extractor without Python. Layers are plain tars, "-" is stdin; one line on stderr says what failed. */
#include "extract/extract.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WINDOW = 256 * 1024 };

static int complain(const char *layer, const struct extract *ex)
{
    struct layer_facts facts;
    const struct code_description *text;

    extract_get_facts(ex, &facts);
    text = layer_code_describe(facts.code);
    fprintf(stderr, "%s: %s: %s (header at %llu, value %lld, path ", layer, text->kind, text->sentence, (unsigned long long)facts.offset,
            (long long)facts.value);
    for (size_t i = 0; i < facts.path_len && i < 200; i++)
        fprintf(stderr, facts.path[i] > 32 && facts.path[i] < 127 ? "%c" : "\\x%02x", (unsigned char)facts.path[i]);
    fprintf(stderr, ")\n");
    return 1;
}

static int feed_all(struct extract *ex, int fd, size_t window)
{
    static uint8_t buffer[WINDOW];
    ssize_t got;

    while ((got = read(fd, buffer, window)) > 0)
        if (extract_feed(ex, buffer, (size_t)got))
            return 1;
    return got < 0 || extract_finish(ex);
}

static int apply(int root, const char *layer, const struct extract_options *options, size_t window)
{
    int fd = strcmp(layer, "-") ? open(layer, O_RDONLY | O_CLOEXEC) : 0, failed;
    struct extract *ex;

    if (fd < 0) {
        fprintf(stderr, "%s: %s\n", layer, strerror(errno));
        return 1;
    }
    if (!(ex = extract_new(root, options)))
        return 1;
    failed = feed_all(ex, fd, window) && complain(layer, ex);
    if (!failed && getenv("APPLY_FACTS")) {
        struct layer_facts facts;
        extract_get_facts(ex, &facts);
        printf("entries %llu bytes %llu owners %llu devices %llu xattrs %llu\n", (unsigned long long)facts.entries,
               (unsigned long long)facts.bytes, (unsigned long long)facts.skipped_owners, (unsigned long long)facts.skipped_devices,
               (unsigned long long)facts.skipped_xattrs);
    }
    extract_free(ex);
    close(fd);
    return failed;
}

int main(int argc, char **argv)
{
    const char *window = getenv("APPLY_WINDOW");
    struct extract_options options = {.owners = geteuid() == 0, .privileged = geteuid() == 0, .max_entries = 10000000, .max_bytes = 100ull << 30, .max_directories = 1000000, .max_work = 1 << 24};
    int root = argc > 1 ? open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (root < 0) {
        fprintf(stderr, "usage: apply ROOT LAYER...\n");
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        options.base = i > 2 || getenv("APPLY_BASE") != NULL;
        if (apply(root, argv[i], &options, window ? (size_t)atol(window) : WINDOW))
            return 1;
    }
    return 0;
}
