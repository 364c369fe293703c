/* What the fuzz targets that make trees share: a sum of a tree, the canary beside it, and emptying it. */
#ifndef FASTOCI_FUZZ_TREE_H
#define FASTOCI_FUZZ_TREE_H

#include "fuzz/input.h"

#include "extract/extract.h"
#include "support/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

static int fuzz_root = -1; /* FUZZ_ROOT, an empty directory on a memory file system, which holds all that a target makes */

/* A sum of all that is below a directory. Times of directories count only where nothing is made below: strict.
 * Those of whiteouts do not count. */
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
        if (!S_ISDIR(st.st_mode) && !(S_ISCHR(st.st_mode) && st.st_rdev == 0))
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

static int make_directory(const char *name)
{
    int fd;

    DEMAND(mkdirat(fuzz_root, name, 0755) == 0);
    fd = openat(fuzz_root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DEMAND(fd >= 0);
    return fd;
}

/* FUZZ_ROOT, with a canary in it. */
static void open_fuzz_root(void)
{
    int file;

    if (!getenv("FUZZ_ROOT") || (fuzz_root = open(getenv("FUZZ_ROOT"), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        fprintf(stderr, "FUZZ_ROOT must name an empty directory on a memory file system\n");
        exit(1);
    }
    umask(022);
    close(make_directory("canary"));
    close(make_directory("canary/below"));
    file = openat(fuzz_root, "canary/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    DEMAND(file >= 0 && write(file, "canary", 6) == 6 && close(file) == 0);
}

static int is_canary(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
}

/* All that an escape would change: the canary, and how many names are in FUZZ_ROOT. */
static uint64_t outside_sum(int beside)
{
    struct dirent **names;
    struct stat st;
    int count = scandir(getenv("FUZZ_ROOT"), &names, is_canary, alphasort);
    uint64_t sum = tree_sum(fuzz_root, "canary", 1);

    DEMAND(count == beside && fstatat(fuzz_root, "canary", &st, AT_SYMLINK_NOFOLLOW) == 0);
    sum = mix(mix(sum, &st.st_mode, sizeof st.st_mode), &st.st_ctim, sizeof st.st_ctim);
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
    return sum;
}

/* The shared hostile layers point at a fixed path: let it be FUZZ_ROOT, whose name is as long. */
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
static inline void clear_stage(int stage)
{
    struct dirent *entry;
    DIR *dir = fdopendir(openat(stage, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

    DEMAND(dir);
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            DEMAND(unlinkat(stage, entry->d_name, 0) == 0);
    closedir(dir);
}

/* Two ways to apply a layer give the same facts. */
static void demand_same(const struct layer_facts *a, const struct layer_facts *b)
{
    DEMAND(a->code == b->code && a->offset == b->offset && a->value == b->value && a->path_len == b->path_len);
    DEMAND(a->entries == b->entries && a->skipped_owners == b->skipped_owners);
    DEMAND(a->skipped_devices == b->skipped_devices && a->skipped_xattrs == b->skipped_xattrs);
    DEMAND(a->code || a->bytes == b->bytes);
}

#endif
