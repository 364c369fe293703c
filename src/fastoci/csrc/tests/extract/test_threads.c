/* Threads as the program has them: one is in a native call, another looks at the facts; several hash. For ThreadSanitizer, which
 * sees what a run of this test alone cannot. */
#pragma GCC diagnostic ignored "-Wunused-function" /* not all of the sandbox is needed */
#include "support/sandbox.h"

#include "sha256/sha256.h"

enum { FILES = 200, WINDOW = 512, HASHERS = 3, PIECES = 64, PIECE = 4096 };

static struct archive archive;
static struct extract *extractor, *stager;
static int done;

static void fill(int refused)
{
    char name[32];

    drop(&archive);
    for (int number = 0; number < FILES; number++) {
        snprintf(name, sizeof name, "d%d/file%d", number % 7, number);
        put_file(&archive, name, "content");
    }
    if (refused)
        put_file(&archive, "../above", "");
}

static void *stage(void *unused)
{
    (void)unused;
    (void)feed_windows(stager, &archive, WINDOW);
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *adopt(void *unused)
{
    (void)unused;
    while (extract_adopt(extractor, stager, 5) > 0)
        ;
    (void)extract_finish(extractor);
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *feed(void *unused)
{
    (void)unused;
    (void)feed_windows(extractor, &archive, WINDOW);
    __atomic_store_n(&done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Look while the other thread works: what was seen never shrinks, and what belongs to a code is there with it. */
static void watch(const struct extract *ex, void *(*work)(void *))
{
    struct layer_facts before = {0}, now;
    pthread_t thread;
    int last;

    done = 0;
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    do {
        last = __atomic_load_n(&done, __ATOMIC_ACQUIRE);
        extract_get_facts(ex, &now);
        CHECK(now.entries >= before.entries && now.bytes >= before.bytes && now.skipped_owners >= before.skipped_owners);
        CHECK(!now.code || (now.path_len == strlen("../above") && memcmp(now.path, "../above", now.path_len) == 0));
        before = now;
    } while (!last);
    CHECK(pthread_join(thread, NULL) == 0);
    extract_get_facts(ex, &facts);
}

static void facts_are_seen_while_a_layer_is_fed(int refused)
{
    fresh();
    fill(refused);
    CHECK((extractor = extract_new(root, &options)));
    watch(extractor, feed);
    CHECK(!facts.code == !refused && facts.entries == (uint64_t)(FILES + refused) && facts.bytes == FILES * strlen("content"));
    extract_free(extractor);
}

static void facts_are_seen_while_a_layer_is_staged_and_adopted(int refused)
{
    int directory;

    fresh();
    fill(refused);
    CHECK((directory = open("stage", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
    CHECK((stager = extract_new_stager(directory, &options)) && (extractor = extract_new(root, &options)));
    watch(stager, stage);
    CHECK(!facts.code == !refused);
    watch(extractor, adopt);
    CHECK(!facts.code == !refused && facts.bytes == FILES * strlen("content"));
    extract_free(extractor);
    extract_free(stager);
    close(directory);
    empty_stage();
}

static struct sha256_tier tier;

static void *hash(void *result)
{
    static const uint8_t PIECE_OF_ZEROS[PIECE];
    struct sha256 first, second, *states[] = {&first, &second};
    const uint8_t *data[] = {PIECE_OF_ZEROS, PIECE_OF_ZEROS};
    size_t sizes[] = {PIECE, PIECE};

    sha256_init(&first);
    sha256_init(&second);
    for (int number = 0; number < PIECES; number++)
        sha256_update_many(states, data, sizes, 2, &tier);
    sha256_digest(&second, &tier, result);
    return NULL;
}

static void several_threads_hash(void)
{
    uint8_t digests[HASHERS][32];
    pthread_t threads[HASHERS];

    sha256_measure(&tier);
    for (int number = 0; number < HASHERS; number++)
        CHECK(pthread_create(&threads[number], NULL, hash, digests[number]) == 0);
    for (int number = 0; number < HASHERS; number++)
        CHECK(pthread_join(threads[number], NULL) == 0 && memcmp(digests[0], digests[number], 32) == 0);
}

static void run(void)
{
    for (int refused = 0; refused < 2; refused++) {
        facts_are_seen_while_a_layer_is_fed(refused);
        facts_are_seen_while_a_layer_is_staged_and_adopted(refused);
    }
    drop(&archive);
    several_threads_hash();
}

int main(void)
{
    CHECK(sha256_choose(&tier, NULL) == 0);
    return in_sandbox("test_threads", run);
}
