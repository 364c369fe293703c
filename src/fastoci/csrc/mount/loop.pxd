from libc.stdint cimport uint32_t


cdef extern from "mount/loop.h" nogil:
    int loop_attach(int, uint32_t, int, int *)
