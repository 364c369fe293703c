/* Making files by io_uring, beside the system calls that the extractor makes, by the kernel's interface alone.
 *
 * uring WAY DIRECTORY FILES SIZE: a hundred files in a directory, which is a batch, and parts of 1 MiB of a larger file.
 *   calls    openat, write, futimens, close
 *   linked   openat, write and close of a file as one chain in the ring, in a descriptor of the ring; then utimensat, which has no
 *            opcode, as fchown and fchmod have none
 *   polled   the same with a thread of the kernel's that polls the ring
 *   one      the same as linked, with one thread of the kernel's for what it does not do at once
 *   known    mknodat as a call, so that the kernel does not hand the opening to a thread; then as linked
 *   written  openat as a call, write and close in the ring, utimensat
 *   closed   openat, write and futimens as calls, close in the ring
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BATCH = 100, ENTRIES = 512, PART = 1 << 20, AT_ONCE = 8 };
enum way { CALLS, LINKED, POLLED, ONE, KNOWN, WRITTEN, CLOSED, WAYS };

static const char *const NAMES[WAYS] = {"calls", "linked", "polled", "one", "known", "written", "closed"};
static const struct timespec TIMES[2] = {{.tv_sec = 1700000000}, {.tv_sec = 1700000000, .tv_nsec = 1000001}};

struct ring {
    int fd, polled;
    unsigned *head, *tail, *mask, *flags, *done_head, *done_tail, *done_mask;
    struct io_uring_sqe *entries;
    struct io_uring_cqe *done;
    unsigned queued, waiting;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *map(int fd, size_t size, off_t at)
{
    void *where = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, at);
    if (where == MAP_FAILED)
        die("mmap");
    return where;
}

static void tell(struct ring *ring, unsigned what, void *value, unsigned count)
{
    if (syscall(SYS_io_uring_register, ring->fd, what, value, count) < 0)
        die("io_uring_register");
}

static void ring_open(struct ring *ring, enum way way)
{
    unsigned one[2] = {1, 1};
    int slots[BATCH];
    struct io_uring_params params = {.flags = way == POLLED ? IORING_SETUP_SQPOLL
                                                            : IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN};
    char *at, *completions;

    params.sq_thread_idle = 1000;
    ring->polled = way == POLLED;
    if ((ring->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &params)) < 0)
        die("io_uring_setup");
    at = map(ring->fd, params.sq_off.array + params.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    completions = map(ring->fd, params.cq_off.cqes + params.cq_entries * sizeof *ring->done, IORING_OFF_CQ_RING);
    ring->entries = map(ring->fd, params.sq_entries * sizeof *ring->entries, IORING_OFF_SQES);
    ring->head = (unsigned *)(at + params.sq_off.head), ring->tail = (unsigned *)(at + params.sq_off.tail);
    ring->mask = (unsigned *)(at + params.sq_off.ring_mask), ring->flags = (unsigned *)(at + params.sq_off.flags);
    for (unsigned i = 0; i < params.sq_entries; i++)
        ((unsigned *)(at + params.sq_off.array))[i] = i;
    ring->done_head = (unsigned *)(completions + params.cq_off.head);
    ring->done_tail = (unsigned *)(completions + params.cq_off.tail);
    ring->done_mask = (unsigned *)(completions + params.cq_off.ring_mask);
    ring->done = (struct io_uring_cqe *)(completions + params.cq_off.cqes);
    memset(slots, -1, sizeof slots);
    tell(ring, IORING_REGISTER_FILES, slots, BATCH);
    if (way == ONE)
        tell(ring, IORING_REGISTER_IOWQ_MAX_WORKERS, one, 2);
}

/* An operation behind the others; more: the next one is of the same chain, and this one tells only of its failure. */
static struct io_uring_sqe *add(struct ring *ring, int opcode, int fd, int more)
{
    struct io_uring_sqe *entry = &ring->entries[(*ring->tail + ring->queued++) & *ring->mask];

    memset(entry, 0, sizeof *entry);
    entry->opcode = (uint8_t)opcode;
    entry->fd = fd;
    entry->flags = more ? IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS : 0;
    ring->waiting += !more;
    return entry;
}

