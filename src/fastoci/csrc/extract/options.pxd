from libc.stdint cimport uint64_t


cdef extern from "extract/options.h" nogil:
    struct extract_options:
        int owners
        int privileged
        int base
        int user_xattrs
        int snapshot
        int unknown_lowers
        uint64_t max_entries
        uint64_t max_bytes
        uint64_t max_directories
        uint64_t max_work
        const int *stop
