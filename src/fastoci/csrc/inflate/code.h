/* What can be wrong with compressed data. */
#ifndef FASTOCI_INFLATE_CODE_H
#define FASTOCI_INFLATE_CODE_H

enum inflate_code {
    INFLATE_OK,
    INFLATE_NOT_GZIP,      /* no gzip magic where a member must begin */
    INFLATE_BAD_HEADER,    /* unknown method, reserved flags, header checksum */
    INFLATE_BAD_DATA,      /* the compressed data is damaged */
    INFLATE_BAD_CHECKSUM,  /* CRC-32 of the content */
    INFLATE_BAD_LENGTH,    /* ISIZE of the content */
    INFLATE_CUT,           /* the input ended inside a member or frame, or before the first */
    INFLATE_WINDOW,        /* a zstd frame demands a larger window than allowed */
    INFLATE_NO_MEMORY,
};

#endif
