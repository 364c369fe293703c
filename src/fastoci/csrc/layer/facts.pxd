from libc.stdint cimport int64_t, uint64_t


cdef extern from "layer/facts.h" nogil:
    struct layer_facts:
        int code
        uint64_t offset
        int64_t value
        const char *path
        size_t path_len
        uint64_t entries
        uint64_t bytes
        uint64_t extra
        uint64_t skipped_owners
        uint64_t skipped_devices
        uint64_t skipped_xattrs
        unsigned reasons
        int names_root

    enum: REASON_END
    const char *layer_reason_name(unsigned)
