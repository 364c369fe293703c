cdef extern from "io/stop.h" nogil:
    void stop_ask(int *)
    bint stop_asked(const int *)
