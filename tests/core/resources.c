/* resources.c: every resource fails, at every point of every operation.
 *
 * What: "nth": of one operation and one kind of call, the first call fails, then the second, ... until none is left
 *       to fail; once that call alone, once that and all after it.  "full": the file system fills up, for real, at
 *       the first crash point of an operation, then at the second, ...  Each time: an error that names the reason or
 *       success, the store as it was or as it was to be, check() without a word, and the same operation done right
 *       after that.
 * How:  a region of a known content for each try; see failures.h for how calls fail.  A file that takes all that is
 *       free fills the file system (which has to be small and one's own; tests/campaigns/resources.py mounts it).
 *
 * Concurrency: one thread; for waiting, one more process.
 */
#include "util.h"

#include "failures.h"
#include "import.h"
#include "lock.h"

#define SIZE     (32 * MIB)
#define ITEMS    600u           /* ids 0 to 599 are there                                       */
#define LONG_IDS 100000u        /* ids from here on have long values                            */
#define BATCH    3000u

static box b;
static uint64_t tries, failed_calls;

/* ---- A region of known content --------------------------------------------------------------- */

static size_t length_of(uint64_t id)
{
    return id >= LONG_IDS ? 300000 : VALUE_HEAD + id % 200;
}

static void fill_region(void)
{
    make_box(&b, SIZE, 0);
    for (uint64_t id = 0; id < ITEMS; id++)
        REQUIRE_OK(put_value(b.store, id, 1, length_of(id), id % 50 == 7 ? skv_now_ms(b.store) + 1000000 : 0));
}

/* Every item of `from` to `to` is there with that counter, or missing if it is 0. */
static void expect(uint64_t from, uint64_t to, uint64_t counter)
{
    found f = {0};
    for (uint64_t id = from; id < to; id++)
        REQUIRE(counter_of(b.store, id, &f) == counter, "key %" PRIu64 " has not the counter %" PRIu64, id, counter);
    free(f.value);
}

/* ---- Operations: each does something to a filled region, and says what must be then ---------- */

typedef struct operation {
    const char *name;
    skv_status (*run)(void);
    void (*expect)(bool done);
} operation;

/* The batch's keys and values, made before anything is armed. */
static struct {
    skv_item items[BATCH];
    key_text texts[BATCH];
    uint8_t  values[BATCH][64];
} many;

static skv_wait waits(void) { return patient(); }

static void make_many(uint64_t from, uint32_t count, uint64_t counter)
{
    for (uint32_t i = 0; i < count; i++) {
        make_value(many.values[i], from + i, counter, sizeof many.values[i]);
        many.items[i] = (skv_item){.key = key_for(b.store, from + i, &many.texts[i]), .value = many.values[i],
                                   .value_len = sizeof many.values[i], .type = SKV_T_BYTES};
    }
}

/* BUSY means: call again. */
#define REPEAT(call)                                                                             \
    do {                                                                                         \
        skv_status status_;                                                                      \
        do                                                                                       \
            status_ = (call);                                                                    \
        while (status_ == SKV_BUSY);                                                             \
        return status_;                                                                          \
    } while (0)

static skv_status put_one(uint64_t id, uint64_t counter, size_t len, uint64_t expires_ms)
{
    static uint8_t value[300000];
    static key_text text;
    make_value(value, id, counter, len);
    skv_item item = {.key = key_for(b.store, id, &text), .value = value, .value_len = len, .type = SKV_T_BYTES,
                     .expires_ms = expires_ms};
    skv_wait wait = waits();
    REPEAT(skv_put(b.store, &item, SKV_PUT_ANY, 0, &wait));
}

static skv_status run_put(void) { return put_one(ITEMS, 1, 40, 0); }
static skv_status run_put_long(void) { return put_one(LONG_IDS, 1, 300000, 0); }
static skv_status run_put_ttl(void) { return put_one(ITEMS, 1, 40, skv_now_ms(b.store) + 1000000); }
static skv_status run_overwrite(void) { return put_one(5, 2, 5000, 0); }

static void expect_put(bool done)
{
    expect(0, ITEMS, 1);
    expect(ITEMS, ITEMS + 1, done);
}

