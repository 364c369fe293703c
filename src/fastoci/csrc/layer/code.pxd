from fastoci.csrc.tar.code cimport code_description


cdef extern from "layer/code.h" nogil:
    enum: LAYER_CODE_END
    const code_description *layer_code_describe(int)
