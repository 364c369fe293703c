# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False, binding=False
"""The native core: memory, SHA-256 and files. It returns codes and facts and raises nothing typed.

Thin classes over ``csrc/``; the contract of each is in ``_core.pyi``.
"""

import os

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyObject_GetBuffer, PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

from fastoci.csrc.io.place cimport byte_lock, byte_unlock, is_free, place_all, placed
from fastoci.csrc.io.read cimport read_all
from fastoci.csrc.io.write cimport write_all, write_reserve
from fastoci.csrc.sha256.sha256 cimport (
    SHA256_STATE_SIZE, sha256, sha256_digest, sha256_init, sha256_restore, sha256_save, sha256_update,
    sha256_update_many,
)
from fastoci.csrc.sha256.tier cimport sha256_choose, sha256_measure, sha256_tier
from fastoci.csrc.verity.verity cimport (
    VERITY_BLOCK, VERITY_SALT, verity_begin, verity_feed, verity_finish, verity_tree, verity_write_to,
)


cdef extern from "<sys/statfs.h>" nogil:
    struct c_statfs "statfs":
        long f_type
    int c_fstatfs "fstatfs"(int, c_statfs *)


BUFFER_SIZE = POOL_BUFFER_SIZE


cdef class Pool:
    def __cinit__(self, size_t capacity, /, *, bint poison=False):
        self._limit = capacity // POOL_BUFFER_SIZE
        if self._limit == 0:
            raise ValueError(f"a pool holds at least one buffer of {POOL_BUFFER_SIZE} bytes")
        self._free = <uint8_t **>malloc(self._limit * sizeof(uint8_t *))
        if self._free == NULL:
            raise MemoryError
        self._poison = poison

    def __dealloc__(self):
        for i in range(self._free_count):  # a buffer holds its pool, so all are back
            munmap(self._free[i], POOL_BUFFER_SIZE)
        free(self._free)

    @property
    def capacity(self):
        return self._limit * POOL_BUFFER_SIZE

    @property
    def in_use(self):
        return (self._made - self._free_count) * POOL_BUFFER_SIZE

    @property
    def aside(self):
        return self._aside * POOL_BUFFER_SIZE

    def set_aside(self, size_t size, /):
        cdef size_t count = size // POOL_BUFFER_SIZE + (size % POOL_BUFFER_SIZE != 0)
        if count > self._limit - self._aside - (self._made - self._free_count):
            return False
        self._aside += count
        while self._made + self._aside > self._limit:  # enough are free
            self._free_count -= 1
            self._made -= 1
            munmap(self._free[self._free_count], POOL_BUFFER_SIZE)
        return True

    def put_back(self, size_t size, /):
        cdef size_t count = size // POOL_BUFFER_SIZE + (size % POOL_BUFFER_SIZE != 0)
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
            memory = <uint8_t *>mmap(NULL, POOL_BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
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
            memset(memory, 0xDB, POOL_BUFFER_SIZE)
        self._free[self._free_count] = memory
        self._free_count += 1


@cython.no_gc_clear  # a collector must not take the pool away before the memory is back
cdef class Buffer:
    """A reference-counted piece of a pool: ``len(buffer)`` bytes of ``BUFFER_SIZE`` are filled."""

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
        return POOL_BUFFER_SIZE - self._size

    def append(self, data, Py_ssize_t start=0, /):
        cdef Py_buffer view
        cdef size_t size
        self._check()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if start < 0 or start > view.len:
                raise ValueError("start is outside data")
            size = min(<size_t>(view.len - start), POOL_BUFFER_SIZE - self._size)
            memcpy(self._memory + self._size, <uint8_t *>view.buf + start, size)
            self._size += size
        finally:
            PyBuffer_Release(&view)
        return size

    def reserve(self, size_t size, /):
        self._check()
        cdef _Room room = _Room.__new__(_Room)
        room._buffer = self
        room._size = min(size, POOL_BUFFER_SIZE - self._size)
        return PyMemoryView_FromObject(room)

    def advance(self, size_t size, /):
        self._check()
        if size > POOL_BUFFER_SIZE - self._size:
            raise ValueError("more than there was room for")
        self._size += size

    def pread(self, int fd, int64_t offset, /):
        cdef size_t size = 0
        cdef int code
        self._check()
        with nogil:
            code = read_all(fd, self._memory + self._size, POOL_BUFFER_SIZE - self._size, offset, &size)
        self._size += size
        return code if code else size

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


def place(int nameless, int named, list files, bint sync, /):
    cdef Py_ssize_t count = len(files), number
    cdef int code
    cdef Buffer buffer
    cdef placed *wanted = <placed *>malloc(max(1, count) * sizeof(placed))
    if wanted == NULL:
        raise MemoryError
    try:
        for number in range(count):
            name, buffer = files[number]
            buffer._check()
            wanted[number].name = <const char *><bytes>name
            wanted[number].data, wanted[number].size = buffer._memory, buffer._size
        with nogil:
            code = place_all(nameless, named, wanted, count, sync)
        return [wanted[number].code for number in range(count)], code
    finally:
        free(wanted)


def hold(int fd, int64_t byte, int named, int ingests, bytes name, /):
    # With the GIL: who lets go of it waits for it longer than this takes.
    cdef const char *text = name
    cdef int code = byte_lock(fd, byte)
    if code:
        return code
    code = is_free(named, text)
    if code == 1:
        code = is_free(ingests, text)
    if code != 1:
        byte_unlock(fd, byte)
    return code


def let_go(int fd, int64_t byte, /):
    return byte_unlock(fd, byte)


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


def tier():
    return _tier.name.decode() + (f", {lanes()} lanes" if lanes() > 1 else "")


def update_many(pairs, /):
    cdef size_t count = len(pairs), i
    cdef sha256 **states
    cdef const uint8_t **data
    cdef size_t *sizes
    cdef Sha256 hasher
    cdef Buffer buffer
    cdef bytes own
    states = <sha256 **>malloc((count + 1) * (sizeof(void *) * 2 + sizeof(size_t)))
    if states == NULL:
        raise MemoryError
    data = <const uint8_t **>(states + count)
    sizes = <size_t *>(data + count)
    lanes()
    try:
        for i in range(count):
            hasher, content = pairs[i]
            if hasher is None or not isinstance(content, (Buffer, bytes)):
                raise TypeError("a pair is a Sha256 and a Buffer, or bytes")
            states[i] = &hasher._state
            if isinstance(content, bytes):
                own = content
                data[i] = <const uint8_t *>PyBytes_AS_STRING(own)
                sizes[i] = len(own)
            else:
                buffer = content
                buffer._check()
                data[i] = buffer._memory
                sizes[i] = buffer._size
        with nogil:
            sha256_update_many(states, data, sizes, count, &_tier)
    finally:
        free(states)


cdef class VerityTree:
    """The hash tree of a file whose first block comes last. One task or thread at a time."""

    cdef verity_tree *_tree

    block_size = VERITY_BLOCK

    def __cinit__(self, salt=b"", /):
        cdef const uint8_t[::1] view = salt
        if len(view) > VERITY_SALT:
            raise ValueError(f"a salt has at most {VERITY_SALT} bytes")
        self._tree = <verity_tree *>malloc(sizeof(verity_tree))
        if self._tree == NULL:
            raise MemoryError
        lanes()
        verity_begin(self._tree, &_tier, &view[0] if len(view) else NULL, len(view))

    def __dealloc__(self):
        free(self._tree)

    def write_to(self, int fd, int64_t offset, uint64_t size, /):
        return verity_write_to(self._tree, fd, offset, size)

    def feed(self, data, /):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            with nogil:
                verity_feed(self._tree, <uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def finish(self, first, /):
        cdef uint8_t root[32]
        cdef Py_buffer view
        cdef int code
        PyObject_GetBuffer(first, &view, PyBUF_SIMPLE)
        try:
            if view.len > VERITY_BLOCK:
                raise ValueError("more than a block")
            with nogil:
                code = verity_finish(self._tree, <uint8_t *>view.buf, view.len, root)
        finally:
            PyBuffer_Release(&view)
        return code if code else PyBytes_FromStringAndSize(<char *>root, 32)
