cdef extern from "tar/code.h" nogil:
    enum: TAR_MEMORY
    struct code_description:
        const char *kind
        const char *sentence
