"""What other extensions may reach into: the memory of a buffer that a caller holds."""

from libc.stdint cimport uint8_t

cdef enum:
    POOL_BUFFER_SIZE = 1 << 20

cdef class Pool:
    cdef uint8_t **_free
    cdef size_t _free_count, _made, _limit, _aside
    cdef bint _poison
    cdef public object on_release
    cdef void _give_back(self, uint8_t *memory) noexcept

cdef class Buffer:
    cdef Pool _pool
    cdef uint8_t *_memory
    cdef size_t _size
    cdef Py_ssize_t _references, _exports
    cdef int _check(self) except -1
    cdef int _give_back_when_unused(self) except -1
