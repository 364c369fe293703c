/* The system calls of mounts by their numbers, so that an old libc compiles; what a kernel lacks is -ENOSYS. */
#ifndef FASTOCI_MOUNT_CALLS_H
#define FASTOCI_MOUNT_CALLS_H

#include <stddef.h>
#include <sys/types.h>

/* The kinds of value that fsconfig takes, as <linux/mount.h> has them. */
enum config_command { CONFIG_FLAG = 0, CONFIG_STRING = 1, CONFIG_FD = 5, CONFIG_CREATE = 6 };

/* A descriptor of a file system that is being configured, or -errno. */
int call_fsopen(const char *kind);
/* Set one option, or make the file system: 0, or -errno. value and fd as the command wants them. */
int call_fsconfig(int context, enum config_command command, const char *key, const char *value, int fd);
/* A descriptor of a mount that is nowhere yet, and gone when it is closed there; or -errno. */
int call_fsmount(int context, unsigned attributes);
/* Put a mount that is nowhere onto a directory, both by their descriptors: 0, or -errno. */
int call_move_mount(int mount, int target);
/* A new mount, nowhere yet, of the directory that fd is, without what is mounted below it; or -errno. */
int call_clone(int fd);
/* Let what is mounted below a mount be seen nowhere else: 0, or -errno. */
int call_set_private(int mount);
/* mount(2): 0, or -errno. */
int call_mount(const char *source, const char *target, const char *kind, unsigned long flags, const char *data);
/* Take away what is mounted on top at path, whose last name is no symbolic link that would be followed: 0, or -errno. */
int call_unmount(const char *path);

/* The messages of a file system that is being configured, a line each, as much as there is room for; how many bytes. */
size_t read_messages(int context, char *buffer, size_t size);

#endif
