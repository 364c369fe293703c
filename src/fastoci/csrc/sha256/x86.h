/* SHA-256 by the x86 SHA extensions, for one, two and three streams at a time. The caller has looked at cpuid.
 *
 * Each stream has its words and its data; all are advanced by the same number of blocks. The instructions are bound by
 * their latency, so two streams interleaved take little longer than one. Written as assembly: what a compiler makes of
 * the same intrinsics depends on its flags, and three lanes lost half their speed at -O3. */
#ifndef FASTOCI_SHA256_X86_H
#define FASTOCI_SHA256_X86_H

#include <stddef.h>
#include <stdint.h>

void sha256_x86_1(uint32_t *const words[1], const uint8_t *const data[1], size_t blocks);
void sha256_x86_2(uint32_t *const words[2], const uint8_t *const data[2], size_t blocks);
void sha256_x86_3(uint32_t *const words[3], const uint8_t *const data[3], size_t blocks);

#endif
