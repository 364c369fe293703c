from libc.stdint cimport uint8_t, uint64_t

from fastoci.csrc.sha256.tier cimport sha256_tier


cdef extern from "sha256/sha256.h" nogil:
    enum: SHA256_STATE_SIZE
    struct sha256:
        uint64_t count
    void sha256_init(sha256 *)
    void sha256_update(sha256 *, const sha256_tier *, const uint8_t *, size_t)
    void sha256_digest(const sha256 *, const sha256_tier *, uint8_t *)
    void sha256_save(const sha256 *, uint8_t *)
    int sha256_restore(sha256 *, const uint8_t *)
    void sha256_update_many(sha256 **, const uint8_t **, size_t *, size_t, const sha256_tier *)
