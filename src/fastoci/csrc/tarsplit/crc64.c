/* Eight bytes at a time, by eight tables. */
#include "tarsplit/crc64.h"

#include <pthread.h>
#include <string.h>

enum { AT_ONCE = 8 };

static const uint64_t POLYNOMIAL = 0xD800000000000000u;

static uint64_t tables[AT_ONCE][256];
static pthread_once_t made = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (int byte = 0; byte < 256; byte++) {
        uint64_t crc = (uint64_t)byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        tables[0][byte] = crc;
    }
    for (int byte = 0; byte < 256; byte++) {
        uint64_t crc = tables[0][byte];
        for (int table = 1; table < AT_ONCE; table++) {
            crc = tables[0][crc & 0xff] ^ crc >> 8;
            tables[table][byte] = crc;
        }
    }
}

uint64_t crc64_update(uint64_t crc, const uint8_t *data, size_t len)
{
    pthread_once(&made, make_tables);
    crc = ~crc;
    for (; len >= AT_ONCE; len -= AT_ONCE, data += AT_ONCE) {
        uint64_t word, next = 0;
        memcpy(&word, data, AT_ONCE); /* of a machine whose lowest byte is first, as all are that this is built for */
        word ^= crc;
        for (int at = 0; at < AT_ONCE; at++)
            next ^= tables[AT_ONCE - 1 - at][word >> (8 * at) & 0xff];
        crc = next;
    }
    for (; len; len--, data++)
        crc = tables[0][(crc ^ *data) & 0xff] ^ crc >> 8;
    return ~crc;
}
