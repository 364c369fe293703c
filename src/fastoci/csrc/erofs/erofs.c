/* From bytes to a tree, and from the tree to the file. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "erofs/erofs.h"

#include "erofs/apply.h"
#include "erofs/arena.h"
#include "erofs/data.h"
#include "erofs/emit.h"
#include "erofs/layout.h"
#include "erofs/output.h"
#include "erofs/super.h"
#include "erofs/tree.h"
#include "io/read.h"
#include "io/retry.h"
#include "io/stop.h"
#include "tar/tar.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_SIZE = 128 * 1024, HEADERS_FREE = 64 << 20, HEADERS_ENTRY = 4096 };

static const uint64_t BLOCKS_MAX = 0xfffffffe;

static int on_entry(void *ctx, const struct tar_entry *entry)
{
    return erofs_apply(ctx, entry);
}

static int new_tar(struct erofs *e)
{
    static const struct tar_sink SINK = {on_entry, erofs_data, erofs_entry_end, erofs_padding};

    tar_free(e->tar);
    e->fed = 0;
    e->file = NULL;
    e->copies = NULL;
    e->last_copy = &e->copies;
    return (e->tar = tar_new(&SINK, e)) ? 0 : -1;
}

static void set_limits(struct erofs *e)
{
    const struct erofs_options *options = &e->options;

    e->layer.limits = (struct layer_limits){options->max_entries, options->max_bytes, options->max_work, options->stop};
}

struct erofs *erofs_new(int fd, const struct erofs_options *options)
{
    struct erofs *e = calloc(1, sizeof *e);

    if (!e)
        return NULL;
    e->fd = fd;
    e->options = *options;
    e->block_bits = options->form == EROFS_4K ? 12 : 9;
    e->base = EROFS_HEAD >> e->block_bits;
    e->next_block = options->form == EROFS_MERGED ? 0 : e->base;
    e->arena.limit = options->max_memory;
    e->last_device = &e->devices;
    set_limits(e);
    if (new_tar(e)) {
        free(e);
        return NULL;
    }
    return e;
}

/* Remember the first failure. */
static int failed_here(struct erofs *e, int code)
{
    if (!code || e->layer.facts.code)
        return e->layer.facts.code;
    return layer_failed(&e->layer, code, tar_offset(e->tar), code >= LAYER_IO ? e->layer.value : tar_value(e->tar), tar_path(e->tar));
}

static int failed_io(struct erofs *e, int error)
{
    errno = error;
    return failed_here(e, layer_io(&e->layer));
}

/* The code that this call must return before it does anything, or TAR_OK. The tree begins with the first. */
static int usable(struct erofs *e)
{
    struct stat st;

    if (e->closed || e->finished)
        return e->layer.facts.code ? e->layer.facts.code : (e->layer.facts.code = LAYER_CLOSED);
    if (e->layer.facts.code || e->root)
        return e->layer.facts.code;
    if (fstat(e->fd, &st))
        return failed_io(e, errno);
    if (!S_ISREG(st.st_mode) || st.st_size)
        return failed_io(e, EINVAL); /* what is there already would show in holes */
    return failed_here(e, erofs_tree_init(e));
}

/* An archive may have more headers than entries, and anything behind its end: that is bounded, too. */
static int count_fed(struct erofs *e, size_t len)
{
    uint64_t most = e->layer.size + HEADERS_FREE + HEADERS_ENTRY * e->layer.facts.entries;

    e->fed += len;
    if (erofs_keep_off(e, e->fed) || erofs_keep_off(e, e->next_block << e->block_bits))
        return LAYER_FILE_SIZE;
    if (e->fed <= most || most < e->layer.size)
        return TAR_OK;
    return layer_bad(&e->layer, LAYER_BYTES, (int64_t)e->layer.limits.max_bytes);
}

static int feed(struct erofs *e, const uint8_t *data, size_t len)
{
    uint64_t at = EROFS_HEAD + e->fed;
    int code = usable(e);

    if (!code && !erofs_single(e) && !e->device_count)
        return failed_io(e, EINVAL);
    if (code || (code = failed_here(e, tar_feed(e->tar, data, len))) || (code = failed_here(e, count_fed(e, len))))
        return code;
    return e->options.form == EROFS_TAR ? failed_here(e, erofs_write_window(e, data, len, at)) : TAR_OK;
}

int erofs_feed(struct erofs *e, const uint8_t *data, size_t len)
{
    return layer_publish(&e->layer, feed(e, data, len));
}

/* --- the layers of an image --- */

static int begin_layer(struct erofs *e, const uint8_t *tag, size_t len)
{
    struct erofs_device *device;
    int code = usable(e);

    if (code)
        return code;
    if (erofs_single(e) || len > sizeof device->tag || e->device_count == EROFS_LAYERS_MAX)
        return failed_io(e, EINVAL);
    if (!(device = erofs_take(e, sizeof *device)))
        return failed_here(e, erofs_no_memory(e));
    memcpy(device->tag, tag, len);
    device->first = e->next_block;
    *e->last_device = device;
    e->last_device = &device->next;
    e->number = (uint16_t)e->device_count++;
    e->base = device->first + (EROFS_HEAD >> e->block_bits);
    layer_forget(&e->layer);
    e->layer.made = e->layer.size = e->layer.work = e->layer.facts.entries = 0;
    return new_tar(e) ? failed_here(e, TAR_MEMORY) : TAR_OK;
}

