# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False, binding=False
"""The native core: memory, hashing, inflating, tar and files. It returns codes and facts and raises nothing typed.

Thin classes over ``csrc/``; the contract of each is in ``_core.pyi``.
"""

import os
import time

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyObject_GetBuffer, PyBuffer_Release
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from fastoci.csrc.extract.code cimport EXTRACT_CODE_END, extract_code_describe
from fastoci.csrc.extract.extract cimport (
    extract, extract_adopt, extract_close, extract_feed, extract_finish, extract_free, extract_get_facts, extract_new,
    extract_new_stager,
)
from fastoci.csrc.extract.facts cimport extract_facts
from fastoci.csrc.extract.options cimport extract_options
from fastoci.csrc.inflate.code cimport (
    INFLATE_BAD_CHECKSUM, INFLATE_BAD_DATA, INFLATE_BAD_HEADER, INFLATE_BAD_LENGTH, INFLATE_CUT, INFLATE_NO_MEMORY,
    INFLATE_NOT_GZIP, INFLATE_OK, INFLATE_WINDOW, inflate_code,
)
from fastoci.csrc.inflate.decoder cimport INFLATE_OVERHEAD, inflate_decoder, inflate_step
from fastoci.csrc.inflate.inflate cimport (
    INFLATE_GZIP, INFLATE_ZSTD, inflate, inflate_allow, inflate_bind, inflate_bound, inflate_demanded, inflate_finish,
    inflate_format, inflate_free, inflate_new, inflate_new_over, inflate_run,
)
from fastoci.csrc.io.remove cimport c_remove_tree, remove_bounds
from fastoci.csrc.io.stop cimport stop_ask, stop_asked
from fastoci.csrc.io.write cimport write_all, write_reserve
from fastoci.csrc.sha256.sha256 cimport (
    SHA256_STATE_SIZE, sha256, sha256_digest, sha256_init, sha256_restore, sha256_save, sha256_update,
    sha256_update_many,
)
from fastoci.csrc.sha256.tier cimport sha256_choose, sha256_measure, sha256_tier
from fastoci.csrc.tar.code cimport TAR_MEMORY, code_description
from fastoci.csrc.tar.sink cimport tar_bytes, tar_entry, tar_sink
from fastoci.csrc.tar.tar cimport (
    tar, tar_feed, tar_finish, tar_free, tar_new, tar_offset, tar_path, tar_status,
)


cdef extern from "sys/mman.h" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS
    void *MAP_FAILED

cdef extern from "unistd.h" nogil:
    ssize_t c_pread "pread"(int, void *, size_t, int64_t)

cdef extern from "<sys/statfs.h>" nogil:
    struct c_statfs "statfs":
        long f_type
    int c_fstatfs "fstatfs"(int, c_statfs *)


cdef enum:
    _WORK = 1 << 24  # about a second, beside what each entry may use
    _DIRECTORIES = 1000000
    _BUFFER_SIZE = 1 << 20
    _WINDOW = 1 << 18  # bytes one Inflate.run makes: hashed and parsed while they are in the L2 cache
    _PIECE = 1 << 15  # bytes that a decoder written in Python takes and makes in a call
BUFFER_SIZE = _BUFFER_SIZE
MAX_DIRECTORIES = _DIRECTORIES
WINDOW_SIZE = _WINDOW
WINDOW_OVERHEAD = INFLATE_OVERHEAD


