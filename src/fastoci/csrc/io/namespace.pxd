cdef extern from "io/namespace.h" nogil:
    int namespace_enter()
