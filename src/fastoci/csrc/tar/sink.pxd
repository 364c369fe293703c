from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "tar/sink.h" nogil:
    struct tar_bytes:
        const uint8_t *data
        size_t len
    struct tar_xattr:
        tar_bytes key
        tar_bytes value
    struct tar_entry:
        tar_bytes path
        tar_bytes link
        char type
        uint32_t mode
        int64_t uid
        int64_t gid
        uint64_t size
        int64_t mtime
        uint32_t mtime_ns
        int64_t devmajor
        int64_t devminor
        const tar_xattr *xattrs
        size_t xattr_count
        uint64_t offset
        int sparse
    struct tar_sink:
        int (*entry)(void *, const tar_entry *) noexcept
        int (*data)(void *, uint64_t, const uint8_t *, size_t) noexcept
        int (*entry_end)(void *) noexcept
        int (*padding)(void *, const uint8_t *, size_t) noexcept