static void expect_put_long(bool done)
{
    expect(0, ITEMS, 1);
    expect(LONG_IDS, LONG_IDS + 1, done);
}

static void expect_overwrite(bool done)
{
    expect(0, 5, 1);
    expect(5, 6, done ? 2 : 1);
    expect(6, ITEMS, 1);
}

/* More than the first megabyte: the region has to grow in the middle. */
static skv_status run_growth(void)
{
    for (uint64_t id = LONG_IDS; id < LONG_IDS + 10; id++) {
        skv_status status = put_one(id, 1, 300000, 0);
        if (status)
            return status;
    }
    return SKV_OK;
}

static void expect_growth(bool done)
{
    found f = {0};
    bool before = true;
    for (uint64_t id = LONG_IDS; id < LONG_IDS + 10; id++) {
        bool there = counter_of(b.store, id, &f) == 1;
        REQUIRE(before || !there, "key %" PRIu64 " is there, one before it is not", id);
        REQUIRE(there || !done, "key %" PRIu64 " is missing", id);
        before = there;
    }
    free(f.value);
    expect(0, ITEMS, 1);
}

static skv_status run_incr(void)
{
    static key_text text;
    skv_key key = key_for(b.store, ITEMS, &text);
    skv_wait wait = waits();
    int64_t result;
    REPEAT(skv_incr(b.store, &key, 3, 3, 0, &result, &wait));
}

static void expect_incr(bool done)
{
    found f = {0};
    expect(0, ITEMS, 1);
    REQUIRE(get_id(b.store, ITEMS, &f) == done, "the number is there or not");
    free(f.value);
}

static skv_status run_touch(void)
{
    static key_text text;
    skv_key key = key_for(b.store, 3, &text);
    skv_wait wait = waits();
    REPEAT(skv_touch(b.store, &key, skv_now_ms(b.store) + 1000000, NULL, &wait));
}

static void expect_same(bool done)
{
    (void)done;
    expect(0, ITEMS, 1);
}

static skv_status run_delete(void)
{
    static key_text text;
    skv_key key = key_for(b.store, ITEMS - 1, &text);
    skv_wait wait = waits();
    REPEAT(skv_delete(b.store, &key, 0, &wait));
}

static void expect_delete(bool done)
{
    expect(0, ITEMS - 1, 1);
    expect(ITEMS - 1, ITEMS, !done);
}

static skv_status run_put_many(void)
{
    skv_wait wait = waits();
    make_many(ITEMS / 2, BATCH, 2);
    REPEAT(skv_put_many(b.store, many.items, BATCH, &wait));
}

static void expect_put_many(bool done)
{
    expect(0, ITEMS / 2, 1);
    expect(ITEMS / 2, ITEMS, done ? 2 : 1);
    expect(ITEMS, ITEMS / 2 + BATCH, done ? 2 : 0);
}

static skv_status run_put_each(void)
{
    static skv_item *list[50];
    uint32_t done;
    skv_wait wait = waits();
    make_many(0, COUNT(list), 2);
    for (uint32_t i = 0; i < COUNT(list); i++)
        list[i] = &many.items[i];
    for (uint32_t from = 0;; from += done) {
        skv_status status = skv_put_each(b.store, list + from, (uint32_t)COUNT(list) - from, &wait, &done);
        if (status != SKV_BUSY)
            return status;
    }
}

/* Each of its own: the first ones are put. */
static void expect_put_each(bool done)
{
    found f = {0};
    bool before = true;
    for (uint64_t id = 0; id < 50; id++) {
        uint64_t counter = counter_of(b.store, id, &f);
        REQUIRE(counter == 1 || (counter == 2 && before), "key %" PRIu64 " has the counter %" PRIu64, id, counter);
        REQUIRE(counter == 2 || !done, "key %" PRIu64 " was not put", id);
        before = counter == 2;
    }
    free(f.value);
    expect(50, ITEMS, 1);
}

static skv_status run_delete_many(void)
{
    skv_wait wait = waits();
    uint32_t removed;
    make_many(100, 300, 1);
    REPEAT(skv_delete_many(b.store, many.items, 300, &removed, &wait));
}

