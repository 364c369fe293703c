/* CRC-64 of ISO 3309, reflected, as Go's hash/crc64 has it by crc64.ISO. */
#ifndef FASTOCI_TARSPLIT_CRC64_H
#define FASTOCI_TARSPLIT_CRC64_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of what crc is of, followed by so many bytes more; 0 is of nothing. From any thread. */
uint64_t crc64_update(uint64_t crc, const uint8_t *data, size_t len);

#endif
