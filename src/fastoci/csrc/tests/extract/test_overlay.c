/* The extractor's overlay form: whiteouts, what is opaque, reasons, budgets, descriptors. */
#include "support/sandbox.h"

/* One layer alone; its code. */
static int alone(struct archive *a)
{
    struct extract *ex;
    int before = fds(), code;

    options.user_xattrs = geteuid() != 0;
    CHECK((ex = extract_new_overlay(root, &options)));
    code = feed_windows(ex, a, 1000);
    extract_close(ex);
    extract_get_facts(ex, &facts);
    CHECK(facts.code == code);
    extract_free(ex);
    CHECK(fds() == before);
    drop(a);
    return code;
}

/* The value of an attribute of overlay's; "-" when there is none. */
static const char *mark_of(const char *name, const char *mark)
{
    static char value[8];
    char key[64];
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t len;

    snprintf(key, sizeof key, "%s.overlay.%s", geteuid() ? "user" : "trusted", mark);
    CHECK(fd >= 0);
    len = fgetxattr(fd, key, value, sizeof value - 1);
    close(fd);
    value[len < 0 ? 0 : len] = 0;
    return len < 0 ? "-" : value;
}

static int is_opaque(const char *name)
{
    return strcmp(mark_of(name, "opaque"), "y") == 0;
}

static int is_whiteout(const char *name)
{
    struct stat st = stat_of(name);

    return S_ISCHR(st.st_mode) && st.st_rdev == 0;
}

static void whiteouts_are_devices_and_entries_win(void)
{
    for (int first = 0; first < 2; first++) {
        struct archive a = {0};

        fresh();
        dir(&a, "d/", "0000755", OLD);
        for (int step = 0; step < 2; step++)
            if (step == first) {
                put_file(&a, "d/f", "mine");
                dir(&a, "d/sub/", "0000711", OLD);
                put_header(&a, "d/l", '2', 0, "f");
            } else {
                put_file(&a, "d/.wh.f", "a body");
                put_file(&a, "d/.wh.sub", "");
                put_file(&a, "d/.wh.l", "");
                put_file(&a, "d/.wh.gone", "");
            }
        CHECK(alone(&a) == TAR_OK && facts.reasons == 0 && facts.names_root == 0);
        CHECK(is("d/f", "mine") && is_opaque("d/sub") && S_ISLNK(stat_of("d/l").st_mode) && is_whiteout("d/gone"));
        CHECK(!is_opaque("d") && strcmp(mark_of("d", "origin"), "") == 0 && strcmp(mark_of("d/sub", "origin"), "-") == 0);
        CHECK(stat_of("d").st_mtim.tv_sec == 1000 && (stat_of("d/sub").st_mode & 07777) == 0711);
    }
}

static void an_opaque_directory_has_no_whiteouts(void)
{
    struct archive a = {0};
    char name[32];

    fresh();
    dir(&a, "d/", "0000500", OLD);
    dir(&a, "d/e/", "0000500", OLD);
    for (int i = 0; i < 3000; i++) { /* more than one read of the directory */
        snprintf(name, sizeof name, "d/e/.wh.%d", i);
        put_file(&a, name, "");
    }
    put_file(&a, "d/e/f", "");
    put_file(&a, "d/.wh..wh..opq", "");
    put_file(&a, "d/.wh.late", "");
    CHECK(alone(&a) == TAR_OK && facts.reasons == 0);
    CHECK(is_opaque("d") && !is_opaque("d/e") && gone("d/late") && gone("d/e/0") && gone("d/e/2999") && is("d/e/f", ""));
    CHECK(stat_of("d/e").st_mtim.tv_sec == 1000 && (stat_of("d/e").st_mode & 07777) == 0500);
}

static void what_is_known_to_be_gone_needs_no_lower_layer(void)
{
    struct archive a = {0};

    fresh();
    dir(&a, "d/", "0000755", OLD);
    put_file(&a, "d/.wh.e", "");
    put_file(&a, "d/e/f/g", ""); /* implied in the place of a whiteout */
    put_file(&a, "d/e/x/.wh.y", "");
    CHECK(alone(&a) == TAR_OK && facts.reasons == 0 && is_opaque("d/e") && !is_opaque("d/e/f"));
    for (int i = 0; i < 3; i++) {
        fresh();
        dir(&a, "d/", "0000755", OLD);
        put_file(&a, i == 0 ? "d/.wh.e" : "d/.wh..wh..opq", "");
        put_header(&a, "h", '1', 0, i == 2 ? "d/no/e" : "d/e");
        CHECK(alone(&a) == LAYER_HARDLINK && facts.value == ENOENT && facts.reasons == 0);
    }
}

