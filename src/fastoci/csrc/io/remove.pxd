from libc.stdint cimport int64_t


cdef extern from "io/remove.h" nogil:
    struct remove_bounds:
        const int *stop
        int64_t deadline
    int c_remove_tree "remove_tree"(int, const char *, const remove_bounds *)
