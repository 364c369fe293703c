from libc.stdint cimport int64_t


cdef extern from "io/filesystem.h" nogil:
    int64_t birth_time(int)
    int c_is_mount_point "is_mount_point"(int, const char *)
    int c_sync_filesystem "sync_filesystem"(int)
