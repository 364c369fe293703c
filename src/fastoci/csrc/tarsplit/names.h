/* The names that a tar has given so far, by a keyed hash of what is left of each without "." and doubled slashes. */
#ifndef FASTOCI_TARSPLIT_NAMES_H
#define FASTOCI_TARSPLIT_NAMES_H

#include "tar/sink.h"

#include <stddef.h>
#include <stdint.h>

struct names {
    uint64_t key[2];
    uint64_t *slots; /* 0: free; the lowest bit: it is of a directory */
    size_t count;
    size_t capacity;
    uint8_t *text; /* the name under way */
    size_t text_capacity;
};

/* What came of one more name. */
enum name_is { NAME_NEW, NAME_AGAIN, NAME_UNCLEAR };

/* 0, or -1: no randomness. */
int names_init(struct names *names);

/* NAME_AGAIN: it replaces what had the name. NAME_UNCLEAR: it has "..", or there are more than can be remembered. */
enum name_is names_add(struct names *names, struct tar_bytes name, int directory);

void names_free(struct names *names);

#endif
