/* A directory below TMPDIR, or in memory, to extract into, with a file beside the root that nothing may touch. All tests run twice:
 * fed in the first thread, and staged in another, and as root both once more as nobody. */
#ifndef FASTOCI_SANDBOX_H
#define FASTOCI_SANDBOX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/extract.h"
#include "io/remove.h"
#include "support/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int root = -1; /* ./root; beside it are the file ./outside and the directory ./stage */
static int staged;    /* layers are staged and adopted, not fed */
static struct extract_options options;
static struct layer_facts facts;
static char fault[4096];

static void empty(void)
{
    struct remove_bounds unbounded = {NULL, 0};

    CHECK(remove_tree(AT_FDCWD, "root", &unbounded) == 0 && remove_tree(AT_FDCWD, "stage", &unbounded) == 0);
}

static void fresh(void)
{
    int outside;

    if (root >= 0)
        close(root);
    empty();
    CHECK(mkdir("root", 0777) == 0 && mkdir("stage", 0777) == 0 && chmod("root", 0755) == 0);
    outside = open("outside", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    CHECK(outside >= 0 && write(outside, "outside\n", 8) == 8 && close(outside) == 0);
    root = open("root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(root >= 0);
    options = (struct extract_options){
        .owners = geteuid() == 0, .privileged = geteuid() == 0, .max_entries = 100000, .max_bytes = 1 << 30, .max_directories = 100000, .max_work = 1 << 24};
}

static int fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static int feed_windows(struct extract *ex, const struct archive *a, size_t window)
{
    int code = 0;

    for (size_t at = 0; at < a->len && !code; at += window)
        code = extract_feed(ex, a->data + at, a->len - at < window ? a->len - at : window);
    return code ? code : extract_finish(ex);
}

static void empty_stage(void)
{
    DIR *dir = opendir("stage");
    struct dirent *entry;

    CHECK(dir);
    while ((entry = readdir(dir)))
        CHECK(entry->d_name[0] == '.' || unlinkat(dirfd(dir), entry->d_name, 0) == 0);
    closedir(dir);
}

/* The stager's failure is met again behind the entries before it, unless one of these fails first. */
static int stage_windows(struct extract *ex, const struct archive *a, size_t window)
{
    int directory = open("stage", O_RDONLY | O_DIRECTORY | O_CLOEXEC), more;
    struct extract *stager = extract_new_stager(directory, &options);
    uint64_t chunk = 1;

    CHECK(stager);
    (void)feed_windows(stager, a, window);
    close(directory);
    while ((more = extract_adopt(ex, stager, chunk)) > 0)
        chunk++;
    extract_free(stager);
    empty_stage();
    return more ? -more : extract_finish(ex);
}

/* Extract in windows of a size; the code. The archive stays. */
static int extract_windows(const struct archive *a, size_t window)
{
    struct extract *ex = extract_new(root, &options);
    int before = fds(), code;

    CHECK(ex);
    before--; /* the extractor has opened the root */
    code = staged ? stage_windows(ex, a, window) : feed_windows(ex, a, window);
    extract_close(ex);
    extract_close(ex);
    extract_get_facts(ex, &facts);
    CHECK(facts.code == code);
    memset(fault, 0, sizeof fault);
    memcpy(fault, facts.path ? facts.path : "", facts.path_len < sizeof fault ? facts.path_len : 0);
    CHECK(extract_feed(ex, (const uint8_t *)"", 1) == (code ? code : LAYER_CLOSED));
    extract_free(ex);
    CHECK(fds() == before);
    return code;
}

static inline int layer(struct archive *a)
{
    int code = extract_windows(a, 1 << 20);

    options.base = 1; /* what follows is an upper layer */
    drop(a);
    return code;
}

static struct stat stat_of(const char *name)
{
    struct stat st;

    memset(&st, 0, sizeof st);
    if (fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW))
        st.st_mode = 0;
    return st;
}

static inline int is(const char *name, const char *text)
{
    char data[256] = {0};
    int fd = openat(root, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, data, sizeof data - 1);

    if (fd >= 0)
        close(fd);
    return got >= 0 && strcmp(data, text) == 0;
}

static int gone(const char *name)
{
    return stat_of(name).st_mode == 0;
}

static void check_outside(void)
{
    char text[32] = {0};
    FILE *file = fopen("outside", "r");

    CHECK(file && fgets(text, sizeof text, file) && strcmp(text, "outside\n") == 0);
    fclose(file);
}

static inline uint8_t *dir(struct archive *a, const char *name, const char *mode, const char *mtime)
{
    uint8_t *h = put_header(a, name, '5', 0, NULL);

    memcpy(h + 100, mode, 8);
    memcpy(h + 136, mtime, 12);
    seal(h);
    return h;
}

static const char OLD[] = "00000001750"; /* 1000 */

static void *call(void *run)
{
    ((void (*)(void))run)();
    CHECK(umask(0077) == 0077);
    return NULL;
}

static void run_all_ways(void (*run)(void))
{
    pthread_t thread;

    staged = 0;
    run();
    staged = 1;
    CHECK(pthread_create(&thread, NULL, call, (void *)run) == 0 && pthread_join(thread, NULL) == 0);
}

/* The main of a test program: runs it in a directory of its own, as this user and as one who may do less. */
static int in_sandbox(const char *name, void (*run)(void))
{
    const char *temporary = getenv("TMPDIR"), *memory = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    char directory[256];
    int status = 0;
    pid_t child;

    snprintf(directory, sizeof directory, "%s/fastoci-extract-XXXXXX", temporary ? temporary : memory);
    CHECK(mkdtemp(directory) && chdir(directory) == 0);
    signal(SIGXFSZ, SIG_IGN);
    umask(0077);
    run_all_ways(run);
    if (geteuid() == 0) {
        empty();
        CHECK(unlink("outside") == 0 && chown(".", 65534, 65534) == 0);
        child = fork();
        if (child == 0) {
            CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
            run_all_ways(run);
            exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    empty();
    CHECK(unlink("outside") == 0 && chdir("/") == 0 && rmdir(directory) == 0);
    printf("%s: ok\n", name);
    return 0;
}

#endif
