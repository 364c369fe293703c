/* SHA-256 by the ARMv8 SHA2 instructions, for one, two and three streams at a time. The caller has looked at AT_HWCAP.
 *
 * Each stream has its words and its data; all are advanced by the same number of blocks. Assembly, as in x86.h:
 * it needs no compiler flag and is the same code under all of them. */
#ifndef FASTOCI_SHA256_ARM_H
#define FASTOCI_SHA256_ARM_H

#include <stddef.h>
#include <stdint.h>

void sha256_arm_1(uint32_t *const words[1], const uint8_t *const data[1], size_t blocks);
void sha256_arm_2(uint32_t *const words[2], const uint8_t *const data[2], size_t blocks);
void sha256_arm_3(uint32_t *const words[3], const uint8_t *const data[3], size_t blocks);

#endif
