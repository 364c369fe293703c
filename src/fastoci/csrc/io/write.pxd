from libc.stdint cimport int64_t, uint8_t


cdef extern from "io/write.h" nogil:
    int write_all(int, const uint8_t *, size_t, int64_t, int)
    int write_reserve(int, int64_t, int64_t)
