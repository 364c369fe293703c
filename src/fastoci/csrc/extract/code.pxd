from fastoci.csrc.tar.code cimport code_description


cdef extern from "extract/code.h" nogil:
    enum: EXTRACT_CODE_END
    const code_description *extract_code_describe(int)