static void what_may_be_below_is_a_reason(void)
{
    static const struct {
        const char *name, *target;
        unsigned reasons;
    } CASES[] = {
        {"a/b", NULL, REASON_IMPLIED_PARENT}, {"l/b", NULL, REASON_IMPLIED_PARENT}, {"h", "lower", REASON_HARD_LINK},
        {"h", "d/lower", REASON_HARD_LINK},   {"d/f", "lower", REASON_HARD_LINK},   {"h", "no/lower", REASON_HARD_LINK},
        {"a/.wh.b", NULL, REASON_WHITEOUT},   {"a/.wh..wh..opq", NULL, REASON_WHITEOUT},
        {"loop/.wh.a", NULL, REASON_WHITEOUT}, {".wh..wh..opq", NULL, REASON_OPAQUE_ROOT},
        {"d/f/.wh.x", NULL, 0},               {"d/.wh.x", NULL, 0},                 {".wh.x", NULL, 0},
    };
    struct archive a = {0};

    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fresh();
        dir(&a, "d/", "0000755", OLD);
        put_file(&a, "d/f", "");
        put_header(&a, "l", '2', 0, "lower");
        put_header(&a, "loop", '2', 0, "loop");
        put_header(&a, CASES[i].name, CASES[i].target ? '1' : '0', 0, CASES[i].target);
        CHECK(alone(&a) == (i == 8 ? LAYER_LINKS : TAR_OK) && facts.reasons == CASES[i].reasons);
        check_outside();
    }
    for (unsigned reason = 1; reason < REASON_END; reason <<= 1)
        CHECK(layer_reason_name(reason));
    CHECK(!layer_reason_name(0) && !layer_reason_name(REASON_END) && !layer_reason_name(3));
}

static void what_lower_layers_may_have_and_no_entry_names_is_told(void)
{
    static const char *const EXPECTED[] = {"a", "a/b", "d/e", "l", "named/later"};
    struct archive a = {0};
    char path[EXTRACT_PATH];
    const void *at = NULL;
    size_t count = 0;
    struct extract *ex;

    fresh();
    put_file(&a, "a/b/c", "");
    dir(&a, "d/", "0000755", OLD);
    put_file(&a, "d/e/f", "");
    put_file(&a, "d/gone/f", "");
    put_file(&a, "d/.wh.gone", ""); /* what lower layers have of it is hidden */
    put_header(&a, "link", '2', 0, "l");
    put_file(&a, "link/f", "");
    put_file(&a, "named/f", "");
    put_file(&a, "named/later/f", "");
    dir(&a, "named/", "0000700", OLD);
    options.user_xattrs = geteuid() != 0;
    CHECK((ex = extract_new_overlay(root, &options)));
    CHECK(feed_windows(ex, &a, 1000) == TAR_OK);
    while (extract_next_implied(ex, &at, path)) {
        CHECK(count < 5 && strcmp(path, EXPECTED[count]) == 0);
        count++;
    }
    CHECK(count == 5);
    extract_free(ex);
    drop(&a);
}

static void a_device_is_never_a_whiteout_but_one_that_is_skipped(void)
{
    struct archive a = {0};
    uint8_t *h;

    fresh();
    options.privileged = 0;
    h = put_header(&a, "null", '3', 0, NULL);
    memcpy(h + 329, "0000001", 8);
    memcpy(h + 337, "0000003", 8);
    seal(h);
    CHECK(alone(&a) == TAR_OK && facts.skipped_devices == 1 && is_whiteout("null") && strcmp(mark_of(".", "origin"), "") == 0);
    put_header(&a, "forged", '3', 0, NULL);
    CHECK(alone(&a) == LAYER_DEVICE && gone("forged"));
}

/* A pax record of a prefix, 400 levels of "d/" or fewer, and a name. */
static void put_deep(struct archive *a, const char *prefix, int levels, const char *name)
{
    char text[1000];

    strcpy(text, prefix);
    for (int i = 0; i < levels; i++)
        strcat(text, "d/");
    strcat(text, name);
    put_keys(a, text, NULL);
}

/* Whether lower layers show is looked up all the way to the root, for every whiteout: that is work, and it is counted. */
static void the_way_up_is_counted(void)
{
    struct archive a = {0};
    char name[32];

    for (int bounded = is_short(); bounded < 2; bounded++) {
        fresh();
        options.max_work = bounded ? 100000 : 1 << 24;
        for (int i = 1; i <= 800; i++) {
            put_deep(&a, i <= 400 ? "path=" : "path=l/", i <= 400 ? i : i - 400, "");
            put_header(&a, "x", '5', 0, NULL);
            if (i == 400) {
                put_deep(&a, "linkpath=", 400, "");
                put_header(&a, "l", '2', 0, "x");
            }
        }
        for (int i = 0; i < 1000; i++) {
            snprintf(name, sizeof name, ".wh.%d", i);
            put_deep(&a, "path=l/", 400, name);
            put_header(&a, "x", '0', 0, NULL);
        }
        CHECK(alone(&a) == (bounded ? LAYER_WORK : TAR_OK) && facts.reasons == 0);
    }
}

static void run(void)
{
    if (staged) /* a layer alone is not staged */
        return;
    whiteouts_are_devices_and_entries_win();
    an_opaque_directory_has_no_whiteouts();
    what_is_known_to_be_gone_needs_no_lower_layer();
    what_may_be_below_is_a_reason();
    what_lower_layers_may_have_and_no_entry_names_is_told();
    a_device_is_never_a_whiteout_but_one_that_is_skipped();
    the_way_up_is_counted();
    fresh();
}

int main(void)
{
    return in_sandbox("test_overlay", run);
}
