# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False, binding=False
"""The native writer of EROFS files. It returns codes and facts and raises nothing typed.

Thin classes over ``csrc/erofs/``; the contract of each is in ``_erofs.pyi``.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from fastoci.csrc.erofs.erofs cimport (
    erofs, erofs_begin_layer, erofs_close, erofs_end_layer, erofs_feed, erofs_file, erofs_finish, erofs_free,
    erofs_get_facts, erofs_get_file, erofs_new, erofs_read_layer,
)
from fastoci.csrc.erofs.options cimport EROFS_4K, EROFS_MERGED, EROFS_TAR, erofs_options
from fastoci.csrc.io.stop cimport stop_ask
from fastoci.csrc.layer.facts cimport REASON_END, layer_facts, layer_reason_name

cdef enum:
    _WORK = 1 << 24  # about a second, beside what each entry may use

_REASONS = [1 << i for i in range(32) if 1 << i < REASON_END]


cdef class _Writer:
    """What a layer file and merged metadata have in common."""

    cdef erofs *_erofs
    cdef int _stop

    cdef int _open(self, int fd, erofs_options *options, bytes uuid) except -1:
        if len(uuid) != 16:
            raise ValueError("a uuid has 16 bytes")
        memcpy(options.uuid, <const char *>uuid, 16)
        options.stop = &self._stop
        self._erofs = erofs_new(fd, options)
        if self._erofs == NULL:
            raise MemoryError
        return 0

    def __dealloc__(self):
        erofs_free(self._erofs)

    def feed(self, const uint8_t[::1] data not None, /):
        cdef const uint8_t *at = &data[0] if data.shape[0] else NULL
        cdef size_t size = data.shape[0]
        cdef int code
        with nogil:
            code = erofs_feed(self._erofs, at, size)
        return code

    def finish(self):
        cdef int code
        with nogil:
            code = erofs_finish(self._erofs)
        return code

    def stop(self):
        stop_ask(&self._stop)

    def close(self):
        erofs_close(self._erofs)

    cdef layer_facts _facts(self) noexcept:
        cdef layer_facts facts
        erofs_get_facts(self._erofs, &facts)
        return facts

    @property
    def metadata_offset(self):
        return self._file().metadata_at

    @property
    def entries(self):
        return self._facts().entries

    @property
    def bytes(self):
        return self._facts().bytes

    @property
    def code(self):
        return self._facts().code

    @property
    def offset(self):
        return self._facts().offset

    @property
    def value(self):
        return self._facts().value

    @property
    def size(self):
        cdef layer_facts facts = self._facts()
        return facts.bytes + facts.extra

    @property
    def skipped(self):
        return {"owners": 0, "devices": 0, "xattrs": self._facts().skipped_xattrs}

    @property
    def path(self):
        cdef layer_facts facts = self._facts()
        return PyBytes_FromStringAndSize(facts.path, facts.path_len)

    cdef erofs_file _file(self) noexcept:
        cdef erofs_file file
        erofs_get_file(self._erofs, &file)
        return file

    @property
    def file_size(self):
        return self._file().size

    @property
    def memory(self):
        return self._file().memory


@cython.final
cdef class LayerFile(_Writer):
    def __cinit__(
        self, int fd, /, *, str form, bytes uuid, uint64_t max_entries, uint64_t max_bytes, uint64_t max_memory,
        uint64_t max_work=_WORK,
    ):
        cdef erofs_options options
        if form not in ("tar", "4k"):
            raise ValueError("the form of a layer file is tar or 4k")
        options.form = EROFS_TAR if form == "tar" else EROFS_4K
        options.max_entries = max_entries
        options.max_bytes = max_bytes
        options.max_memory = max_memory
        options.max_work = max_work
        self._open(fd, &options, uuid)

    @property
    def tar_size(self):
        return self._file().tar_size

    @property
    def reasons(self):
        found = self._facts().reasons
        return tuple([layer_reason_name(bit).decode() for bit in _REASONS if found & bit])

    @property
    def names_root(self):
        return self._facts().names_root != 0


@cython.final
cdef class MergedMetadata(_Writer):
    def __cinit__(
        self, int fd, /, *, bytes uuid, uint64_t max_entries, uint64_t max_bytes, uint64_t max_memory,
        uint64_t max_work=_WORK,
    ):
        cdef erofs_options options
        options.form = EROFS_MERGED
        options.max_entries = max_entries
        options.max_bytes = max_bytes
        options.max_memory = max_memory
        options.max_work = max_work
        self._open(fd, &options, uuid)

    def begin(self, bytes tag not None, /):
        return erofs_begin_layer(self._erofs, <const uint8_t *><const char *>tag, len(tag))

    def read(self, int fd, uint64_t offset, uint64_t size, /):
        cdef int code
        with nogil:
            code = erofs_read_layer(self._erofs, fd, offset, size)
        return code

    def end(self):
        return erofs_end_layer(self._erofs)
