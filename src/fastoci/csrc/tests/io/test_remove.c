/* Removal: deep, wide, closed, in the way of a mount, and ended early. */
#include "support/sandbox.h"

#include "io/stop.h"

static const struct remove_bounds UNBOUNDED = {NULL, 0};

/* A chain of directories; the descriptor of the last. */
static int chain(int at, const char *name, int depth)
{
    int fd = dup(at);

    for (int i = 0; i < depth; i++) {
        int next;
        CHECK(mkdirat(fd, name, 0700) == 0);
        next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(next >= 0);
        close(fd);
        fd = next;
    }
    return fd;
}

static void put_names(int fd, int from, int to)
{
    char name[32];

    for (int i = from; i < to; i++) {
        snprintf(name, sizeof name, ".%x", (unsigned)i);
        close(openat(fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    }
}

static void a_name_of_any_kind_goes(void)
{
    fresh();
    CHECK(remove_tree(root, "nothing", &UNBOUNDED) == 0);
    CHECK(symlinkat("../outside", root, "link") == 0 && mkfifoat(root, "fifo", 0600) == 0 && mkdirat(root, "empty", 0) == 0);
    CHECK(remove_tree(root, "link", &UNBOUNDED) == 0 && remove_tree(root, "fifo", &UNBOUNDED) == 0);
    CHECK(remove_tree(root, "empty", &UNBOUNDED) == 0);
    CHECK(gone("link") && gone("fifo") && gone("empty"));
    CHECK(remove_file(root, ".") == -EISDIR && remove_tree(-1, "x", &UNBOUNDED) == -EBADF);
    check_outside();
}

/* Names that a lifted directory would get are taken, and the first directory is read again and again. */
static void deep_and_wide_at_once(void)
{
    int before = fds(), fd, top;

    fresh();
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%d", i);
        top = chain(root, "top", i == 0);
        put_names(top, 0, i == 0 ? 40 : 0);
        close(top);
        top = openat(root, "top", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        fd = chain(top, name, 700);
        put_names(fd, 0, 3000);
        CHECK(symlinkat("../../outside", fd, "link") == 0);
        close(fd);
        close(top);
    }
    CHECK(remove_tree(root, "top", &UNBOUNDED) == 0 && gone("top"));
    CHECK(fds() <= before + 1);
    check_outside();
}

static void directories_that_are_closed_to_their_owner(void)
{
    int fd;

    fresh();
    fd = chain(root, "d", 40);
    put_names(fd, 0, 3);
    CHECK(fchmod(fd, 0) == 0);
    close(fd);
    CHECK(chmod("root/d/d/d", 0) == 0 && chmod("root/d", 0311) == 0);
    CHECK(remove_tree(root, "d", &UNBOUNDED) == 0 && gone("d"));
}

static void a_removal_can_be_stopped(void)
{
    int stop = 0;
    struct remove_bounds stopped = {&stop, 0}, late = {NULL, 1};

    fresh();
    close(chain(root, "d", 3));
    CHECK(remove_tree(root, "d", &late) == -ETIMEDOUT && !gone("d/d/d"));
    stop_ask(&stop);
    CHECK(stop_asked(&stop) && !stop_asked(NULL));
    CHECK(remove_tree(root, "d", &stopped) == -ECANCELED && !gone("d/d/d"));
    CHECK(remove_tree(root, "d", &UNBOUNDED) == 0 && gone("d"));
}

static void run(void)
{
    a_name_of_any_kind_goes();
    deep_and_wide_at_once();
    directories_that_are_closed_to_their_owner();
    a_removal_can_be_stopped();
    fresh();
}

int main(void)
{
    return in_sandbox("test_remove", run);
}
