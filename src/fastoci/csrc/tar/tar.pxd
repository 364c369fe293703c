from libc.stdint cimport int64_t, uint8_t, uint64_t

from fastoci.csrc.tar.sink cimport tar_bytes, tar_sink


cdef extern from "tar/tar.h" nogil:
    struct tar
    tar *tar_new(const tar_sink *, void *)
    int tar_feed(tar *, const uint8_t *, size_t)
    int tar_finish(tar *)
    void tar_free(tar *)
    uint64_t tar_offset(const tar *)
    tar_bytes tar_path(const tar *)
    uint64_t tar_body_left(const tar *)
    void tar_skip(tar *, uint64_t)
