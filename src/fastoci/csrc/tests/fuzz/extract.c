/* A libFuzzer target: a layer gives the same tree however it is cut into windows, also when it is staged and adopted, touches
 * nothing outside its root, leaks no descriptor and leaves a tree that an upper layer can remove. FUZZ_ROOT names an empty directory on a memory file system. */
#include "fuzz/tree.h"

enum way { WHOLE, CUT, STAGED, WAYS };

static int roots[WAYS]; /* a tree for each way */
static int stage;       /* the files of a stager */
static uint64_t outside;

static void begin(void)
{
    static const char *const NAMES[WAYS] = {"whole", "cut", "staged"};

    open_fuzz_root();
    for (int way = 0; way < WAYS; way++)
        roots[way] = make_directory(NAMES[way]);
    stage = make_directory("stage");
    outside = outside_sum(WAYS + 2);
}

/* As feed, with whatever number of entries at a time. */
static int adopt(struct extract *ex, const struct extract_options *options, const uint8_t *data, size_t len, uint64_t *state)
{
    struct extract *stager = extract_new_stager(stage, options);
    int more;

    DEMAND(stager);
    (void)feed(stager, data, len, state);
    while ((more = extract_adopt(ex, stager, next_window(state, 20))) > 0)
        continue;
    extract_free(stager);
    clear_stage(stage);
    return more ? -more : extract_finish(ex);
}

static struct layer_facts extract_by(enum way way, const uint8_t *data, size_t len, int base)
{
    struct extract_options options = {.owners = geteuid() == 0, .privileged = geteuid() == 0, .base = base, .max_entries = 500, .max_bytes = 1 << 22, .max_directories = 400, .max_work = 1 << 20};
    int fd = next_fd(), code;
    struct extract *ex = extract_new(roots[way], &options);
    uint64_t state = mix(len, data, len);
    struct layer_facts facts;

    DEMAND(ex);
    code = way == STAGED ? adopt(ex, &options, data, len, &state) : feed(ex, data, len, way == CUT ? &state : NULL);
    extract_close(ex);
    extract_get_facts(ex, &facts);
    DEMAND(facts.code == code && facts.entries <= options.max_entries + 1 && facts.bytes <= options.max_bytes);
    facts.path = NULL;
    extract_free(ex);
    DEMAND(fd == next_fd());
    return facts;
}

static void empty(enum way way)
{
    struct archive a = {0};

    put_file(&a, ".wh..wh..opq", "");
    put_end(&a);
    DEMAND(extract_by(way, a.data, a.len, 1).code == 0);
    drop(&a);
    DEMAND(tree_sum(roots[way], ".", 0) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct layer_facts facts[WAYS] = {0};

    if (len > GUARDED_MAX)
        return 0;
    if (fuzz_root < 0)
        begin();
    data = aim(data, len);
    for (int base = 0; base < 2 && !facts[WHOLE].code; base++) /* as the first layer, and once more on top of itself */
        for (int way = 0; way < WAYS; way++) {
            facts[way] = extract_by(way, data, len, base);
            demand_same(&facts[WHOLE], &facts[way]);
            DEMAND(facts[WHOLE].code || tree_sum(roots[WHOLE], ".", 0) == tree_sum(roots[way], ".", 0));
        }
    DEMAND(outside_sum(WAYS + 2) == outside);
    for (int way = 0; way < WAYS; way++)
        empty(way);
    return 0;
}

TAR_MUTATOR
