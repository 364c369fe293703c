from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "extract/losses.h" nogil:
    enum loss_kind:
        LOSS_DEVICE

    struct loss:
        uint64_t values_at
        int64_t mtime
        uint32_t values_len, uid, gid, mode
        uint32_t mtime_ns, kind, devmajor, devminor

    struct losses:
        int records, values
        uint64_t count, size

    int losses_sort(losses *losses_)
    const loss *losses_find(const losses *losses_, uint64_t inode)
    void losses_close(losses *losses_)
