/* A libFuzzer target: a stack of layers gives the same tree in whatever way each of its layers comes: fed, or staged before, beside
 * or above the others and adopted when its turn comes. The input is layers, apart at blocks that begin with MARK. */
#include "fuzz/tree.h"

#define MARK "=== the next layer"

enum { LAYERS = 4, BLOCK = 512 };
enum way { FED, STAGED, MIXED, WAYS };

struct layer {
    const uint8_t *data;
    size_t len;
    struct extract *stager; /* NULL: it is fed */
};

static int roots[WAYS], stages[LAYERS];
static uint64_t outside;

static void begin(void)
{
    static const char *const NAMES[WAYS] = {"fed", "staged", "mixed"};
    static const char *const STAGES[LAYERS] = {"stage0", "stage1", "stage2", "stage3"};

    open_fuzz_root();
    for (int way = 0; way < WAYS; way++)
        roots[way] = make_directory(NAMES[way]);
    for (int i = 0; i < LAYERS; i++)
        stages[i] = make_directory(STAGES[i]);
    outside = outside_sum(WAYS + LAYERS + 1);
}

static struct extract_options options_of(int base)
{
    return (struct extract_options){.owners = geteuid() == 0, .privileged = geteuid() == 0, .base = base, .max_entries = 500, .max_bytes = 1 << 22, .max_directories = 400, .max_work = 1 << 20};
}

/* Cut the input at its marks; how many layers. */
static size_t split(const uint8_t *data, size_t len, struct layer layers[LAYERS])
{
    size_t count = 1, from = 0;

    for (size_t at = 0; at + BLOCK <= len && count < LAYERS; at += BLOCK)
        if (memcmp(data + at, MARK, strlen(MARK)) == 0) {
            layers[count - 1] = (struct layer){data + from, at - from, NULL};
            from = at + BLOCK;
            count++;
        }
    layers[count - 1] = (struct layer){data + from, len - from, NULL};
    return count;
}

static void stage_layer(struct layer *layer, int stage, uint64_t *state)
{
    struct extract_options options = options_of(0);

    DEMAND((layer->stager = extract_new_stager(stage, &options)));
    (void)feed(layer->stager, layer->data, layer->len, state);
}

/* Which layers are made aside, before any is in the tree, and in what order. */
static void stage_some(enum way way, struct layer layers[LAYERS], size_t count, uint64_t *state)
{
    for (size_t i = 0; i < count && way != FED; i++) {
        size_t which = way == STAGED ? count - 1 - i : i;
        if (way == STAGED || next_window(state, 16) % 2)
            stage_layer(&layers[which], stages[which], state);
    }
}

/* One layer into the tree; its facts. */
static struct layer_facts apply(int root, struct layer *layer, int base, uint64_t *state)
{
    struct extract_options options = options_of(base);
    struct extract *ex = extract_new(root, &options);
    struct layer_facts facts;
    int more = 0;

    DEMAND(ex);
    if (layer->stager) {
        while ((more = extract_adopt(ex, layer->stager, next_window(state, 20))) > 0)
            continue;
        if (!more)
            (void)extract_finish(ex);
    } else {
        (void)feed(ex, layer->data, layer->len, state);
    }
    extract_close(ex);
    extract_get_facts(ex, &facts);
    facts.path = NULL;
    extract_free(ex);
    return facts;
}

/* The whole stack into a tree: the number of the layer that was refused, or of all. */
static size_t apply_stack(enum way way, struct layer layers[LAYERS], size_t count, uint64_t seed, struct layer_facts facts[LAYERS])
{
    uint64_t state = seed + way;
    int fd = next_fd();
    size_t done = 0;

    stage_some(way, layers, count, &state);
    for (; done < count; done++) {
        facts[done] = apply(roots[way], &layers[done], done > 0, &state);
        if (facts[done].code)
            break;
    }
    for (size_t i = 0; i < count; i++) {
        extract_free(layers[i].stager);
        layers[i].stager = NULL;
        clear_stage(stages[i]);
    }
    DEMAND(fd == next_fd());
    return done;
}

static void empty(enum way way)
{
    struct extract_options options = options_of(1);
    struct extract *ex = extract_new(roots[way], &options);
    struct archive a = {0};

    DEMAND(ex);
    put_file(&a, ".wh..wh..opq", "");
    put_end(&a);
    DEMAND(feed(ex, a.data, a.len, NULL) == 0);
    extract_free(ex);
    drop(&a);
    DEMAND(tree_sum(roots[way], ".", 0) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct layer_facts facts[WAYS][LAYERS] = {0};
    struct layer layers[LAYERS];
    size_t count, done[WAYS];

    if (len > GUARDED_MAX)
        return 0;
    if (fuzz_root < 0)
        begin();
    data = aim(data, len);
    count = split(data, len, layers);
    for (int way = 0; way < WAYS; way++) {
        done[way] = apply_stack(way, layers, count, mix(len, data, len), facts[way]);
        DEMAND(done[way] == done[FED]);
        for (size_t i = 0; i < count && i <= done[FED]; i++)
            demand_same(&facts[FED][i], &facts[way][i]);
        DEMAND(done[FED] < count || tree_sum(roots[FED], ".", 0) == tree_sum(roots[way], ".", 0));
    }
    DEMAND(outside_sum(WAYS + LAYERS + 1) == outside);
    for (int way = 0; way < WAYS; way++)
        empty(way);
    return 0;
}

TAR_MUTATOR
