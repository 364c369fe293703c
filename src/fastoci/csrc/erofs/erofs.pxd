from libc.stdint cimport uint8_t, uint64_t

from fastoci.csrc.erofs.options cimport erofs_options
from fastoci.csrc.layer.facts cimport layer_facts


cdef extern from "erofs/erofs.h" nogil:
    struct erofs
    struct erofs_file:
        uint64_t tar_size
        uint64_t metadata_at
        uint64_t size
        uint64_t memory
    erofs *erofs_new(int, const erofs_options *)
    int erofs_feed(erofs *, const uint8_t *, size_t)
    int erofs_begin_layer(erofs *, const uint8_t *, size_t)
    int erofs_read_layer(erofs *, int, uint64_t, uint64_t)
    int erofs_end_layer(erofs *)
    int erofs_finish(erofs *)
    void erofs_close(erofs *)
    void erofs_free(erofs *)
    void erofs_get_facts(const erofs *, layer_facts *)
    void erofs_get_file(const erofs *, erofs_file *)