static void expect_delete_many(bool done)
{
    expect(0, 100, 1);
    expect(100, 400, !done);
    expect(400, ITEMS, 1);
}

static skv_status run_clear(void)
{
    skv_wait wait = waits();
    REPEAT(skv_clear(b.store, &wait));
}

static void expect_clear(bool done) { expect(0, ITEMS, !done); }

static skv_status run_scan(void)
{
    skv_copies copies = {0};
    uint64_t items = 0;
    skv_status status = SKV_OK;
    for (uint64_t i = 0; i < skv_bucket_count(b.store) && status == SKV_OK; i++) {
        status = skv_copy_bucket(b.store, i, true, NULL, NULL, &copies);
        items += status == SKV_OK ? copies.count : 0;
    }
    skv_free_items(&copies);
    REQUIRE(status || items == ITEMS, "%" PRIu64 " items were copied", items);
    return status;
}

static skv_status run_stats(void)
{
    skv_stats stats;
    skv_status status = skv_get_stats(b.store, &stats);
    REQUIRE(status || stats.items == ITEMS, "%" PRIu64 " items were counted", stats.items);
    return status;
}

static skv_status run_compact(void)
{
    skv_compact_report report;
    skv_wait wait = waits();
    skv_status status;
    do
        status = skv_compact(b.store, &report, &wait);
    while (status == SKV_BUSY);
    if (status)
        return status;
    REPEAT(skv_return_memory(b.store, &wait));
}

/* What compact() gave back is committed anew. */
static skv_status run_regrowth(void)
{
    skv_status status = run_compact();
    return status ? status : run_growth();
}

static skv_status run_check(void)
{
    skv_check_result result;
    REQUIRE(skv_check(b.store, print_problem, NULL, &result) == 0, "check found problems");
    return SKV_OK;
}

static skv_status run_sweep(void)
{
    skv_wait wait = waits();
    REPEAT(skv_sweep_expired(b.store, UINT64_MAX, NULL, &wait));
}

static skv_status run_reclaim(void) { return skv_reclaim_dead(b.store, NULL); }

static skv_status run_freeze(void)
{
    static key_text text;
    skv_key key = key_for(b.store, 3, &text);
    skv_thaw(b.store, skv_freeze(b.store, &key, 1));
    return SKV_OK;
}

static skv_status run_import(void)
{
    static char lines[80 * 200];
    static size_t len;
    skv_load_result out;
    skv_wait wait = waits();
    for (int i = len ? 200 : 0; i < 200; i++)
        len += (size_t)snprintf(lines + len, sizeof lines - len, "line:%d\ta\\tvalue of %d\n", i, i);
    uint64_t stored = 0, consumed = 0;
    skv_status status;
    do {
        status = skv_load_tsv(b.store, (const uint8_t *)lines + consumed, len - consumed, 0, 1, 0, &wait, &out);
        stored += out.stored;
        consumed += out.consumed;
    } while (status == SKV_BUSY);
    REQUIRE(status || stored == 200, "%" PRIu64 " lines were stored", stored);
    return status;
}

static skv_status run_reattach(void)
{
    detach_box(&b);
    skv_status status = skv_region_attach(b.fd, false, &b.region);
    b.store = status ? NULL : skv_region_store(b.region);
    return status;
}

static skv_status run_attach_read_only(void)
{
    skv_region *other;
    skv_status status = skv_region_attach(b.fd, true, &other);
    if (status == SKV_OK)
        skv_region_detach(other);
    return status;
}

static skv_status run_peek(void)
{
    skv_fixed fixed;
    return skv_region_peek(b.fd, 100, &fixed);
}

