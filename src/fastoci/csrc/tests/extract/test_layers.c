/* The extractor on several layers: links of lower layers, whiteouts, times and modes of directories. */
#include "support/sandbox.h"

static void links_on_the_way_stay_inside(void)
{
    struct archive a = {0};

    fresh();
    dir(&a, "usr/bin/", "0000755", OLD);
    put_header(&a, "bin", '2', 0, "usr/bin");
    put_header(&a, "abs", '2', 0, "/usr");
    put_header(&a, "up", '2', 0, "../../../../..");
    put_header(&a, "usr/back", '2', 0, "../abs/bin/.");
    CHECK(layer(&a) == TAR_OK);
    put_file(&a, "bin/a", "a");
    put_file(&a, "abs/bin/b", "b");
    put_file(&a, "up/outside", "inside");
    put_file(&a, "usr/back/c", "c");
    put_header(&a, "hard", '1', 0, "abs/back/c");
    put_file(&a, "bin/.wh.a", "");
    CHECK(layer(&a) == TAR_OK);
    CHECK(is("usr/bin/a", "a") && is("usr/bin/b", "b") && is("outside", "inside") && is("hard", "c")); /* a is this layer's */
    check_outside();
    put_file(&a, "abs/bin/.wh.a", "");
    CHECK(layer(&a) == TAR_OK && gone("usr/bin/a"));
    put_header(&a, "loop1", '2', 0, "loop2");
    put_header(&a, "loop2", '2', 0, "loop1");
    put_file(&a, "loop1/x", "");
    CHECK(layer(&a) == LAYER_LINKS);
}

static void whiteouts_hide_lower_layers_in_any_order(void)
{
    struct archive a = {0};

    for (int opaque = 0; opaque < 2; opaque++)
        for (int first = 0; first < 2; first++) {
            const char *marker = opaque ? "d/.wh..wh..opq" : ".wh.d";
            fresh();
            dir(&a, "d/", "0000700", OLD);
            put_file(&a, "d/low", "");
            dir(&a, "d/sub/", "0000700", OLD);
            put_file(&a, "d/sub/low", "");
            put_file(&a, "d/sub/deep/low", "");
            dir(&a, "d/named/", "0000700", OLD);
            put_file(&a, "d/named/low", "");
            put_file(&a, "d/both", "low");
            CHECK(layer(&a) == TAR_OK);
            if (first)
                put_file(&a, marker, "");
            put_file(&a, "d/sub/new", "new");
            put_file(&a, "d/both", "new");
            dir(&a, "d/named/", "0000711", OLD);
            if (!first)
                put_file(&a, marker, "");
            CHECK(layer(&a) == TAR_OK);
            CHECK(gone("d/low") && gone("d/sub/low") && gone("d/sub/deep") && gone("d/named/low"));
            CHECK(is("d/sub/new", "new") && is("d/both", "new") && stat_of("d/named").st_mode == (S_IFDIR | 0711));
            CHECK(stat_of("d/sub").st_mode == (S_IFDIR | 0755)); /* the hidden one's 0700 is gone with it */
            CHECK(stat_of("d").st_mode == (S_IFDIR | (opaque ? 0700 : 0755)));
            CHECK(gone("d/.wh..wh..opq") && gone(".wh.d"));
        }
}

