from libc.stdint cimport uint8_t, uint64_t


cdef extern from "erofs/options.h" nogil:
    enum erofs_form:
        EROFS_TAR
        EROFS_4K
        EROFS_MERGED
    struct erofs_options:
        erofs_form form
        uint8_t uuid[16]
        uint64_t max_entries
        uint64_t max_bytes
        uint64_t max_memory
        uint64_t max_work
        const int *stop
