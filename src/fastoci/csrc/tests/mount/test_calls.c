/* Mounts: what the kernel refuses comes back as its number, and a loop device without a device is told of. */
#include "mount/calls.h"
#include "mount/loop.h"
#include "support/check.h"

#include <errno.h>
#include <unistd.h>

static int is_refusal(int code)
{
    return code == -EPERM || code == -ENOSYS;
}

static void an_unknown_file_system_is_no_device(void)
{
    int code = call_fsopen("no such file system");

    CHECK(code == -ENODEV || is_refusal(code));
}

static void what_is_no_descriptor_of_a_file_system_is_refused(void)
{
    char messages[64];

    CHECK(call_fsconfig(-1, CONFIG_FLAG, "ro", NULL, 0) < 0);
    CHECK(call_fsmount(-1, 0) < 0);
    CHECK(call_move_mount(-1, -1) < 0);
    CHECK(call_clone(-1) < 0);
    CHECK(call_set_private(-1) < 0);
    CHECK(read_messages(-1, messages, sizeof messages) == 0);
}

static void messages_are_lines_and_end_where_there_is_no_more_room(void)
{
    char messages[8];
    int ends[2];

    CHECK(!pipe(ends));
    CHECK(write(ends[1], "e abcdefgh", 10) == 10);
    CHECK(read_messages(ends[0], messages, sizeof messages) == 8);
    CHECK(!memcmp(messages, "e abcde\n", 8));
    close(ends[0]);
    close(ends[1]);
}

static void where_nothing_is_mounted_nothing_is_taken_away(void)
{
    int code = call_unmount("/nonexistent/directory");

    CHECK(code == -ENOENT || is_refusal(code));
    code = call_mount("none", "/nonexistent/directory", "tmpfs", 0, "");
    CHECK(code == -ENOENT || is_refusal(code));
}

static void a_loop_device_shows_a_file_and_nothing_else(void)
{
    int number;

    CHECK(loop_attach(-1, 512, 0, &number) < 0);
}

int main(void)
{
    an_unknown_file_system_is_no_device();
    what_is_no_descriptor_of_a_file_system_is_refused();
    messages_are_lines_and_end_where_there_is_no_more_room();
    where_nothing_is_mounted_nothing_is_taken_away();
    a_loop_device_shows_a_file_and_nothing_else();
    puts("test_calls: ok");
    return 0;
}
