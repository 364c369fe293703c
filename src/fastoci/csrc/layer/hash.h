/* A keyed hash of names, so that an archive cannot choose names that collide: SipHash-1-3 of a directory's id and a name. */
#ifndef FASTOCI_LAYER_HASH_H
#define FASTOCI_LAYER_HASH_H

#include <stddef.h>
#include <stdint.h>

/* A random key: 0, or -1 with errno. */
int layer_hash_key(uint64_t key[2]);

/* Never 0, which may mark a free slot. */
uint64_t layer_hash(const uint64_t key[2], uint64_t directory, const char *name, size_t len);

#endif
