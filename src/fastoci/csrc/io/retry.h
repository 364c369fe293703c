/* A system call again while signals interrupt it. */
#ifndef FASTOCI_IO_RETRY_H
#define FASTOCI_IO_RETRY_H

#include <errno.h>

#define RETRY(result, call)                                                                                                      \
    do                                                                                                                           \
        (result) = (call);                                                                                                       \
    while ((result) < 0 && errno == EINTR)

#endif
