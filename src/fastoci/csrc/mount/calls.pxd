cdef extern from "mount/calls.h" nogil:
    enum config_command:
        CONFIG_FLAG
        CONFIG_STRING
        CONFIG_FD
        CONFIG_CREATE
    int call_fsopen(const char *)
    int call_fsconfig(int, config_command, const char *, const char *, int)
    int call_fsmount(int, unsigned)
    int call_move_mount(int, int)
    int call_clone(int)
    int call_set_private(int)
    int call_mount(const char *, const char *, const char *, unsigned long, const char *)
    int call_unmount(const char *)
    size_t read_messages(int, char *, size_t)