int erofs_begin_layer(struct erofs *e, const uint8_t *tag, size_t len)
{
    return layer_publish(&e->layer, begin_layer(e, tag, len));
}

/* The last block of a body is read: what is behind the content must be known. */
static uint64_t pass_over(struct erofs *e)
{
    uint64_t left = tar_body_left(e->tar), whole = left & ~(uint64_t)511;

    tar_skip(e->tar, whole);
    return whole;
}

static int read_layer(struct erofs *e, int fd, uint64_t offset, uint64_t size)
{
    uint8_t *window = malloc(READ_SIZE);
    uint64_t end = offset + size, skipped;
    int code = window ? usable(e) : failed_here(e, TAR_MEMORY), error;
    size_t got = 1;

    while (!code && offset < end && got) {
        size_t part = end - offset < READ_SIZE ? (size_t)(end - offset) : READ_SIZE;
        if (stop_asked(e->layer.limits.stop))
            code = failed_here(e, LAYER_STOPPED);
        else if ((error = -read_all(fd, window, part, (int64_t)offset, &got)) || got < part)
            code = failed_io(e, error ? error : EIO);
        else
            code = feed(e, window, part);
        skipped = code ? 0 : pass_over(e);
        e->fed += skipped;
        offset += part + skipped;
        if (!code && tar_ended(e->tar) && offset < end) {
            e->fed += end - offset;
            offset = end;
        }
    }
    free(window);
    if (!code && offset > end)
        code = failed_here(e, TAR_TRUNCATED);
    return code;
}

int erofs_read_layer(struct erofs *e, int fd, uint64_t offset, uint64_t size)
{
    return layer_publish(&e->layer, read_layer(e, fd, offset, size));
}

static int end_layer(struct erofs *e)
{
    struct erofs_device *device;
    int code = usable(e);

    if (code)
        return code;
    if (!e->device_count)
        return failed_io(e, EINVAL);
    if ((code = failed_here(e, tar_finish(e->tar))))
        return code;
    device = (struct erofs_device *)((char *)e->last_device - offsetof(struct erofs_device, next));
    device->blocks = erofs_place_copies(e, e->fed) - device->first;
    return TAR_OK;
}

int erofs_end_layer(struct erofs *e)
{
    return layer_publish(&e->layer, end_layer(e));
}

/* --- the end --- */

/* How many bytes lie in front of the metadata. */
static uint64_t lay_content(struct erofs *e)
{
    if (e->options.form == EROFS_MERGED)
        return erofs_round_up(EROFS_HEAD + erofs_devices_size(e), EROFS_HEAD);
    if (e->options.form == EROFS_TAR)
        (void)erofs_place_copies(e, e->fed);
    return e->next_block << e->block_bits;
}

static int write_all_of_it(struct erofs *e)
{
    uint64_t blocks;
    int code, cut;

    if ((code = erofs_lay_out(e, lay_content(e))))
        return code;
    blocks = e->file_size >> e->block_bits;
    if (e->options.form == EROFS_MERGED) {
        e->shift = blocks;
        blocks += e->next_block;
    }
    if (blocks > BLOCKS_MAX)
        return layer_bad(&e->layer, LAYER_FILE_SIZE, (int64_t)blocks);
    if ((e->options.form == EROFS_TAR && (code = erofs_write_copies(e))) || (code = erofs_put_devices(e)) || (code = erofs_emit(e)))
        return code;
    if ((code = erofs_keep_off(e, e->file_size)))
        return code;
    e->root_slot = e->root->inode.slot;
    erofs_tree_free(e); /* some of it may be in the file */
    RETRY(cut, ftruncate(e->fd, (off_t)e->file_size));
    return cut ? layer_io(&e->layer) : erofs_put_super(e);
}

static int finish(struct erofs *e)
{
    int code = usable(e);

    if (code || (erofs_single(e) && (code = failed_here(e, tar_finish(e->tar)))))
        return code;
    if ((code = failed_here(e, write_all_of_it(e))))
        return code;
    e->tar_size = e->fed;
    e->finished = 1;
    return TAR_OK;
}

int erofs_finish(struct erofs *e)
{
    return layer_publish(&e->layer, finish(e));
}

void erofs_close(struct erofs *e)
{
    e->closed = 1;
    tar_free(e->tar);
    e->tar = NULL;
    free(e->output.buffer);
    free(e->outline.buffer);
    e->output.buffer = e->outline.buffer = NULL;
    erofs_tree_free(e);
    layer_close(&e->layer);
}

void erofs_free(struct erofs *e)
{
    if (e) {
        erofs_close(e);
        layer_free(&e->layer);
    }
    free(e);
}

void erofs_get_file(const struct erofs *e, struct erofs_file *file)
{
    *file = (struct erofs_file){e->tar_size, e->metadata_at, e->file_size, e->arena.used};
}

void erofs_get_facts(const struct erofs *e, struct layer_facts *facts)
{
    layer_get_facts(&e->layer, facts);
}
