/* Reading an archive in every way it can be cut: whole, a byte at a time, and in two at every place; all must agree. */
#ifndef FASTOCI_READ_ALL_H
#define FASTOCI_READ_ALL_H

#include "support/check.h"

struct log {
    char text[16384];
    size_t len;
    int stop_at; /* return a code from this event on; 0: never */
    int events;
};

static int note(struct log *log, const char *text)
{
    size_t len = strlen(text);

    CHECK(log->len + len < sizeof log->text);
    memcpy(log->text + log->len, text, len + 1);
    log->len += len;
    return 0;
}

static int stopped(struct log *log)
{
    return log->stop_at && ++log->events >= log->stop_at ? 77 : 0;
}

static int on_entry(void *ctx, const struct tar_entry *e)
{
    struct log *log = ctx;
    char line[4096];

    snprintf(line, sizeof line, "%c %.*s", e->type, (int)e->path.len, (const char *)e->path.data);
    note(log, line);
    if (e->link.len) {
        snprintf(line, sizeof line, " -> %.*s", (int)e->link.len, (const char *)e->link.data);
        note(log, line);
    }
    snprintf(line, sizeof line, " m%o u%lld g%lld s%llu t%lld.%09u", e->mode, (long long)e->uid, (long long)e->gid,
             (unsigned long long)e->size, (long long)e->mtime, e->mtime_ns);
    note(log, line);
    if (e->devmajor || e->devminor) {
        snprintf(line, sizeof line, " d%lld:%lld", (long long)e->devmajor, (long long)e->devminor);
        note(log, line);
    }
    for (size_t i = 0; i < e->xattr_count; i++) {
        snprintf(line, sizeof line, " %.*s=%.*s", (int)e->xattrs[i].key.len, (const char *)e->xattrs[i].key.data,
                 (int)e->xattrs[i].value.len, (const char *)e->xattrs[i].value.data);
        note(log, line);
    }
    note(log, e->sparse ? " sparse\n" : "\n");
    return stopped(log);
}

/* One line for each run of data that continues the one before, however it is cut. */
static int on_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len)
{
    struct log *log = ctx;
    char line[64];

    for (size_t i = 0; i < len; i++) {
        if (log->len > 4000)
            break;
        snprintf(line, sizeof line, "@%llu%c", (unsigned long long)offset + i, data[i] >= 32 && data[i] < 127 ? data[i] : '?');
        note(log, line);
    }
    return log->stop_at ? stopped(log) : 0;
}

static int on_end(void *ctx)
{
    note(ctx, ".\n");
    return stopped(ctx);
}

static const struct tar_sink SINK = {on_entry, on_data, on_end, NULL};

/* Feed [0, cut) and [cut, len), each in windows of that size. */
static int run(const struct archive *a, size_t cut, size_t window, struct log *log, int64_t *value, uint64_t *offset)
{
    struct tar *tar = tar_new(&SINK, log);
    size_t at = 0;
    int code = 0;

    CHECK(tar);
    while (at < a->len && !code) {
        size_t limit = at < cut ? cut : a->len, len = limit - at < window ? limit - at : window;
        uint8_t *copy = malloc(len); /* so that a sanitizer sees a read beyond the window */
        CHECK(copy);
        memcpy(copy, a->data + at, len);
        code = tar_feed(tar, copy, len);
        free(copy);
        at += len;
    }
    code = tar_finish(tar);
    CHECK(code == tar_status(tar));
    *value = tar_value(tar);
    *offset = tar_offset(tar);
    tar_free(tar);
    return code;
}

static struct log last;
static int64_t last_value;
static uint64_t last_offset;

/* The code, after all ways of cutting have agreed; the archive is dropped. */
static int read_all(struct archive *a)
{
    static struct log log;
    int64_t value;
    uint64_t offset;
    int code;

    memset(&last, 0, sizeof last);
    code = run(a, 0, a->len, &last, &last_value, &last_offset);
    for (size_t cut = 0; cut <= a->len && a->len <= 8192; cut++) {
        memset(&log, 0, sizeof log);
        CHECK(run(a, cut, cut ? a->len : 1, &log, &value, &offset) == code);
        CHECK(strcmp(log.text, last.text) == 0 && value == last_value && offset == last_offset);
    }
    drop(a);
    return code;
}

static int shows(const char *text)
{
    if (strstr(last.text, text))
        return 1;
    fprintf(stderr, "got:\n%s", last.text);
    return 0;
}

#endif
