# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False, binding=False
"""The native inflater: gzip and zstd streams, from buffer to buffer. It returns codes and raises nothing typed.

Thin classes over ``csrc/inflate/``; the contract of each is in ``_inflate.pyi``.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from fastoci._core cimport POOL_BUFFER_SIZE, Buffer
from fastoci.csrc.inflate.code cimport (
    INFLATE_BAD_CHECKSUM, INFLATE_BAD_DATA, INFLATE_BAD_HEADER, INFLATE_BAD_LENGTH, INFLATE_CUT, INFLATE_NO_MEMORY,
    INFLATE_NOT_GZIP, INFLATE_OK, INFLATE_WINDOW, inflate_code,
)
from fastoci.csrc.inflate.decoder cimport INFLATE_OVERHEAD, inflate_decoder, inflate_step
from fastoci.csrc.inflate.inflate cimport (
    INFLATE_GZIP, INFLATE_ZSTD, inflate, inflate_allow, inflate_bind, inflate_bound, inflate_demanded, inflate_finish,
    inflate_format, inflate_free, inflate_new, inflate_new_over, inflate_run,
)

cdef enum:
    _WINDOW = 1 << 18  # bytes one Inflate.run makes: hashed and parsed while they are in the L2 cache
    _PIECE = 1 << 15  # bytes that a decoder written in Python takes and makes in a call

WINDOW_SIZE = _WINDOW
WINDOW_OVERHEAD = INFLATE_OVERHEAD

INFLATE_CODES = {
    INFLATE_NOT_GZIP: "bytes follow the end of a gzip member that begin no other one, or it is not gzip at all",
    INFLATE_BAD_HEADER: "a gzip header is damaged or uses reserved bits",
    INFLATE_BAD_DATA: "the compressed data is damaged",
    INFLATE_BAD_CHECKSUM: "the checksum of a gzip member does not hold",
    INFLATE_BAD_LENGTH: "the length at the end of a gzip member does not hold",
    INFLATE_CUT: "the compressed data ends early",
    INFLATE_WINDOW: "a zstd frame demands a larger window than is allowed",
    INFLATE_NO_MEMORY: "no memory for the window",
}


cdef inflate_format _format(str format) except *:
    if format == "gzip":
        return INFLATE_GZIP
    if format == "zstd":
        return INFLATE_ZSTD
    raise ValueError(f"no such compression: {format}")


def bind(str format, str path, /):
    return inflate_bind(_format(format), path.encode()) == 0


def bound(str format, /):
    return inflate_bound(_format(format)) != 0


cdef inflate_code _begin_deflate(void *ctx) noexcept with gil:
    cdef Inflate stream = <Inflate>ctx
    try:
        stream._decoder = stream._make()
    except BaseException as error:
        stream._raised = error
        return INFLATE_NO_MEMORY
    return INFLATE_OK


cdef inflate_code _run_deflate(void *ctx, inflate_step *step) noexcept with gil:
    cdef Inflate stream = <Inflate>ctx
    cdef size_t size = min(step.size, <size_t>_PIECE), room = min(step.room, <size_t>_PIECE)
    cdef Py_ssize_t consumed
    cdef bytes made
    try:
        made, consumed = stream._decoder.run(PyBytes_FromStringAndSize(<const char *>step.source, size), room)
        if <size_t>len(made) > room or consumed > <Py_ssize_t>size:
            raise AssertionError("the decoder made or took more than there was")
        memcpy(step.out, <const char *>made, len(made))
        step.consumed = consumed
        step.produced = len(made)
        step.crc = stream._decoder.crc
        step.ended = stream._decoder.ended
    except ValueError:
        return INFLATE_BAD_DATA
    except BaseException as error:
        stream._raised = error
        return INFLATE_NO_MEMORY
    return INFLATE_OK


cdef inflate_decoder _over_python
_over_python.begin = _begin_deflate
_over_python.run = _run_deflate


cdef class Inflate:
    cdef inflate *_stream
    cdef object _make, _decoder, _raised
    cdef readonly int code
    cdef readonly uint64_t consumed, produced

    def __cinit__(self, str format, /, *, size_t window, deflate=None):
        if deflate is not None:
            if _format(format) != INFLATE_GZIP:
                raise ValueError("only gzip holds deflate data")
            self._make = deflate
            self._stream = inflate_new_over(&_over_python, <void *>self)
        elif inflate_bound(_format(format)):
            self._stream = inflate_new(_format(format), window)
        else:
            raise RuntimeError(f"no decoder is bound for {format}")
        if self._stream == NULL:
            raise MemoryError

    def __dealloc__(self):
        inflate_free(self._stream)

    cdef int _check(self) except -1:
        if self._stream == NULL:
            raise ValueError("the stream was closed")
        return 0

    @property
    def demanded(self):
        self._check()
        return inflate_demanded(self._stream)

    def allow(self, size_t window, /):
        self._check()
        inflate_allow(self._stream, window)

    def run(self, Buffer source not None, size_t start, Buffer out not None, /):
        cdef size_t consumed, produced, room
        self._check()
        source._check()
        out._check()
        if start > source._size:
            raise ValueError("start is outside source")
        room = min(POOL_BUFFER_SIZE - out._size, <size_t>_WINDOW)
        with nogil:
            self.code = inflate_run(
                self._stream, source._memory + start, source._size - start, &consumed,
                out._memory + out._size, room, &produced,
            )
        out._size += produced
        self.consumed += consumed
        self.produced += produced
        if self._raised is not None:
            raise self._raised
        return -1 if self.code else consumed

    def finish(self):
        self._check()
        self.code = inflate_finish(self._stream)
        return self.code

    def close(self):
        inflate_free(self._stream)
        self._stream = NULL
