/* A libFuzzer target: what is kept of a tar is the same however it is cut into windows, and accounts for each of its bytes. */
#include "fuzz/input.h"

#include "support/check.h"
#include "tarsplit/tarsplit.h"

struct result {
    uint64_t sum, accounted;
    int64_t uid, gid;
    int code, is_exact;
};

/* The number behind a key of a line, or of characters of the text there. */
static uint64_t number_of(const char *line, const char *key)
{
    const char *at = strstr(line, key);

    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static size_t text_of(const char *line, const char *key, const char **text)
{
    const char *at = strstr(line, key);

    *text = at ? at + strlen(key) : NULL;
    return at ? strcspn(*text, "\"") : 0;
}

/* Bytes of the tar that one line stands for. A name has no quote that is not behind a backslash, so no key of ours. */
static uint64_t bytes_of(const char *line)
{
    const char *text;
    size_t len;

    if (strncmp(line, "{\"type\":2,", 10))
        return number_of(line, "\"size\":");
    len = text_of(line, "\"payload\":\"", &text);
    DEMAND(len % 4 == 0);
    return len / 4 * 3 - (len && text[len - 1] == '=') - (len && text[len - 2] == '=');
}

static void take(struct tarsplit *split, struct result *result)
{
    struct tar_bytes lines = tarsplit_lines(split);
    char *copy = calloc(1, lines.len + 1);

    DEMAND(copy && !memchr(lines.data ? lines.data : (const uint8_t *)"", 0, lines.len));
    if (lines.len)
        memcpy(copy, lines.data, lines.len);
    result->sum = mix(result->sum, copy, lines.len);
    for (char *at = copy, *end; *at; at = end + 1) {
        DEMAND((end = strchr(at, '\n')) != NULL && *at == '{' && end[-1] == '}');
        *end = 0;
        result->accounted += bytes_of(at);
    }
    free(copy);
    tarsplit_taken(split);
}

/* state: of the windows; NULL: all in one. */
static struct result read_windows(const uint8_t *data, size_t len, uint64_t *state)
{
    struct result result = {0};
    struct tarsplit *split = tarsplit_new();

    DEMAND(split);
    for (size_t at = 0, size; at < len && !result.code; at += size) {
        uint8_t *piece = next_piece(data + at, len - at, state, &size);
        result.code = tarsplit_feed(split, piece, size);
        memset(piece, 0xDB, size); /* nothing may point there any more */
        if (!result.code)
            take(split, &result);
    }
    result.code = tarsplit_finish(split);
    if (!result.code)
        take(split, &result);
    result.is_exact = tarsplit_is_exact(split);
    tarsplit_owners(split, &result.uid, &result.gid);
    tarsplit_free(split);
    return result;
}

static void compare(const struct result *whole, const struct result *cut, size_t len)
{
    DEMAND(whole->code == cut->code);
    if (whole->code)
        return;
    DEMAND(whole->sum == cut->sum && whole->is_exact == cut->is_exact && whole->uid == cut->uid && whole->gid == cut->gid);
    DEMAND(whole->accounted == len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint64_t state = mix(len, data, len);

    if (len <= GUARDED_MAX) {
        struct result whole = read_windows(data, len, NULL), cut = read_windows(data, len, &state);
        compare(&whole, &cut, len);
    }
    return 0;
}

TAR_MUTATOR
