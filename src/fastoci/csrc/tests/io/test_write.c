/* Writing: every byte at its place, plainly and past the page cache, errors by number, blocks taken beforehand. */
#define _GNU_SOURCE

#include "io/write.h"
#include "support/check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE 100000

static uint8_t data[SIZE], back[SIZE];

static int scratch(void)
{
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    char name[] = "test_write.XXXXXX";

    if (fd < 0) {
        fd = mkstemp(name);
        unlink(name);
    }
    CHECK(fd >= 0);
    return fd;
}

static int unknown(int code)
{
    return code == -EOPNOTSUPP || code == -EINVAL || code == -ENOSYS;
}

static void every_byte_gets_to_its_place(int uncached)
{
    int fd = scratch();
    int code = write_all(fd, data, SIZE, 4321, uncached);
    struct stat info;

    CHECK(code == 0 || (uncached && unknown(code)));
    CHECK(fstat(fd, &info) == 0);
    CHECK(info.st_size == (code ? 0 : 4321 + SIZE));
    if (code == 0) {
        CHECK(pread(fd, back, SIZE, 4321) == SIZE);
        CHECK(memcmp(data, back, SIZE) == 0);
        CHECK(pread(fd, back, 1, 4320) == 1 && back[0] == 0);
    }
    CHECK(write_all(fd, data, 0, 0, uncached) == 0);
    close(fd);
}

static void errors_have_their_number(int uncached)
{
    int fd = open("/dev/null", O_RDONLY);
    int code = write_all(fd, data, SIZE, 0, uncached);

    CHECK(code == -EBADF || (uncached && unknown(code)));
    close(fd);
    CHECK(write_all(-1, data, SIZE, 0, uncached) == -EBADF || uncached);
}

static void blocks_are_taken_and_the_length_stays(void)
{
    int fd = scratch();
    int code = write_reserve(fd, 4096, 1 << 20);
    struct stat info;

    CHECK(code == 0 || code == -EOPNOTSUPP);
    CHECK(fstat(fd, &info) == 0 && info.st_size == 0);
    CHECK(code || info.st_blocks >= (1 << 20) / 512);
    close(fd);
    CHECK(write_reserve(-1, 0, 4096) == -EBADF);
}

int main(void)
{
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (uint8_t)(i * 31 + i / 256);
    for (int uncached = 0; uncached < 2; uncached++) {
        every_byte_gets_to_its_place(uncached);
        errors_have_their_number(uncached);
    }
    blocks_are_taken_and_the_length_stays();
    puts("test_write: ok");
    return 0;
}
