from libc.stdint cimport uint8_t, uint64_t

from fastoci.csrc.layer.facts cimport layer_facts
from fastoci.csrc.extract.losses cimport losses
from fastoci.csrc.extract.options cimport extract_options


cdef extern from "extract/extract.h" nogil:
    struct extract
    extract *extract_new(int, const extract_options *)
    extract *extract_new_stager(int, const extract_options *)
    extract *extract_new_overlay(int, const extract_options *)
    void extract_note(extract *, losses *)
    int extract_adopt(extract *, const extract *, uint64_t)
    int extract_feed(extract *, const uint8_t *, size_t)
    int extract_finish(extract *)
    enum:
        EXTRACT_PATH
    int extract_next_implied(const extract *, const void **, char *)
    void extract_close(extract *)
    void extract_free(extract *)
    void extract_get_facts(const extract *, layer_facts *)
