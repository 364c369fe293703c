/* SHA-256's compression as the standard writes it. Spec: FIPS 180-4 section 6.2.2. */
#include "sha256/scalar.h"

#include "sha256/context.h"

static uint32_t rotr(uint32_t v, int n)
{
    return v >> n | v << (32 - n);
}

void sha256_scalar(uint32_t *const all_words[1], const uint8_t *const all_data[1], size_t blocks)
{
    uint32_t *words = *all_words;
    for (const uint8_t *data = *all_data; blocks; blocks--, data += 64) {
        uint32_t w[64], a = words[0], b = words[1], c = words[2], d = words[3];
        uint32_t e = words[4], f = words[5], g = words[6], h = words[7];
        for (int t = 0; t < 16; t++)
            w[t] = load32(data + 4 * t);
        for (int t = 16; t < 64; t++) {
            uint32_t s0 = rotr(w[t - 15], 7) ^ rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
            uint32_t s1 = rotr(w[t - 2], 17) ^ rotr(w[t - 2], 19) ^ w[t - 2] >> 10;
            w[t] = w[t - 16] + s0 + w[t - 7] + s1;
        }
        for (int t = 0; t < 64; t++) {
            uint32_t s1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25), ch = (e & f) ^ (~e & g);
            uint32_t t1 = h + s1 + ch + sha256_constants[t] + w[t];
            uint32_t s0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22), maj = (a & b) ^ (a & c) ^ (b & c);
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + s0 + maj;
        }
        words[0] += a, words[1] += b, words[2] += c, words[3] += d;
        words[4] += e, words[5] += f, words[6] += g, words[7] += h;
    }
}
