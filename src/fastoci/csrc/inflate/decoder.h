/* What decoders are asked for: calls of one of raw deflate data, ISA-L or another (RFC 1951); how much libzstd may allocate. */
#ifndef FASTOCI_INFLATE_DECODER_H
#define FASTOCI_INFLATE_DECODER_H

#include "inflate/code.h"

#include <stddef.h>
#include <stdint.h>

/* One call. */
struct inflate_step {
    const uint8_t *source;
    size_t size;
    uint8_t *out;
    size_t room;
    /* Set by the decoder. It may read ahead, and hand back what it did not need: the last bytes that it consumed, in this
     * call or in earlier ones. consumed is negative when it hands back more than it took in this call. */
    ptrdiff_t consumed;
    size_t produced;
    uint32_t crc; /* CRC-32 of the member's content so far; the decoder counts what it produced in */
    int ended;    /* the deflate data is over, and all bytes behind it are handed back */
};

/* A decoder that stands in for ISA-L. Both answer INFLATE_OK, INFLATE_BAD_DATA or INFLATE_NO_MEMORY. A run that neither
 * consumes nor produces nor ends is for want of input. What a run says is checked, not believed: counts that cannot be
 * are INFLATE_BAD_DATA. */
struct inflate_decoder {
    enum inflate_code (*begin)(void *ctx); /* a member begins */
    enum inflate_code (*run)(void *ctx, struct inflate_step *step);
};

/* Bytes beside the window: libzstd's context of 160 KiB, and three blocks of 128 KiB. */
#define INFLATE_OVERHEAD (1 << 20)

#endif
