from libc.stdint cimport uint8_t, uint64_t

from fastoci.csrc.inflate.code cimport inflate_code
from fastoci.csrc.inflate.decoder cimport inflate_decoder


cdef extern from "inflate/inflate.h" nogil:
    enum inflate_format:
        INFLATE_GZIP
        INFLATE_ZSTD
    struct inflate
    int inflate_bind(inflate_format, const char *)
    int inflate_bound(inflate_format)
    inflate *inflate_new(inflate_format, size_t)
    inflate *inflate_new_over(const inflate_decoder *, void *)
    void inflate_free(inflate *)
    inflate_code inflate_run(inflate *, const uint8_t *, size_t, size_t *, uint8_t *, size_t, size_t *)
    uint64_t inflate_demanded(const inflate *)
    void inflate_allow(inflate *, size_t)
    inflate_code inflate_finish(const inflate *)