static void whiteouts_of_nothing_and_odd_ones(void)
{
    static const char *const REFUSED[] = {".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh...", ".wh.d/x", "d/.wh.x/y/z"};
    struct archive a = {0};

    for (int base = 0; base < 2; base++)
        for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
            fresh();
            options.base = base;
            put_file(&a, REFUSED[i], "");
            CHECK(layer(&a) == LAYER_WHITEOUT && strcmp(fault, REFUSED[i]) == 0);
        }
    fresh();
    put_file(&a, "d/keep", "k");
    put_file(&a, ".wh.d", "");
    CHECK(layer(&a) == TAR_OK && is("d/keep", "k"));
    put_file(&a, ".wh.missing", "with a body");
    put_file(&a, "no/dir/.wh.x", "");
    put_file(&a, "no/.wh..wh..opq", "");
    put_file(&a, "d/keep/.wh.x", "");
    put_file(&a, ".wh..wh.aufs", "");
    put_file(&a, ".wh..wh.plnk/1.2", "x");
    put_header(&a, "..wh.fine", '2', 0, "x");
    CHECK(layer(&a) == TAR_OK);
    CHECK(is("d/keep", "k") && gone("no") && gone(".wh..wh.aufs") && gone(".wh..wh.plnk") && !gone("..wh.fine"));
    put_header(&a, "d/link", '2', 0, "../.wh.made");
    put_file(&a, "d/link/x", "");
    CHECK(layer(&a) == LAYER_WHITEOUT && gone(".wh.made"));
}

static void times_of_directories(void)
{
    struct archive a = {0};

    fresh();
    dir(&a, "named/", "0000755", OLD);
    dir(&a, "touched/", "0000755", OLD);
    put_file(&a, "touched/x", "");
    dir(&a, "hidden/", "0000755", OLD);
    put_file(&a, "hidden/x", "");
    put_file(&a, "named/x", "");
    CHECK(layer(&a) == TAR_OK && stat_of("named").st_mtim.tv_sec == 1000 && stat_of("touched").st_mtim.tv_sec == 1000);
    put_file(&a, "touched/y", "");
    put_file(&a, "hidden/.wh.x", "");
    dir(&a, "named/", "0000755", "00000003720"); /* 2000 */
    put_file(&a, "named/y", "");
    CHECK(layer(&a) == TAR_OK && gone("hidden/x"));
    CHECK(stat_of("touched").st_mtim.tv_sec == 1000 && stat_of("hidden").st_mtim.tv_sec == 1000);
    CHECK(stat_of("named").st_mtim.tv_sec == 2000 && !gone("named/x"));
}

static void directories_without_permission_can_be_filled_and_removed(void)
{
    struct archive a = {0};

    fresh();
    dir(&a, "ro/", "0000555", OLD);
    put_file(&a, "ro/x", "x");
    dir(&a, "ro/none/", "0000000", OLD);
    put_file(&a, "ro/none/y", "y");
    CHECK(layer(&a) == TAR_OK && (stat_of("ro").st_mode & 07777) == 0555);
    put_file(&a, "ro/z", "z");
    put_file(&a, "ro/none/w", "w");
    CHECK(layer(&a) == TAR_OK && (stat_of("ro").st_mode & 07777) == 0555 && is("ro/z", "z") && stat_of("ro").st_mtim.tv_sec == 1000);
    CHECK((stat_of("ro/none").st_mode & 07777) == 0);
    put_file(&a, ".wh.ro", "");
    CHECK(layer(&a) == TAR_OK && gone("ro"));
}

static void a_root_without_permission_takes_another_layer(void)
{
    struct archive a = {0};

    fresh();
    dir(&a, "./", "0000311", OLD);
    put_file(&a, "x", "x");
    CHECK(layer(&a) == TAR_OK && (stat_of(".").st_mode & 07777) == 0311);
    put_file(&a, "y", "y");
    put_file(&a, ".wh.x", "");
    put_file(&a, ".wh..wh..opq", "");
    CHECK(layer(&a) == TAR_OK && (stat_of(".").st_mode & 07777) == 0311 && stat_of(".").st_mtim.tv_sec == 1000);
    CHECK(gone("x") && is("y", "y"));
}

static void run(void)
{
    links_on_the_way_stay_inside();
    whiteouts_hide_lower_layers_in_any_order();
    whiteouts_of_nothing_and_odd_ones();
    times_of_directories();
    directories_without_permission_can_be_filled_and_removed();
    a_root_without_permission_takes_another_layer();
    fresh();
}

int main(void)
{
    return in_sandbox("test_layers", run);
}
