from libc.stdint cimport uint8_t


cdef extern from "io/place.h" nogil:
    struct placed:
        const uint8_t *data
        size_t size
        const char *name
        int fd
        int code
    int place_all(int, int, placed *, size_t, int)
