/* A libFuzzer target: a layer made alone, in the form of overlayfs, is the same however it is cut into windows, and touches nothing
 * outside its root. When it has no reasons, it is judged as in a tree, also on top of itself, and is that tree but for whiteouts. */
#include "fuzz/tree.h"

#include "io/remove.h"

enum way { ALONE, CUT, TREE, WAYS };

static int roots[WAYS];
static uint64_t outside;

static void begin(void)
{
    static const char *const NAMES[WAYS] = {"alone", "cut", "tree"};

    open_fuzz_root();
    for (int way = 0; way < WAYS; way++)
        roots[way] = make_directory(NAMES[way]);
    outside = outside_sum(WAYS + 1);
}

static struct layer_facts extract_by(enum way way, const uint8_t *data, size_t len)
{
    struct extract_options options = {.owners = geteuid() == 0, .privileged = geteuid() == 0, .base = 1, .user_xattrs = geteuid() != 0, .max_entries = 500, .max_bytes = 1 << 22, .max_directories = 400, .max_work = 1 << 20};
    int fd = next_fd(), code;
    struct extract *ex = way == TREE ? extract_new(roots[way], &options) : extract_new_overlay(roots[way], &options);
    uint64_t state = mix(len, data, len);
    struct layer_facts facts;

    DEMAND(ex);
    code = feed(ex, data, len, way == CUT ? &state : NULL);
    extract_close(ex);
    extract_get_facts(ex, &facts);
    DEMAND(facts.code == code);
    facts.path = NULL;
    extract_free(ex);
    DEMAND(fd == next_fd());
    return facts;
}

/* Remove the whiteouts below a directory. */
static void strip(int parent, const char *name)
{
    DIR *dir = fdopendir(openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct dirent *entry;
    struct stat st;

    DEMAND(dir);
    while ((entry = readdir(dir))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        DEMAND(fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0);
        if (S_ISCHR(st.st_mode) && st.st_rdev == 0)
            DEMAND(unlinkat(dirfd(dir), entry->d_name, 0) == 0);
        else if (S_ISDIR(st.st_mode))
            strip(dirfd(dir), entry->d_name);
    }
    closedir(dir);
}

static void empty(int root)
{
    struct remove_bounds unbounded = {NULL, 0};
    DIR *dir = fdopendir(openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct dirent *entry;

    DEMAND(dir);
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            DEMAND(remove_tree(root, entry->d_name, &unbounded) == 0);
    closedir(dir);
    DEMAND(tree_sum(root, ".", 0) == 0 && fchmod(root, 0755) == 0);
}

/* A layer without reasons is what it is in a tree. How much work may be asked for is the one thing that differs. */
static void compare(const struct layer_facts *alone, const uint8_t *data, size_t len)
{
    struct layer_facts tree = extract_by(TREE, data, len);

    if (alone->reasons || alone->code == LAYER_WORK || tree.code == LAYER_WORK)
        return;
    demand_same(alone, &tree);
    if (alone->code)
        return;
    strip(roots[ALONE], ".");
    DEMAND(tree_sum(roots[ALONE], ".", 0) == tree_sum(roots[TREE], ".", 0));
    tree = extract_by(TREE, data, len); /* on top of itself */
    DEMAND(tree.code == TAR_OK || tree.code == LAYER_WORK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct layer_facts alone, cut;

    if (len > GUARDED_MAX)
        return 0;
    if (fuzz_root < 0)
        begin();
    data = aim(data, len);
    alone = extract_by(ALONE, data, len);
    cut = extract_by(CUT, data, len);
    demand_same(&alone, &cut);
    DEMAND(alone.reasons == cut.reasons && alone.names_root == cut.names_root);
    DEMAND(alone.code || tree_sum(roots[ALONE], ".", 0) == tree_sum(roots[CUT], ".", 0));
    compare(&alone, data, len);
    DEMAND(outside_sum(WAYS + 1) == outside);
    for (int way = 0; way < WAYS; way++)
        empty(roots[way]);
    return 0;
}

TAR_MUTATOR