/* Submit what was added, and wait until no more than this many have not ended. */
static void run(struct ring *ring, unsigned most)
{
    unsigned wanted = ring->waiting > most ? ring->waiting - most : 0, submit = ring->queued, head = *ring->done_head;
    unsigned flags = wanted ? IORING_ENTER_GETEVENTS : 0;

    __atomic_store_n(ring->tail, *ring->tail + submit, __ATOMIC_SEQ_CST);
    ring->queued = 0;
    if (ring->polled && __atomic_load_n(ring->flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP)
        flags |= IORING_ENTER_SQ_WAKEUP;
    if ((!ring->polled || flags) && syscall(SYS_io_uring_enter, ring->fd, submit, wanted, flags, NULL, 0) < 0)
        die("io_uring_enter");
    for (; head != __atomic_load_n(ring->done_tail, __ATOMIC_ACQUIRE); head++, ring->waiting--)
        if (ring->done[head & *ring->done_mask].res < 0) {
            fprintf(stderr, "ring: %s\n", strerror(-ring->done[head & *ring->done_mask].res));
            exit(1);
        }
    __atomic_store_n(ring->done_head, head, __ATOMIC_RELEASE);
    if (ring->waiting > most)
        run(ring, most);
}

static void add_write(struct ring *ring, int fd, const char *data, size_t size, uint64_t offset, int fixed)
{
    struct io_uring_sqe *entry = add(ring, IORING_OP_WRITE, fd, fixed);

    entry->addr = (uint64_t)(uintptr_t)data;
    entry->len = (unsigned)size;
    entry->off = offset;
    entry->flags |= fixed ? IOSQE_FIXED_FILE : 0;
}

static void make_linked(struct ring *ring, int dir, const char *name, const char *data, size_t size, unsigned slot, int known)
{
    struct io_uring_sqe *entry;

    if (known && mknodat(dir, name, S_IFREG | 0644, 0))
        die(name);
    entry = add(ring, IORING_OP_OPENAT, dir, 1);
    entry->addr = (uint64_t)(uintptr_t)name;
    entry->len = 0644;
    entry->open_flags = O_WRONLY | O_NOFOLLOW | (known ? 0 : O_CREAT | O_EXCL);
    entry->file_index = slot + 1;
    add_write(ring, (int)slot, data, size, 0, 1);
    add(ring, IORING_OP_CLOSE, 0, 0)->file_index = slot + 1;
}

static void write_parts(struct ring *ring, int fd, const char *data, size_t size)
{
    for (size_t at = 0; at < size; at += PART) {
        size_t part = size - at < PART ? size - at : PART;

        if (!ring) {
            if (write(fd, data, part) != (ssize_t)part)
                die("write");
            continue;
        }
        add_write(ring, fd, data, part, at, 0);
        run(ring, AT_ONCE);
    }
    if (ring)
        run(ring, 0);
}

static void make(struct ring *ring, enum way way, int dir, const char *name, const char *data, size_t size, unsigned slot)
{
    int fd;

    if (way >= LINKED && way <= KNOWN && size <= PART)
        return make_linked(ring, dir, name, data, size, slot, way == KNOWN);
    if ((fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644)) < 0)
        die(name);
    if (way == WRITTEN && size <= PART) {
        struct io_uring_sqe *entry = add(ring, IORING_OP_WRITE, fd, 1);
        entry->addr = (uint64_t)(uintptr_t)data;
        entry->len = (unsigned)size;
        add(ring, IORING_OP_CLOSE, fd, 0);
        return;
    }
    write_parts(way == CALLS || way == CLOSED ? NULL : ring, fd, data, size);
    if (futimens(fd, TIMES))
        die("futimens");
    if (way == CLOSED)
        add(ring, IORING_OP_CLOSE, fd, 0);
    else if (close(fd))
        die("close");
}

int main(int count, char **arguments)
{
    struct ring ring = {.fd = -1};
    char names[BATCH][16], name[16];
    enum way way = CALLS;

    while (count == 5 && way < WAYS && strcmp(NAMES[way], arguments[1]))
        way++;
    if (count != 5 || way == WAYS || chdir(arguments[2]))
        return 2;
    if (way != CALLS)
        ring_open(&ring, way);
    umask(0);
    int files = atoi(arguments[3]);
    size_t size = (size_t)atol(arguments[4]);
    char *data = malloc(PART);
    if (!data)
        return 2;
    memset(data, 'x', PART);
    for (int i = 0; i < files; i += BATCH) {
        int dir, here = files - i < BATCH ? files - i : BATCH;

        snprintf(name, sizeof name, "%08d", i);
        if (mkdir(name, 0755) || (dir = open(name, O_DIRECTORY | O_CLOEXEC)) < 0)
            die(name);
        for (int j = 0; j < here; j++) {
            snprintf(names[j], sizeof names[j], "%06d", i + j);
            make(&ring, way, dir, names[j], data, size, (unsigned)j);
        }
        if (way != CALLS)
            run(&ring, 0);
        for (int j = 0; size <= PART && way >= LINKED && way <= WRITTEN && j < here; j++)
            if (utimensat(dir, names[j], TIMES, AT_SYMLINK_NOFOLLOW))
                die("utimensat");
        close(dir);
    }
    return 0;
}
