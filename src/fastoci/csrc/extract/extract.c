/* The extractor: one entry after the other, from the reader's callbacks to the tree.
 *
 * Rules: what is in the way is removed first, and nothing is ever written through what was there; the last of several entries
 * of a name counts; whiteouts remove what lower layers have, in whatever order they come; a refused entry stops the layer. */
#include "extract/extract.h"

#include "extract/adopt.h"
#include "extract/context.h"
#include "extract/direct.h"
#include "extract/mode.h"
#include "extract/overlay.h"
#include "extract/stage.h"
#include "tar/tar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct extract *create(const struct extract_writer *writer, int directory_fd, const struct extract_options *options)
{
    struct extract *ex = calloc(1, sizeof *ex);

    if (!ex)
        return NULL;
    ex->writer = writer;
    ex->options = *options;
    ex->layer.limits = (struct layer_limits){options->max_entries, options->max_bytes, options->max_work, options->stop};
    ex->uid = geteuid();
    ex->gid = getegid();
    ex->file = -1;
    if (!(ex->tar = tar_new(&writer->sink, ex))) {
        free(ex);
        return NULL;
    }
    if (writer->begin(ex, directory_fd))
        ex->start_error = errno;
    return ex;
}

struct extract *extract_new(int root_fd, const struct extract_options *options)
{
    return create(&direct_writer, root_fd, options);
}

struct extract *extract_new_stager(int directory_fd, const struct extract_options *options)
{
    return create(&stage_writer, directory_fd, options);
}

struct extract *extract_new_overlay(int directory_fd, const struct extract_options *options)
{
    return create(&overlay_writer, directory_fd, options);
}

void extract_note(struct extract *ex, struct losses *losses)
{
    ex->losses = losses;
}

static int feed(struct extract *ex, const uint8_t *data, size_t len)
{
    int code = extract_usable(ex);

    if (code)
        return code;
    code = extract_failed_here(ex, tar_feed(ex->tar, data, len));
    mode_restore(ex);
    return code;
}

static int adopt(struct extract *ex, const struct extract *stager, uint64_t count)
{
    int code = extract_usable(ex);

    if (code)
        return -code;
    code = adopt_entries(ex, stager, count);
    mode_restore(ex);
    return code;
}

static int finish(struct extract *ex)
{
    int code = extract_usable(ex);

    if (code || (code = extract_failed_here(ex, tar_finish(ex->tar))))
        return code;
    return extract_failed_here(ex, ex->writer->finish(ex));
}

int extract_feed(struct extract *ex, const uint8_t *data, size_t len)
{
    return layer_publish(&ex->layer, feed(ex, data, len));
}

int extract_adopt(struct extract *ex, const struct extract *stager, uint64_t count)
{
    return layer_publish(&ex->layer, adopt(ex, stager, count));
}

int extract_finish(struct extract *ex)
{
    return layer_publish(&ex->layer, finish(ex));
}

void extract_close(struct extract *ex)
{
    if (ex->closed)
        return;
    ex->closed = 1;
    if (ex->file >= 0)
        close(ex->file);
    ex->file = -1;
    tar_free(ex->tar);
    ex->tar = NULL;
    ex->writer->free(ex);
    layer_close(&ex->layer);
}

void extract_free(struct extract *ex)
{
    if (!ex)
        return;
    extract_close(ex);
    layer_free(&ex->layer);
    free(ex);
}

int extract_next_implied(const struct extract *ex, const void **at, char *path)
{
    const struct node *node = *at ? ((const struct node *)*at)->newer : ex->oldest;

    while (node && (node->flags & (NODE_IMPLIED | NODE_NAMED | NODE_BARE)) != NODE_IMPLIED)
        node = node->newer;
    if (!node)
        return 0;
    *at = node;
    path[node->path_len] = 0;
    for (; node->parent; node = node->parent) {
        size_t len = strlen(node->name);
        memcpy(path + node->path_len - len, node->name, len);
        if (node->parent->parent)
            path[node->parent->path_len] = '/';
    }
    return 1;
}

void extract_get_facts(const struct extract *ex, struct layer_facts *facts)
{
    layer_get_facts(&ex->layer, facts);
}
