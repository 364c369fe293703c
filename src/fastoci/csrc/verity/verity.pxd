from libc.stdint cimport int64_t, uint8_t, uint64_t

from fastoci.csrc.sha256.tier cimport sha256_tier


cdef extern from "verity/verity.h" nogil:
    enum: VERITY_BLOCK, VERITY_SALT
    struct verity_tree:
        size_t used
    void verity_begin(verity_tree *, const sha256_tier *, const uint8_t *, size_t)
    int64_t verity_write_to(verity_tree *, int, int64_t, uint64_t)
    void verity_feed(verity_tree *, const uint8_t *, size_t)
    int verity_finish(verity_tree *, const uint8_t *, size_t, uint8_t *)
