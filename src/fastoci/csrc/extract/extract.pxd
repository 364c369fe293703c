from libc.stdint cimport uint8_t, uint64_t

from fastoci.csrc.extract.facts cimport extract_facts
from fastoci.csrc.extract.options cimport extract_options


cdef extern from "extract/extract.h" nogil:
    struct extract
    extract *extract_new(int, const extract_options *)
    extract *extract_new_stager(int, const extract_options *)
    int extract_adopt(extract *, const extract *, uint64_t)
    int extract_feed(extract *, const uint8_t *, size_t)
    int extract_finish(extract *)
    void extract_close(extract *)
    void extract_free(extract *)
    void extract_get_facts(const extract *, extract_facts *)
