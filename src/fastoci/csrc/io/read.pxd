from libc.stdint cimport int64_t, uint8_t


cdef extern from "io/read.h" nogil:
    int read_all(int, uint8_t *, size_t, int64_t, size_t *)
