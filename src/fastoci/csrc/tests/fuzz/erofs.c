/* A libFuzzer target: layer files and merged metadata are the same in whatever way a tar comes, and what the extractor says of a stack
 * of layers, merged metadata say. The input is layers, apart at blocks that begin with MARK. */
#include "fuzz/tree.h"

#include "erofs/erofs.h"

#define MARK "=== the next layer"

enum { LAYERS = 4, BLOCK = 512, HEAD = 4096 };

struct part {
    const uint8_t *data;
    size_t len;
};

static int tree = -1, files[4];
static uint64_t outside;

static void begin(void)
{
    open_fuzz_root();
    tree = make_directory("tree");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        DEMAND((files[i] = memfd_create("fuzz", MFD_CLOEXEC)) >= 0);
    outside = outside_sum(2);
}

static struct erofs *fresh(int file, enum erofs_form form)
{
    struct erofs_options options = {.form = form, .max_entries = 500, .max_bytes = 1 << 22, .max_memory = 1 << 22, .max_work = 1 << 20};
    struct erofs *e;

    DEMAND(ftruncate(file, 0) == 0 && (e = erofs_new(file, &options)));
    return e;
}

static int feed_erofs(struct erofs *e, struct part part, uint64_t *state)
{
    static uint8_t *area;
    int code = 0;

    for (size_t at = 0, window; at < part.len && !code; at += window) {
        uint8_t *copy;
        window = state ? next_window(state, 2000) : part.len;
        window = window < part.len - at ? window : part.len - at;
        copy = memcpy(guarded(&area, window), part.data + at, window);
        code = erofs_feed(e, copy, window);
    }
    return code;
}

static uint64_t file_sum(int file)
{
    static uint8_t window[1 << 16];
    uint64_t sum = 7, at = 0;
    ssize_t got;

    for (; (got = pread(file, window, sizeof window, (off_t)at)) > 0 && at < 1 << 24; at += (uint64_t)got)
        sum = mix(sum, window, (size_t)got);
    return sum;
}

/* A layer file in one window and in many: the facts. */
static struct layer_facts write_layer(struct part part, enum erofs_form form, uint64_t *state)
{
    struct layer_facts facts[2];
    uint8_t first[HEAD] = {0};

    for (int i = 0; i < 2; i++) {
        struct erofs *e = fresh(files[i], form);
        if (!feed_erofs(e, part, i ? state : NULL))
            (void)erofs_finish(e);
        erofs_get_facts(e, &facts[i]);
        erofs_free(e);
        facts[i].path = NULL;
    }
    demand_same(&facts[0], &facts[1]);
    DEMAND(facts[0].code || file_sum(files[0]) == file_sum(files[1]));
    DEMAND(facts[0].code == 0 || pread(files[0], first, HEAD, 0) < 1028 || memcmp(first + 1024, "\0\0\0\0", 4) == 0);
    return facts[0];
}

/* Merged metadata, fed or read: the number of the layer that was refused, or of all. */
static size_t merge(int file, const struct part *parts, size_t count, int read, uint64_t *state, struct layer_facts *facts)
{
    struct erofs *e = fresh(file, EROFS_MERGED);
    size_t done = 0;

    for (; done < count; done++) {
        DEMAND(erofs_begin_layer(e, (const uint8_t *)"tag", 3) == 0);
        if (read) {
            DEMAND(ftruncate(files[3], 0) == 0);
            DEMAND(pwrite(files[3], parts[done].data, parts[done].len, HEAD) == (ssize_t)parts[done].len);
            (void)erofs_read_layer(e, files[3], HEAD, parts[done].len);
        } else {
            (void)feed_erofs(e, parts[done], state);
        }
        (void)erofs_end_layer(e);
        erofs_get_facts(e, &facts[done]);
        facts[done].path = NULL;
        if (facts[done].code)
            break;
    }
    if (done == count)
        DEMAND(erofs_finish(e) == 0);
    erofs_free(e);
    return done;
}

static struct layer_facts extracted(struct part part, int base)
{
    struct extract_options options = {.owners = geteuid() == 0, .privileged = geteuid() == 0, .base = base, .max_entries = 500, .max_bytes = 1 << 22, .max_directories = 100000, .max_work = 1 << 20};
    struct extract *ex = extract_new(tree, &options);
    struct layer_facts facts;

    DEMAND(ex);
    (void)feed(ex, part.data, part.len, NULL);
    extract_close(ex);
    extract_get_facts(ex, &facts);
    facts.path = NULL;
    extract_free(ex);
    return facts;
}

static void empty(void)
{
    struct archive a = {0};

    put_file(&a, ".wh..wh..opq", "");
    put_end(&a);
    DEMAND(extracted((struct part){a.data, a.len}, 1).code == 0);
    drop(&a);
    DEMAND(tree_sum(tree, ".", 0) == 0);
}

/* What is refused for its work depends on what is asked for it: descriptors in one tree, memory in the other. */
static int is_of_its_own(int code)
{
    return code == LAYER_WORK || code == LAYER_MEMORY || code == LAYER_SPARSE || code == LAYER_FILE_SIZE || code == LAYER_IO;
}

static void compare(const struct part *parts, size_t count, const struct layer_facts *merged, size_t done)
{
    for (size_t i = 0; i < count && i <= done; i++) {
        struct layer_facts facts = extracted(parts[i], i > 0);
        if (is_of_its_own(facts.code) || is_of_its_own(merged[i].code))
            return;
        DEMAND(facts.code == merged[i].code && facts.offset == merged[i].offset && facts.entries == merged[i].entries);
        if (facts.code)
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct layer_facts facts[2][LAYERS] = {0};
    struct part parts[LAYERS];
    size_t count = 0, from = 0, done;
    uint64_t state;

    if (len > GUARDED_MAX)
        return 0;
    if (fuzz_root < 0)
        begin();
    data = aim(data, len);
    state = mix(len, data, len);
    for (size_t at = 0; at + BLOCK <= len && count < LAYERS - 1; at += BLOCK)
        if (memcmp(data + at, MARK, strlen(MARK)) == 0) {
            parts[count++] = (struct part){data + from, at - from};
            from = at + BLOCK;
        }
    parts[count++] = (struct part){data + from, len - from};
    for (size_t i = 0; i < count; i++) {
        (void)write_layer(parts[i], EROFS_TAR, &state);
        (void)write_layer(parts[i], EROFS_4K, &state);
    }
    done = merge(files[0], parts, count, 0, &state, facts[0]);
    DEMAND(merge(files[1], parts, count, 1, &state, facts[1]) == done);
    DEMAND(done < count || file_sum(files[0]) == file_sum(files[1]));
    compare(parts, count, facts[0], done);
    DEMAND(outside_sum(2) == outside);
    empty();
    return 0;
}

TAR_MUTATOR
