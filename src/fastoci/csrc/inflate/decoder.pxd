from libc.stdint cimport uint8_t, uint32_t

from fastoci.csrc.inflate.code cimport inflate_code


cdef extern from "inflate/decoder.h" nogil:
    enum: INFLATE_OVERHEAD
    struct inflate_step:
        const uint8_t *source
        size_t size
        uint8_t *out
        size_t room
        ptrdiff_t consumed
        size_t produced
        uint32_t crc
        int ended
    struct inflate_decoder:
        inflate_code (*begin)(void *) noexcept
        inflate_code (*run)(void *, inflate_step *) noexcept