/* Another store: nothing of it stays when that fails. */
static skv_status run_create(void)
{
    box other;
    bool created;
    enum failing kind = countdown.kind;
    countdown.kind = FAIL_NOTHING;
    skv_params p = params_for(SIZE, 0);
    open_object(&other);
    countdown.kind = kind;
    skv_status status = skv_region_create(other.fd, &p, false, &created);
    countdown.kind = FAIL_NOTHING;
    if (status == SKV_OK) {
        REQUIRE_OK(skv_region_attach(other.fd, false, &other.region));
        skv_region_detach(other.region);
    } else {
        struct stat st;
        REQUIRE(fstat(other.fd, &st) == 0, "fstat");
        REQUIRE(kind == FAIL_FTRUNCATE || st.st_blocks == 0, "%ld blocks stay allocated", (long)st.st_blocks);
    }
    countdown.kind = kind;
    shm_unlink(other.name);
    close(other.fd);
    return status;
}

static void hold_bucket(void *context)
{
    int *ready = context;
    key_text text;
    attach_box(&b, false);
    skv_key key = key_for(b.store, ITEMS, &text);
    skv_bucket *bucket = skv_bucket_of(b.store, key.hash);
    REQUIRE(skv_trylock(b.store, &bucket->lock), "the bucket is free");
    __atomic_store_n(ready, 1, __ATOMIC_RELEASE);
    usleep(50000);
    skv_unlock(b.store, &bucket->lock);
    _exit(0);
}

/* Behind a process that is in no hurry. */
static skv_status run_wait(void)
{
    enum failing kind = countdown.kind;
    countdown.kind = FAIL_NOTHING;
    int *ready = share(sizeof *ready);
    box mine = b;
    pid_t child = start_child(hold_bucket, ready, 20);
    b = mine;
    while (!__atomic_load_n(ready, __ATOMIC_ACQUIRE))
        usleep(100);
    countdown.kind = kind;
    skv_status status = run_put();
    countdown.kind = FAIL_NOTHING;
    finish_child(child);
    munmap(ready, sizeof *ready);
    countdown.kind = kind;
    return status;
}

static const operation operations[] = {
    {"create", run_create, expect_same},
    {"peek", run_peek, expect_same},
    {"attach", run_reattach, expect_same},
    {"attach_read_only", run_attach_read_only, expect_same},
    {"put", run_put, expect_put},
    {"put_ttl", run_put_ttl, expect_put},
    {"put_long", run_put_long, expect_put_long},
    {"overwrite", run_overwrite, expect_overwrite},
    {"growth", run_growth, expect_growth},
    {"incr", run_incr, expect_incr},
    {"touch", run_touch, expect_same},
    {"delete", run_delete, expect_delete},
    {"put_many", run_put_many, expect_put_many},
    {"put_each", run_put_each, expect_put_each},
    {"delete_many", run_delete_many, expect_delete_many},
    {"clear", run_clear, expect_clear},
    {"scan", run_scan, expect_same},
    {"stats", run_stats, expect_same},
    {"compact", run_compact, expect_same},
    {"regrowth", run_regrowth, expect_growth},
    {"check", run_check, expect_same},
    {"sweep", run_sweep, expect_same},
    {"reclaim", run_reclaim, expect_same},
    {"freeze", run_freeze, expect_same},
    {"import", run_import, expect_same},
    {"wait", run_wait, expect_put},
};

/* ---- One try --------------------------------------------------------------------------------- */

static bool is_right_error(enum failing kind, skv_status status)
{
    switch (kind) {
    case FAIL_MALLOC:
        return status == SKV_NO_MEMORY;
    case FAIL_FALLOCATE:
    case FAIL_FTRUNCATE:
        return status == SKV_NO_SPACE;
    case FAIL_MADVISE:          /* page by page for memory, or that a page may not be inherited  */
        return status == SKV_NO_SPACE || status == SKV_OS_ERROR;
    default:
        return status == SKV_OS_ERROR;
    }
}

/* After a failed operation: nothing is broken, and it can be done now. */
static void recover(const operation *op, bool reattach)
{
    if (!b.store)
        attach_box(&b, false);
    op->expect(false);
    require_clean(b.store);
    if (reattach) {
        detach_box(&b);
        attach_box(&b, false);
    }
    REQUIRE_OK(op->run());
    op->expect(true);
    REQUIRE_OK(put_value(b.store, 1, 9, 100, 0));
    require_clean(b.store);
}

