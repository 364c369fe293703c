/* SHA-256 in plain C: the scalar twin of every kernel, for one stream. */
#ifndef FASTOCI_SHA256_SCALAR_H
#define FASTOCI_SHA256_SCALAR_H

#include <stddef.h>
#include <stdint.h>

void sha256_scalar(uint32_t *const words[1], const uint8_t *const data[1], size_t blocks);

#endif
