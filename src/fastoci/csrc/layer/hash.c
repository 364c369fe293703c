/* SipHash-1-3, and its key by getrandom. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "layer/hash.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROTATE(x, b) ((x) << (b) | (x) >> (64 - (b)))

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = ROTATE(v[1], 13) ^ v[0];
    v[3] = ROTATE(v[3], 16) ^ v[2];
    v[0] = ROTATE(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = ROTATE(v[1], 17) ^ v[2];
    v[3] = ROTATE(v[3], 21) ^ v[0];
    v[2] = ROTATE(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

int layer_hash_key(uint64_t key[2])
{
    return syscall(SYS_getrandom, key, 2 * sizeof *key, 0) == (long)(2 * sizeof *key) ? 0 : -1;
}

uint64_t layer_hash(const uint64_t key[2], uint64_t directory, const char *name, size_t len)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    uint64_t last = (uint64_t)(len + 8) << 56, word;
    size_t at = 0;

    sip_word(v, directory);
    for (; at + 8 <= len; at += 8) {
        memcpy(&word, name + at, 8);
        sip_word(v, word);
    }
    for (size_t i = 0; at + i < len; i++)
        last |= (uint64_t)(uint8_t)name[at + i] << (8 * i);
    sip_word(v, last);
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    word = v[0] ^ v[1] ^ v[2] ^ v[3];
    return word ? word : 1;
}
