from libc.stdint cimport int64_t, uint8_t

from fastoci.csrc.tar.sink cimport tar_bytes


cdef extern from "tarsplit/tarsplit.h" nogil:
    struct tarsplit
    tarsplit *tarsplit_new()
    int tarsplit_feed(tarsplit *, const uint8_t *, size_t)
    int tarsplit_finish(tarsplit *)
    tar_bytes tarsplit_lines(const tarsplit *)
    void tarsplit_taken(tarsplit *)
    int tarsplit_is_exact(const tarsplit *)
    void tarsplit_owners(const tarsplit *, int64_t *, int64_t *)
    void tarsplit_free(tarsplit *)
