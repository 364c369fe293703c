/* Buffers, each written when it is full or when a gap comes that is worth a hole. */
#include "erofs/output.h"

#include "io/write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER_SIZE = 256 * 1024, GAP_MAX = 4096 };

static int written(struct erofs *e, int result)
{
    errno = -result;
    return result ? layer_io(&e->layer) : TAR_OK;
}

int erofs_flush(struct erofs *e, struct erofs_output *output)
{
    int code = output->have ? written(e, write_all(e->fd, output->buffer, output->have, (int64_t)output->at, 0)) : TAR_OK;

    output->at += output->have;
    output->have = 0;
    return code;
}

int erofs_put(struct erofs *e, struct erofs_output *output, const void *data, size_t len)
{
    const uint8_t *from = data;

    if (!output->buffer && !(output->buffer = malloc(BUFFER_SIZE)))
        return TAR_MEMORY;
    while (len) {
        size_t room = BUFFER_SIZE - output->have, part = len < room ? len : room;
        int code;
        memcpy(output->buffer + output->have, from, part);
        output->have += part;
        from += part;
        len -= part;
        if (output->have == BUFFER_SIZE && (code = erofs_flush(e, output)))
            return code;
    }
    return TAR_OK;
}

int erofs_seek(struct erofs *e, struct erofs_output *output, uint64_t at)
{
    static const uint8_t ZEROS[GAP_MAX];
    uint64_t now = output->at + output->have;
    int code;

    if (at == now)
        return TAR_OK;
    if (at > now && at - now <= GAP_MAX && output->have)
        return erofs_put(e, output, ZEROS, (size_t)(at - now));
    code = erofs_flush(e, output);
    output->at = at;
    return code;
}

int erofs_write_window(struct erofs *e, const uint8_t *data, size_t len, uint64_t at)
{
    int result = e->cached ? 0 : write_all(e->fd, data, len, (int64_t)at, 1);

    if (!e->cached && (result == -EOPNOTSUPP || result == -EINVAL || result == -ENOSYS))
        e->cached = 1;
    if (e->cached)
        result = write_all(e->fd, data, len, (int64_t)at, 0);
    return written(e, result);
}
