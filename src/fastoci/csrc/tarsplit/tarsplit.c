/* The reader of tars says where content is; all other bytes are runs. */
#include "tarsplit/tarsplit.h"

#include "tar/code.h"
#include "tar/tar.h"
#include "tarsplit/crc64.h"
#include "tarsplit/lines.h"
#include "tarsplit/names.h"

#include <stdlib.h>

enum { RUN_MAX = 1 << 16 }; /* bytes of a run in one line */

struct tarsplit {
    struct tar *tar;
    struct names names;
    struct lines lines; /* what was made */
    struct lines run;   /* the run under way: bytes, not lines */
    const uint8_t *from; /* the first byte of the window that is in neither */
    struct tar_bytes name; /* of the file whose content is under way */
    uint64_t size, crc;
    int64_t uid, gid;
    int is_content;
    int is_inexact;
};

static int end_run(struct tarsplit *split)
{
    int failed = split->run.len ? lines_run(&split->lines, split->run.data, split->run.len) : 0;

    split->run.len = 0;
    return failed ? TAR_MEMORY : TAR_OK;
}

/* What is in the window before a byte of it belongs to a run. */
static int add_run(struct tarsplit *split, const uint8_t *until)
{
    while (split->from < until) {
        size_t room = RUN_MAX - split->run.len, len = (size_t)(until - split->from);
        int code;
        len = len < room ? len : room;
        if (lines_put(&split->run, split->from, len) < 0)
            return TAR_MEMORY;
        split->from += len;
        if (split->run.len == RUN_MAX && (code = end_run(split)) != TAR_OK)
            return code;
    }
    return TAR_OK;
}

static int on_entry(void *ctx, const struct tar_entry *entry)
{
    struct tarsplit *split = ctx;

    split->is_inexact |= names_add(&split->names, entry->path, entry->type == 'd') != NAME_NEW;
    split->is_content = entry->type == 'f' && !entry->sparse && entry->size != 0;
    split->name = entry->path;
    split->size = entry->size;
    split->crc = 0;
    split->uid = entry->uid > split->uid ? entry->uid : split->uid;
    split->gid = entry->gid > split->gid ? entry->gid : split->gid;
    return TAR_OK;
}

static int on_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len)
{
    struct tarsplit *split = ctx;
    int code;

    if (!split->is_content)
        return TAR_OK;
    if ((code = add_run(split, data)) != TAR_OK)
        return code;
    if (offset == 0 && (code = end_run(split)) != TAR_OK)
        return code;
    split->crc = crc64_update(split->crc, data, len);
    split->from = data + len;
    return TAR_OK;
}

static int on_end(void *ctx)
{
    struct tarsplit *split = ctx;
    int failed = split->is_content && lines_file(&split->lines, split->name.data, split->name.len, split->size, split->crc);

    split->is_content = 0;
    return failed ? TAR_MEMORY : TAR_OK;
}

struct tarsplit *tarsplit_new(void)
{
    static const struct tar_sink SINK = {on_entry, on_data, on_end, NULL};
    struct tarsplit *split = calloc(1, sizeof *split);

    if (split == NULL)
        return NULL;
    split->tar = tar_new(&SINK, split);
    if (names_init(&split->names) < 0 || split->tar == NULL) {
        tarsplit_free(split);
        return NULL;
    }
    return split;
}

int tarsplit_feed(struct tarsplit *split, const uint8_t *data, size_t len)
{
    int code;

    split->from = data;
    code = tar_feed(split->tar, data, len);
    return code ? code : add_run(split, data + len);
}

int tarsplit_finish(struct tarsplit *split)
{
    int code = tar_finish(split->tar);

    return code ? code : end_run(split);
}

struct tar_bytes tarsplit_lines(const struct tarsplit *split)
{
    struct tar_bytes lines = {split->lines.data, split->lines.len};

    return lines;
}

void tarsplit_taken(struct tarsplit *split)
{
    split->lines.len = 0;
}

int tarsplit_is_exact(const struct tarsplit *split)
{
    return !split->is_inexact;
}

void tarsplit_owners(const struct tarsplit *split, int64_t *uid, int64_t *gid)
{
    *uid = split->uid;
    *gid = split->gid;
}

void tarsplit_free(struct tarsplit *split)
{
    tar_free(split->tar);
    names_free(&split->names);
    free(split->lines.data);
    free(split->run.data);
    free(split);
}
