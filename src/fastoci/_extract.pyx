# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False, binding=False
"""The native extractor: tar, files of a layer, their removal. It returns codes and facts and raises nothing typed.

Thin classes over ``csrc/tar/``, ``csrc/extract/`` and ``csrc/io/``; the contract of each is in ``_extract.pyi``.
"""

import os
import time

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyObject_GetBuffer, PyBuffer_Release
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastoci._core cimport Buffer
from fastoci.csrc.layer.code cimport LAYER_CODE_END, layer_code_describe
from fastoci.csrc.extract.extract cimport (
    EXTRACT_PATH, extract, extract_adopt, extract_close, extract_feed, extract_finish, extract_free, extract_get_facts,
    extract_new, extract_new_overlay, extract_new_stager, extract_next_implied, extract_note,
)
from fastoci.csrc.extract.losses cimport LOSS_DEVICE, loss, losses, losses_close, losses_find, losses_sort
from fastoci.csrc.layer.facts cimport REASON_END, layer_facts, layer_reason_name
from fastoci.csrc.extract.options cimport extract_options
from fastoci.csrc.io.filesystem cimport birth_time, c_is_mount_point, c_sync_filesystem
from fastoci.csrc.io.namespace cimport namespace_enter
from fastoci.csrc.io.remove cimport c_remove_tree, remove_bounds
from fastoci.csrc.io.stop cimport stop_ask, stop_asked
from fastoci.csrc.tar.code cimport TAR_MEMORY, code_description
from fastoci.csrc.tar.sink cimport tar_bytes, tar_entry, tar_sink
from fastoci.csrc.tar.tar cimport (
    tar, tar_body_left, tar_feed, tar_finish, tar_free, tar_new, tar_offset, tar_path, tar_skip,
)
from fastoci.csrc.tarsplit.tarsplit cimport (
    tarsplit, tarsplit_feed, tarsplit_finish, tarsplit_free, tarsplit_is_exact, tarsplit_lines, tarsplit_new,
    tarsplit_owners, tarsplit_taken,
)

cdef enum:
    _WORK = 1 << 24  # about a second, beside what each entry may use

cdef dict _tar_codes():
    cdef const code_description *text
    codes = {}
    for code in range(1, LAYER_CODE_END):
        text = layer_code_describe(code)
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
        sink.padding = NULL
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

    def skip_body(self):
        size = tar_body_left(self._reader)
        tar_skip(self._reader, size)
        return size

    @property
    def offset(self):
        return tar_offset(self._reader)

    @property
    def path(self):
        return _to_bytes(tar_path(self._reader))


@cython.final
cdef class TarSplit:
    cdef tarsplit *_split

    def __cinit__(self):
        self._split = tarsplit_new()
        if self._split == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._split != NULL:
            tarsplit_free(self._split)

    def feed(self, Buffer data not None, /):
        cdef int code
        with nogil:
            code = tarsplit_feed(self._split, data._memory, data._size)
        return code

    def finish(self):
        return tarsplit_finish(self._split)

    def take(self):
        lines = _to_bytes(tarsplit_lines(self._split))
        tarsplit_taken(self._split)
        return lines

    @property
    def is_exact(self):
        return tarsplit_is_exact(self._split) != 0

    @property
    def owners(self):
        cdef int64_t uid, gid
        tarsplit_owners(self._split, &uid, &gid)
        return uid, gid


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


def is_mount_point(int parent_fd, bytes name not None, /):
    cdef const char *path = name
    cdef int result
    with nogil:
        result = c_is_mount_point(parent_fd, path)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result > 0


def birth_time_ns(int fd, /):
    return birth_time(fd)


def enter_user_namespace():
    cdef int failed = namespace_enter()
    if failed:
        raise OSError(-failed, os.strerror(-failed))


def sync_filesystem(int fd, /):
    cdef int failed
    with nogil:
        failed = c_sync_filesystem(fd)
    if failed:
        raise OSError(-failed, os.strerror(-failed))