static void finish(const operation *op, skv_status status)
{
    if (status) {
        recover(op, false);
    } else {
        op->expect(true);
        require_clean(b.store);
    }
    remove_box(&b);
}

/* False: there was no n-th call. */
static bool fail_nth(const operation *op, enum failing kind, uint32_t nth, bool for_good)
{
    fill_region();
    arm(kind, nth, for_good);
    skv_status status = op->run();
    uint32_t fired = disarm();
    tries++;
    failed_calls += fired;
    REQUIRE(status == SKV_OK || fired, "%s failed with status %d, but nothing was made to fail", op->name, (int)status);
    REQUIRE(status == SKV_OK || is_right_error(kind, status), "%s says %d where %s number %u fails%s", op->name,
            (int)status, failing_names[kind], nth, for_good ? ", and all after it" : "");
    finish(op, status);
    return fired != 0;
}

static void fail_everything(const operation *op)
{
    for (enum failing kind = FAIL_MALLOC; kind < FAILINGS; kind++)
        for (int for_good = 0; for_good <= 1; for_good++) {
            uint32_t nth = 1;
            while (fail_nth(op, kind, nth, for_good))
                REQUIRE(++nth < 5000, "%s calls %s for ever", op->name, failing_names[kind]);
        }
}

/* ---- The file system fills up ---------------------------------------------------------------- */

#define HOG "/dev/shm/hog"

static uint32_t steps_left;
static bool is_full;

/* All that is free, down to the last page. */
static void fill_file_system(void)
{
    int fd = open(HOG, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0, "%s: %s", HOG, strerror(errno));
    off_t at = 0;
    for (off_t step = 8 << 20; step >= 4096;)
        if (fallocate(fd, 0, at, step) == 0)
            at += step;
        else
            step /= 2;
    close(fd);
    is_full = true;
}

static void maybe_fill(const char *name)
{
    (void)name;
    if (!is_full && --steps_left == 0)
        fill_file_system();
}

static bool fill_at(const operation *op, uint32_t nth)
{
    fill_region();
    steps_left = nth;
    is_full = false;
    if (nth == 0)
        fill_file_system();
    else
        skv_crash_hook = maybe_fill;
    skv_status status = op->run();
    skv_crash_hook = NULL;
    tries++;
    REQUIRE(status == SKV_OK || (is_full && status == SKV_NO_SPACE), "%s says %d in a full file system", op->name,
            (int)status);
    failed_calls += status != SKV_OK;
    if (status && !b.store)
        REQUIRE(op->run == run_reattach, "the region is still there");
    if (status && b.store) {        /* still full: what is there is there                        */
        op->expect(false);
        require_clean(b.store);
    }
    unlink(HOG);
    finish(op, status);
    return is_full;
}

static void fill_everywhere(const operation *op, uint32_t stride)
{
    /* Beyond a few hundred steps an operation repeats itself. */
    for (uint32_t nth = 0; nth < 400 && fill_at(op, nth); nth += nth < 20 ? 1 : stride)
        continue;
}

/* ---- All of it ------------------------------------------------------------------------------- */

/* resources nth|full STRIDE [OPERATION...] */
int main(int argc, char **argv)
{
    REQUIRE(argc >= 3, "resources nth|full STRIDE [OPERATION...]");
    const bool full = strcmp(argv[1], "full") == 0;
    alarm(1200);
    for (size_t i = 0; i < COUNT(operations); i++) {
        bool chosen = argc == 3;
        for (int word = 3; word < argc; word++)
            chosen = chosen || strcmp(argv[word], operations[i].name) == 0;
        if (!chosen)
            continue;
        now_testing = operations[i].name;
        double start = now_s();
        uint64_t before = tries;
        if (full)
            fill_everywhere(&operations[i], (uint32_t)strtoul(argv[2], NULL, 10));
        else
            fail_everything(&operations[i]);
        printf("ok %s: %" PRIu64 " tries (%.2f s)\n", operations[i].name, tries - before, now_s() - start);
        fflush(stdout);
    }
    printf("tries=%" PRIu64 " failed=%" PRIu64 "\n", tries, failed_calls);
    return 0;
}
