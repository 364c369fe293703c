cdef extern from "inflate/code.h" nogil:
    enum inflate_code:
        INFLATE_OK
        INFLATE_NOT_GZIP
        INFLATE_BAD_HEADER
        INFLATE_BAD_DATA
        INFLATE_BAD_CHECKSUM
        INFLATE_BAD_LENGTH
        INFLATE_CUT
        INFLATE_WINDOW
        INFLATE_NO_MEMORY