@cython.final
cdef class Losses:
    cdef losses _losses

    def __cinit__(self, int records, int values, /):
        self._losses.records = records
        self._losses.values = values
        self._losses.count = os.fstat(records).st_size // sizeof(loss)

    def __dealloc__(self):
        losses_close(&self._losses)

    def sort(self):
        cdef int failed
        with nogil:
            failed = losses_sort(&self._losses)
        if failed:
            raise OSError(errno, os.strerror(errno))

    def find(self, uint64_t inode, /):
        cdef const loss *found = losses_find(&self._losses, inode)
        if found == NULL:
            return None
        values = os.pread(self._losses.values, found.values_len, found.values_at) if found.values_len else b""
        mtime = <object>found.mtime * 1_000_000_000 + found.mtime_ns
        device = (found.devmajor, found.devminor) if found.kind == LOSS_DEVICE else None
        return found.uid, found.gid, found.mode, mtime, device, values


cdef class _Layer:
    """What an extractor, a stager and a layer directory have in common."""

    cdef extract *_extract
    cdef Stop _stop
    cdef Losses _losses

    def __cinit__(self, *args, **options):
        if type(self) is _Layer:
            raise TypeError("a layer has an Extractor, a Stager or a LayerDirectory")
        self._stop = Stop()

    def stop(self):
        self._stop.set()

    def __dealloc__(self):
        extract_free(self._extract)

    def note(self, Losses losses not None, /):
        self._losses = losses
        extract_note(self._extract, &losses._losses)

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

    cdef layer_facts _facts(self) noexcept:
        cdef layer_facts facts
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
        cdef layer_facts facts = self._facts()
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
        cdef layer_facts facts = self._facts()
        return facts.bytes + facts.extra

    @property
    def skipped(self):
        cdef layer_facts facts = self._facts()
        return {"owners": facts.skipped_owners, "devices": facts.skipped_devices, "xattrs": facts.skipped_xattrs}

    @property
    def names_root(self):
        return self._facts().names_root != 0


@cython.final
cdef class Stager(_Layer):
    def __cinit__(
        self, int directory_fd, /, *, bint owners, bint privileged, uint64_t max_entries, uint64_t max_bytes,
        uint64_t max_work=_WORK,
    ):
        cdef extract_options options
        options.max_directories = 0
        options.max_work = max_work
        options.snapshot = options.unknown_lowers = False
        options.owners = owners
        options.privileged = privileged
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
        self, int root_fd, /, *, bint owners, bint privileged, bint base, uint64_t max_entries, uint64_t max_bytes,
        uint64_t max_directories, uint64_t max_work=_WORK, bint snapshot=False,
    ):
        cdef extract_options options
        options.snapshot = snapshot
        options.unknown_lowers = False
        options.max_directories = max_directories
        options.max_work = max_work
        options.owners = owners
        options.privileged = privileged
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


@cython.final
cdef class LayerDirectory(_Layer):
    def __cinit__(
        self, int directory_fd, /, *, bint owners, bint privileged, bint user_xattrs, uint64_t max_entries,
        uint64_t max_bytes, uint64_t max_directories, uint64_t max_work=_WORK, bint snapshot=False,
        bint unknown_lowers=False,
    ):
        cdef extract_options options
        options.snapshot = snapshot
        options.unknown_lowers = unknown_lowers
        options.max_directories = max_directories
        options.max_work = max_work
        options.owners = owners
        options.privileged = privileged
        options.base = False
        options.user_xattrs = user_xattrs
        options.max_entries = max_entries
        options.max_bytes = max_bytes
        options.stop = &self._stop._asked
        self._extract = extract_new_overlay(directory_fd, &options)
        if self._extract == NULL:
            raise MemoryError

    @property
    def implied(self):
        cdef char path[EXTRACT_PATH]
        cdef const void *at = NULL
        paths = []
        while extract_next_implied(self._extract, &at, path):
            paths.append(<bytes>path)
        return paths

    @property
    def reasons(self):
        cdef unsigned found = self._facts().reasons
        cdef unsigned bit = 1
        names = []
        while bit < REASON_END:
            if found & bit:
                names.append(layer_reason_name(bit).decode())
            bit <<= 1
        return tuple(names)
