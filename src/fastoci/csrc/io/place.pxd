from libc.stdint cimport int64_t, uint8_t


cdef extern from "io/place.h" nogil:
    struct placed:
        const uint8_t *data
        size_t size
        const char *name
        int fd
        int code
    int place_all(int, int, placed *, size_t, int)
    int byte_lock(int, int64_t)
    int byte_unlock(int, int64_t)
    int is_free(int, const char *)
