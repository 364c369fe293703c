/* A libFuzzer target: a layer gives the same tree however it is cut into windows, also when it is staged and adopted, touches
 * nothing outside its root, leaks no descriptor and leaves a tree that an upper layer can remove. FUZZ_ROOT names an empty directory on a memory file system. */
#include "fuzz.h"

#include "../extract.h"
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

enum way { WHOLE, CUT, STAGED, WAYS };

static int place = -1;  /* FUZZ_ROOT, which holds: */
static int roots[WAYS]; /* a tree for each way, */
static int stage;       /* the files of a stager, and the canary */
static uint64_t outside;

/* A sum of all that is below a directory. Times of directories count only where nothing is made below: strict. */
static uint64_t tree_sum(int parent, const char *name, int strict)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct dirent *entry;
    uint64_t sum = 0; /* of all names, in no order */
    DIR *dir;

    DEMAND(fd >= 0 && (dir = fdopendir(fd)));
    while ((entry = readdir(dir))) {
        struct stat st;
        char text[4096];
        uint64_t one = mix(7, entry->d_name, strlen(entry->d_name));
        ssize_t len;

        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        DEMAND(fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0);
        uint64_t facts[] = {st.st_mode, st.st_uid, st.st_gid, st.st_rdev, st.st_nlink};
        one = mix(one, facts, sizeof facts);
        if (!S_ISDIR(st.st_mode))
            one = mix(mix(one, &st.st_size, sizeof st.st_size), &st.st_mtim, sizeof st.st_mtim);
        if (strict)
            one = mix(mix(one, &st.st_mtim, sizeof st.st_mtim), &st.st_ctim, sizeof st.st_ctim);
        if (S_ISLNK(st.st_mode) && (len = readlinkat(fd, entry->d_name, text, sizeof text)) > 0)
            one = mix(one, text, (size_t)len);
        if (S_ISREG(st.st_mode) && st.st_size < 1 << 20) {
            int file = openat(fd, entry->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
            while (file >= 0 && (len = read(file, text, sizeof text)) > 0)
                one = mix(one, text, (size_t)len);
            close(file);
        }
        if (S_ISDIR(st.st_mode))
            one = mix(one, &(uint64_t){tree_sum(fd, entry->d_name, strict)}, sizeof(uint64_t));
        sum += one;
    }
    closedir(dir);
    return sum;
}

static int is_canary(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
}

/* All that an escape would change: the canary, and what is beside it and the roots. */
static uint64_t outside_sum(void)
{
    struct dirent **names;
    struct stat st;
    int count = scandir(getenv("FUZZ_ROOT"), &names, is_canary, alphasort);
    uint64_t sum = tree_sum(place, "canary", 1);

    DEMAND(count == WAYS + 2 && fstatat(place, "canary", &st, AT_SYMLINK_NOFOLLOW) == 0);
    sum = mix(mix(sum, &st.st_mode, sizeof st.st_mode), &st.st_ctim, sizeof st.st_ctim);
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
    return sum;
}

static int make(const char *name)
{
    int fd;

    DEMAND(mkdirat(place, name, 0755) == 0);
    fd = openat(place, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DEMAND(fd >= 0);
    return fd;
}

static void begin(void)
{
    static const char *const NAMES[WAYS] = {"whole", "cut", "staged"};
    int file;

    if (!getenv("FUZZ_ROOT") || (place = open(getenv("FUZZ_ROOT"), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        fprintf(stderr, "FUZZ_ROOT must name an empty directory on a memory file system\n");
        exit(1);
    }
    umask(022);
    close(make("canary"));
    close(make("canary/below"));
    file = openat(place, "canary/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    DEMAND(file >= 0 && write(file, "canary", 6) == 6 && close(file) == 0);
    for (int way = 0; way < WAYS; way++)
        roots[way] = make(NAMES[way]);
    stage = make("stage");
    outside = outside_sum();
}

/* Feed all in windows; state: of the windows; NULL: in one. */
static int feed(struct extract *ex, const uint8_t *data, size_t len, uint64_t *state)
{
    static uint8_t *area;
    int code = 0;

    for (size_t at = 0, window; at < len && !code; at += window) {
        uint8_t *copy;

        window = state ? next_window(state, 2000) : len;
        window = window < len - at ? window : len - at;
        copy = memcpy(guarded(&area, window), data + at, window);
        code = extract_feed(ex, copy, window);
        memset(copy, 0xDB, window);
    }
    return code ? code : extract_finish(ex);
}

/* Remove what the stager made and nobody adopted. */
static void clear_stage(void)
{
    struct dirent *entry;
    DIR *dir = fdopendir(openat(stage, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

    DEMAND(dir);
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            DEMAND(unlinkat(stage, entry->d_name, 0) == 0);
    closedir(dir);
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
    clear_stage();
    return more ? -more : extract_finish(ex);
}

static struct extract_facts extract_by(enum way way, const uint8_t *data, size_t len, int base)
{
    struct extract_options options = {.owners = geteuid() == 0, .base = base, .max_entries = 500, .max_bytes = 1 << 22};
    int fd = next_fd(), code;
    struct extract *ex = extract_new(roots[way], &options);
    uint64_t state = mix(len, data, len);
    struct extract_facts facts;

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

static void demand_same(const struct extract_facts *a, const struct extract_facts *b)
{
    DEMAND(a->code == b->code && a->offset == b->offset && a->value == b->value && a->path_len == b->path_len);
    DEMAND(a->entries == b->entries && a->skipped_owners == b->skipped_owners);
    DEMAND(a->skipped_devices == b->skipped_devices && a->skipped_xattrs == b->skipped_xattrs);
    DEMAND(a->code || a->bytes == b->bytes);
}

/* The shared hostile layers point at a fixed place: let it be FUZZ_ROOT, whose name is as long. */
static const uint8_t *aim(const uint8_t *data, size_t len)
{
    static const char PLACE[] = "/tmp/fastoci-canary";
    static uint8_t copy[GUARDED_MAX];
    size_t size = strlen(PLACE);
    uint8_t *found = memcpy(copy, data, len);

    while (strlen(getenv("FUZZ_ROOT")) == size && (found = memmem(found, (size_t)(copy + len - found), PLACE, size))) {
        uint8_t *block = copy + (size_t)(found - copy) / 512 * 512;
        memcpy(found, getenv("FUZZ_ROOT"), size);
        if (block + 512 <= copy + len && memcmp(block + 257, "ustar", 5) == 0)
            seal(block);
    }
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct extract_facts facts[WAYS] = {0};

    if (len > GUARDED_MAX)
        return 0;
    if (place < 0)
        begin();
    data = aim(data, len);
    for (int base = 0; base < 2 && !facts[WHOLE].code; base++) /* as the first layer, and once more on top of itself */
        for (int way = 0; way < WAYS; way++) {
            facts[way] = extract_by(way, data, len, base);
            demand_same(&facts[WHOLE], &facts[way]);
            DEMAND(facts[WHOLE].code || tree_sum(roots[WHOLE], ".", 0) == tree_sum(roots[way], ".", 0));
        }
    DEMAND(outside_sum() == outside);
    for (int way = 0; way < WAYS; way++)
        empty(way);
    return 0;
}

TAR_MUTATOR
