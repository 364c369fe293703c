cdef extern from "sha256/tier.h" nogil:
    struct sha256_tier:
        const char *name
        int lanes
    int sha256_choose(sha256_tier *, const char *)
    void sha256_measure(sha256_tier *)
