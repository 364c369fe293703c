/* A libFuzzer target: a layer gives the same tree however it is cut into windows, touches nothing outside its root, leaks no
 * descriptor and leaves a tree that an upper layer can remove. FUZZ_ROOT names an empty directory on a memory file system. */
#include "fuzz.h"

#include "../extract.h"
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

static int place = -1; /* FUZZ_ROOT, which holds: */
static int roots[2];   /* the directories "whole" and "cut" */
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

/* All that an escape would change: the canary, what is beside the roots, and where the shared hostile layers point. */
static uint64_t outside_sum(void)
{
    struct dirent **names;
    struct stat st;
    int count = scandir(getenv("FUZZ_ROOT"), &names, is_canary, alphasort);
    uint64_t sum = tree_sum(place, "canary", 1);

    DEMAND(count == 3 && fstatat(place, "canary", &st, AT_SYMLINK_NOFOLLOW) == 0);
    sum = mix(mix(sum, &st.st_mode, sizeof st.st_mode), &st.st_ctim, sizeof st.st_ctim);
    sum = mix(sum, &(int){lstat("/tmp/fastoci-canary", &st)}, sizeof(int));
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
    return sum;
}

static void begin(void)
{
    static const char *const NAMES[2] = {"whole", "cut"};
    int file;

    if (!getenv("FUZZ_ROOT") || (place = open(getenv("FUZZ_ROOT"), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        fprintf(stderr, "FUZZ_ROOT must name an empty directory on a memory file system\n");
        exit(1);
    }
    umask(022);
    DEMAND(mkdirat(place, "canary", 0755) == 0 && mkdirat(place, "canary/below", 0755) == 0);
    file = openat(place, "canary/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    DEMAND(file >= 0 && write(file, "canary", 6) == 6 && close(file) == 0);
    for (int i = 0; i < 2; i++) {
        DEMAND(mkdirat(place, NAMES[i], 0755) == 0);
        roots[i] = openat(place, NAMES[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DEMAND(roots[i] >= 0);
    }
    outside = outside_sum();
}

/* state: of the windows; NULL: all in one. */
static struct extract_facts extract_windows(int root, const uint8_t *data, size_t len, int base, uint64_t *state)
{
    struct extract_options options = {geteuid() == 0, base, 500, 1 << 22};
    struct extract *ex = extract_new(root, &options);
    struct extract_facts facts;
    static uint8_t *area;
    int code = 0, fd = next_fd();

    DEMAND(ex);
    for (size_t at = 0, window; at < len && !code; at += window) {
        uint8_t *copy;

        window = state ? next_window(state, 2000) : len;
        window = window < len - at ? window : len - at;
        copy = memcpy(guarded(&area, window), data + at, window);
        code = extract_feed(ex, copy, window);
        memset(copy, 0xDB, window);
    }
    if (!code)
        code = extract_finish(ex);
    extract_close(ex);
    extract_get_facts(ex, &facts);
    DEMAND(facts.code == code && facts.entries <= options.max_entries + 1 && facts.bytes <= options.max_bytes);
    facts.path = NULL;
    extract_free(ex);
    DEMAND(fd >= next_fd()); /* the extractor had one for the root */
    return facts;
}

static void empty(int root)
{
    struct archive a = {0};

    put_file(&a, ".wh..wh..opq", "");
    put_end(&a);
    DEMAND(extract_windows(root, a.data, a.len, 1, NULL).code == 0);
    drop(&a);
    DEMAND(tree_sum(root, ".", 0) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint64_t state = mix(len, data, len);

    if (len > GUARDED_MAX)
        return 0;
    if (place < 0)
        begin();
    for (int base = 0; base < 2; base++) { /* as the first layer, and once more on top of itself */
        struct extract_facts whole = extract_windows(roots[0], data, len, base, NULL);
        struct extract_facts cut = extract_windows(roots[1], data, len, base, &state);

        DEMAND(whole.code == cut.code && whole.offset == cut.offset && whole.value == cut.value);
        DEMAND(whole.entries == cut.entries && whole.skipped_owners == cut.skipped_owners);
        DEMAND(whole.skipped_devices == cut.skipped_devices && whole.skipped_xattrs == cut.skipped_xattrs);
        if (whole.code)
            break;
        DEMAND(whole.bytes == cut.bytes && tree_sum(roots[0], ".", 0) == tree_sum(roots[1], ".", 0));
    }
    DEMAND(outside_sum() == outside);
    empty(roots[0]);
    empty(roots[1]);
    return 0;
}

TAR_MUTATOR