cdef class Pool:
    cdef uint8_t **_free
    cdef size_t _free_count, _made, _limit, _aside
    cdef bint _poison
    cdef public object on_release

    def __cinit__(self, size_t capacity, /, *, bint poison=False):
        self._limit = capacity // _BUFFER_SIZE
        if self._limit == 0:
            raise ValueError(f"a pool holds at least one buffer of {_BUFFER_SIZE} bytes")
        self._free = <uint8_t **>malloc(self._limit * sizeof(uint8_t *))
        if self._free == NULL:
            raise MemoryError
        self._poison = poison

    def __dealloc__(self):
        for i in range(self._free_count):  # a buffer holds its pool, so all are back
            munmap(self._free[i], _BUFFER_SIZE)
        free(self._free)

    @property
    def capacity(self):
        return self._limit * _BUFFER_SIZE

    @property
    def in_use(self):
        return (self._made - self._free_count) * _BUFFER_SIZE

    @property
    def aside(self):
        return self._aside * _BUFFER_SIZE

    def set_aside(self, size_t size, /):
        cdef size_t count = size // _BUFFER_SIZE + (size % _BUFFER_SIZE != 0)
        if count > self._limit - self._aside - (self._made - self._free_count):
            return False
        self._aside += count
        while self._made + self._aside > self._limit:  # enough are free
            self._free_count -= 1
            self._made -= 1
            munmap(self._free[self._free_count], _BUFFER_SIZE)
        return True

    def put_back(self, size_t size, /):
        cdef size_t count = size // _BUFFER_SIZE + (size % _BUFFER_SIZE != 0)
        if count > self._aside:
            raise ValueError("more than was set aside")
        self._aside -= count
        if self.on_release is not None:
            self.on_release()

    def take(self):
        cdef uint8_t *memory
        if self._free_count:
            self._free_count -= 1
            memory = self._free[self._free_count]  # the last one back is the likeliest to be cached
        elif self._made + self._aside < self._limit:
            memory = <uint8_t *>mmap(NULL, _BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            if memory == <uint8_t *>MAP_FAILED:
                return None
            self._made += 1
        else:
            return None
        cdef Buffer buffer = Buffer.__new__(Buffer)
        buffer._pool = self
        buffer._memory = memory
        buffer._references = 1
        return buffer

    cdef void _give_back(self, uint8_t *memory) noexcept:
        if self._poison:
            memset(memory, 0xDB, _BUFFER_SIZE)
        self._free[self._free_count] = memory
        self._free_count += 1


@cython.no_gc_clear  # a collector must not take the pool away before the memory is back
cdef class Buffer:
    cdef Pool _pool
    cdef uint8_t *_memory
    cdef size_t _size
    cdef Py_ssize_t _references, _exports

    def __dealloc__(self):
        if self._memory != NULL:  # a reference was lost: the memory is not
            self._pool._give_back(self._memory)

    def __len__(self):
        return self._size

    def __getbuffer__(self, Py_buffer *view, int flags):
        self._check()
        PyBuffer_FillInfo(view, self, self._memory, self._size, 1, flags)
        self._exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self._exports -= 1
        self._give_back_when_unused()

    cdef int _check(self) except -1:
        if self._references <= 0:
            raise ValueError("the buffer was released")
        return 0

    cdef int _give_back_when_unused(self) except -1:
        if self._references > 0 or self._exports > 0 or self._memory == NULL:
            return 0
        cdef uint8_t *memory = self._memory
        self._memory = NULL
        self._pool._give_back(memory)
        if self._pool.on_release is not None:
            self._pool.on_release()
        return 0

    @property
    def room(self):
        self._check()
        return _BUFFER_SIZE - self._size

    def append(self, data, Py_ssize_t start=0, /):
        cdef Py_buffer view
        cdef size_t size
        self._check()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if start < 0 or start > view.len:
                raise ValueError("start is outside data")
            size = min(<size_t>(view.len - start), _BUFFER_SIZE - self._size)
            memcpy(self._memory + self._size, <uint8_t *>view.buf + start, size)
            self._size += size
        finally:
            PyBuffer_Release(&view)
        return size

    def reserve(self, size_t size, /):
        self._check()
        cdef _Room room = _Room.__new__(_Room)
        room._buffer = self
        room._size = min(size, _BUFFER_SIZE - self._size)
        return PyMemoryView_FromObject(room)

    def advance(self, size_t size, /):
        self._check()
        if size > _BUFFER_SIZE - self._size:
            raise ValueError("more than there was room for")
        self._size += size

    def pread(self, int fd, int64_t offset, /):
        cdef size_t size = 0
        cdef ssize_t n = 0
        cdef int error = 0
        self._check()
        with nogil:
            while self._size + size < _BUFFER_SIZE:
                n = c_pread(fd, self._memory + self._size + size, _BUFFER_SIZE - self._size - size, offset + size)
                if n > 0:
                    size += n
                elif n == 0:
                    break
                elif errno != EINTR:
                    error = errno
                    break
        self._size += size
        return -error if error else size

    def pwrite(self, int fd, int64_t offset, /, *, bint uncached=False):
        cdef int code
        self._check()
        with nogil:
            code = write_all(fd, self._memory, self._size, offset, uncached)
        return code

    def clear(self):
        self._check()
        if self._references > 1 or self._exports:
            raise ValueError("the buffer has other owners")
        self._size = 0

    def retain(self):
        self._check()
        self._references += 1
        return self

    def release(self):
        self._check()
        self._references -= 1
        self._give_back_when_unused()


def reserve(int fd, int64_t offset, int64_t size, /):
    cdef int code
    with nogil:
        code = write_reserve(fd, offset, size)
    return code


def file_system(int fd, /):
    cdef c_statfs info
    cdef int code
    with nogil:
        code = c_fstatfs(fd, &info)
    if code:
        return -errno
    return <unsigned long>info.f_type & 0xFFFFFFFF


@cython.no_gc_clear
cdef class _Room:
    """The writable end of a buffer, which its view keeps from going back to the pool."""

    cdef Buffer _buffer
    cdef size_t _size

    def __getbuffer__(self, Py_buffer *view, int flags):
        self._buffer._check()
        PyBuffer_FillInfo(view, self, self._buffer._memory + self._buffer._size, self._size, 0, flags)
        self._buffer._exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self._buffer._exports -= 1
        self._buffer._give_back_when_unused()


cdef sha256_tier _tier


def _choose_sha256():
    wanted = os.environ.get("FASTOCI_SHA256")
    name = wanted.encode() if wanted else None
    if sha256_choose(&_tier, <const char *>name if name is not None else <const char *>NULL):
        raise ImportError(f"FASTOCI_SHA256={wanted}: this machine cannot run it (sha-ni, sha-arm, openssl, scalar)")


_choose_sha256()


cdef class Sha256:
    """SHA-256, hashlib-compatible, whose state can be saved. One task or thread at a time."""

    cdef sha256 _state

    name = "sha256"
    digest_size = 32
    block_size = 64

    def __cinit__(self, data=b"", /):
        sha256_init(&self._state)
        self.update(data)

    def update(self, data, /):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if view.len >= 4096:  # below this, giving the GIL away costs more than the hash
                with nogil:
                    sha256_update(&self._state, &_tier, <uint8_t *>view.buf, view.len)
            else:
                sha256_update(&self._state, &_tier, <uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def digest(self):
        cdef uint8_t digest[32]
        sha256_digest(&self._state, &_tier, digest)
        return PyBytes_FromStringAndSize(<char *>digest, 32)

    def hexdigest(self):
        return self.digest().hex()

    def copy(self):
        cdef Sha256 other = Sha256.__new__(Sha256)
        other._state = self._state
        return other

    def state(self):
        cdef uint8_t saved[SHA256_STATE_SIZE]
        sha256_save(&self._state, saved)
        return PyBytes_FromStringAndSize(<char *>saved, SHA256_STATE_SIZE)

    def restore(self, state, /):
        cdef Py_buffer view
        cdef int status = -1
        PyObject_GetBuffer(state, &view, PyBUF_SIMPLE)
        try:
            if view.len == SHA256_STATE_SIZE:
                status = sha256_restore(&self._state, <uint8_t *>view.buf)
        finally:
            PyBuffer_Release(&view)
        if status:
            raise ValueError("not a saved state")


def lanes():
    if _tier.lanes == 0:
        sha256_measure(&_tier)
    return _tier.lanes


def update_many(pairs, /):
    cdef size_t count = len(pairs), i
    cdef sha256 **states
    cdef const uint8_t **data
    cdef size_t *sizes
    cdef Sha256 hasher
    cdef Buffer buffer
    states = <sha256 **>malloc((count + 1) * (sizeof(void *) * 2 + sizeof(size_t)))
    if states == NULL:
        raise MemoryError
    data = <const uint8_t **>(states + count)
    sizes = <size_t *>(data + count)
    lanes()
    try:
        for i in range(count):
            hasher, buffer = pairs[i]
            buffer._check()
            states[i] = &hasher._state
            data[i] = buffer._memory
            sizes[i] = buffer._size
        with nogil:
            sha256_update_many(states, data, sizes, count, &_tier)
    finally:
        free(states)


INFLATE_CODES = {
    INFLATE_NOT_GZIP: "bytes follow the end of a gzip member that begin no other one, or it is no gzip at all",
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
        room = min(_BUFFER_SIZE - out._size, <size_t>_WINDOW)
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


cdef dict _tar_codes():
    cdef const code_description *text
    codes = {}
    for code in range(1, EXTRACT_CODE_END):
        text = extract_code_describe(code)
        if text != NULL:
            codes[code] = (text.kind.decode(), text.sentence.decode())
    return codes


TAR_CODES = _tar_codes()


cdef bytes _to_bytes(tar_bytes text):
    return PyBytes_FromStringAndSize(<const char *>text.data, text.len)


cdef class TarEntry:
    cdef readonly bytes path, link
    cdef readonly str type
    cdef readonly uint32_t mode
    cdef readonly int64_t uid, gid
    cdef readonly uint64_t size
    cdef readonly object mtime_ns
    cdef readonly tuple device
    cdef readonly dict xattrs
    cdef readonly bint sparse


cdef int _list_entry(void *ctx, const tar_entry *entry) noexcept with gil:
    cdef TarReader reader = <TarReader>ctx
    cdef TarEntry made
    cdef size_t i
    try:
        made = TarEntry.__new__(TarEntry)
        made.path = _to_bytes(entry.path)
        made.link = _to_bytes(entry.link)
        made.type = chr(entry.type)
        made.mode = entry.mode
        made.uid = entry.uid
        made.gid = entry.gid
        made.size = entry.size
        made.mtime_ns = <object>entry.mtime * 1_000_000_000 + entry.mtime_ns
        made.device = (entry.devmajor, entry.devminor)
        made.sparse = entry.sparse != 0
        made.xattrs = {}
        for i in range(entry.xattr_count):
            made.xattrs[_to_bytes(entry.xattrs[i].key)] = _to_bytes(entry.xattrs[i].value)
        reader._current = made
    except MemoryError:
        return TAR_MEMORY
    return 0


cdef int _list_data(void *ctx, uint64_t offset, const uint8_t *data, size_t size) noexcept with gil:
    return 0


cdef int _list_end(void *ctx) noexcept with gil:
    cdef TarReader reader = <TarReader>ctx
    reader._entries.append(reader._current)
    return 0


cdef class TarReader:
    cdef tar *_reader
    cdef list _entries
    cdef TarEntry _current

    def __cinit__(self):
        cdef tar_sink sink
        sink.entry = _list_entry
        sink.data = _list_data
        sink.entry_end = _list_end
        self._entries = []
        self._reader = tar_new(&sink, <void *>self)
        if self._reader == NULL:
            raise MemoryError

    def __dealloc__(self):
        tar_free(self._reader)

    def feed(self, data, /):
        cdef Py_buffer view
        cdef int code
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            code = tar_feed(self._reader, <uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        return code

    def finish(self):
        return tar_finish(self._reader)

    def entries(self):
        entries, self._entries = self._entries, []
        return entries

    @property
    def code(self):
        return tar_status(self._reader)

    @property
    def offset(self):
        return tar_offset(self._reader)

    @property
    def path(self):
        return _to_bytes(tar_path(self._reader))


@cython.final
cdef class Stop:
    cdef int _asked

    def set(self):
        stop_ask(&self._asked)

    def is_set(self):
        return stop_asked(&self._asked)


def remove_tree(int parent_fd, bytes name not None, /, *, Stop stop=None, within=None):
    cdef remove_bounds bounds
    cdef const char *path = name
    cdef int result
    bounds.stop = NULL if stop is None else &stop._asked
    bounds.deadline = 0 if within is None else time.monotonic_ns() + int(within * 1e9)
    with nogil:
        result = c_remove_tree(parent_fd, path, &bounds)
    return result


cdef class _Layer:
    """What an extractor and a stager have in common."""

    cdef extract *_extract
    cdef Stop _stop

    def __cinit__(self, *args, **options):
        self._stop = Stop()

    def stop(self):
        self._stop.set()

    def __dealloc__(self):
        extract_free(self._extract)

    def feed(self, data, /):
        cdef Py_buffer view
        cdef int code
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            with nogil:
                code = extract_feed(self._extract, <uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        return code

    def finish(self):
        cdef int code
        with nogil:
            code = extract_finish(self._extract)
        return code

    def close(self):
        extract_close(self._extract)

    cdef extract_facts _facts(self) noexcept:
        cdef extract_facts facts
        extract_get_facts(self._extract, &facts)
        return facts

    @property
    def code(self):
        return self._facts().code

    @property
    def offset(self):
        return self._facts().offset

    @property
    def path(self):
        cdef extract_facts facts = self._facts()
        return PyBytes_FromStringAndSize(facts.path, facts.path_len)

    @property
    def value(self):
        return self._facts().value

    @property
    def entries(self):
        return self._facts().entries

    @property
    def bytes(self):
        return self._facts().bytes

    @property
    def size(self):
        cdef extract_facts facts = self._facts()
        return facts.bytes + facts.extra

    @property
    def skipped(self):
        cdef extract_facts facts = self._facts()
        return {"owners": facts.skipped_owners, "devices": facts.skipped_devices, "xattrs": facts.skipped_xattrs}


@cython.final
cdef class Stager(_Layer):
    def __cinit__(
        self, int directory_fd, /, *, bint owners, uint64_t max_entries, uint64_t max_bytes, uint64_t max_work=_WORK
    ):
        cdef extract_options options
        options.max_directories = 0
        options.max_work = max_work
        options.owners = owners
        options.base = False
        options.max_entries = max_entries
        options.max_bytes = max_bytes
        options.stop = &self._stop._asked
        self._extract = extract_new_stager(directory_fd, &options)
        if self._extract == NULL:
            raise MemoryError


@cython.final
cdef class Extractor(_Layer):
    def __cinit__(
        self, int root_fd, /, *, bint owners, bint base, uint64_t max_entries, uint64_t max_bytes,
        uint64_t max_directories=_DIRECTORIES, uint64_t max_work=_WORK,
    ):
        cdef extract_options options
        options.max_directories = max_directories
        options.max_work = max_work
        options.owners = owners
        options.base = base
        options.max_entries = max_entries
        options.max_bytes = max_bytes
        options.stop = &self._stop._asked
        self._extract = extract_new(root_fd, &options)
        if self._extract == NULL:
            raise MemoryError

    def adopt(self, Stager stager not None, uint64_t count, /):
        cdef int result
        with nogil:
            result = extract_adopt(self._extract, stager._extract, count)
        return result


def info():
    return {
        "sha256": _tier.name.decode() + (f", {lanes()} lanes" if lanes() > 1 else ""),
        "gzip": "isa-l" if inflate_bound(INFLATE_GZIP) else "none",
        "zstd": "libzstd" if inflate_bound(INFLATE_ZSTD) else "none",
    }
