/* test_durable_evict.c: a durable store that evicts: what goes is gone on the disk as well, whoever is killed when.
 *
 * How: what is on the disk is read into a store that has room for all of it.  While nobody dies it is what is in memory.
 *      An eviction that was cut short between its frame and its removal leaves an item in memory that the disk has lost,
 *      and nothing else: never one on the disk that memory lacks, and never another value.
 */
#include "durable.h"

#define IDS        2000u
#define LEN        3000u        /* some 600 of them fill the store                              */
#define STOPPED_MS 400u         /* lock_timeout behind a stopped process                        */

static found f;
static uint64_t seed = 1;

typedef struct shot { uint32_t counter[IDS]; } shot;

static shot look(skv *store)
{
    shot s = {0};
    for (uint64_t id = 0; id < IDS; id++)
        s.counter[id] = (uint32_t)counter_of(store, id, &f);
    return s;
}

static shot on_disk(void)
{
    box c;
    skv_restored out;
    make_box(&c, 4 * SIZE, 0);
    fill_from_disk(&c, &out);
    shot s = look(c.store);
    remove_box(&c);
    return s;
}

static uint64_t evicted(skv *store)
{
    skv_stats stats;
    REQUIRE_OK(skv_get_stats(store, &stats));
    return stats.counters[SKV_EVICTED];
}

static uint64_t filled;         /* ids below it were put                                        */

static void setup(void)
{
    flags = SKV_FLAG_DURABLE | SKV_FLAG_EVICT;
    need_folder();
    open_store();
    for (filled = 0; evicted(b.store) < 40; filled++)
        REQUIRE_OK(put_value(b.store, filled, filled + 1, LEN, 0));
    REQUIRE_OK(skv_journal_sync(b.store, 0));
}

static void teardown(void)
{
    remove_box(&b);
    empty_folder();
}

/* ---- Deeds: each has to evict ------------------------------------------------------------------------ */

static skv_status put_some(void)
{
    skv_status status = SKV_OK;
    for (uint64_t id = filled, before = evicted(b.store); status == SKV_OK && evicted(b.store) == before; id++)
        status = put_value(b.store, id, 7, LEN, 0);
    return status;
}

/* A value larger than a page needs a run of pages. */
static skv_status put_long(void) { return put_value(b.store, filled, 7, 70000, 0); }

enum { BATCH = 12 };

static skv_status put_batch(void)
{
    static uint8_t values[BATCH][LEN];
    key_text texts[BATCH];
    skv_item items[BATCH];
    for (uint64_t i = 0; i < BATCH; i++) {
        make_value(values[i], filled + i, 9, LEN);
        items[i] = (skv_item){.key = key_for(b.store, filled + i, &texts[i]), .value = values[i], .value_len = LEN, .type = SKV_T_BYTES};
    }
    skv_status status;
    INSIST(status, wait, skv_put_many(b.store, items, BATCH, &wait));
    return status;
}

typedef struct deed {
    const char *name;
    skv_status (*run)(void);
} deed;

static const deed deeds[] = {{"put_some", put_some}, {"put_long", put_long}, {"put_batch", put_batch}};

/* At the points that evicting and appending pass; the others are test_crash's and test_durable's. */
static bool is_of_an_eviction(const char *point)
{
    return strncmp(point, "evict.", 6) == 0 || strncmp(point, "journal.", 8) == 0 || strncmp(point, "wal.", 4) == 0;
}

static void note(const char *point)
{
    if (is_of_an_eviction(point))
        note_point(point);
}

static void die(const char *point)
{
    if (is_of_an_eviction(point))
        die_there(point);
}

static void run_noting(void *context)
{
    skv_crash_hook = note;
    REQUIRE_OK(((const deed *)context)->run());
}

static void run_dying(void *context)
{
    points = 0;
    skv_crash_hook = die;
    ((const deed *)context)->run();
}

/* ---- Deaths ------------------------------------------------------------------------------------------- */

/* How many items memory has that the disk has lost. */
static uint64_t lost_on_disk(const shot *kept, const shot *disk, const char *name, const char *point)
{
    uint64_t lost = 0;
    for (uint64_t id = 0; id < IDS; id++) {
        REQUIRE(disk->counter[id] == kept->counter[id] || disk->counter[id] == 0, "%s, killed at %s: key %" PRIu64 " is %u on the disk and %u in memory",
                name, point, id, disk->counter[id], kept->counter[id]);
        lost += disk->counter[id] != kept->counter[id];
    }
    return lost;
}

static void require_it_goes_on(const deed *d, const char *point)
{
    for (uint64_t id = 1500; id < 1540; id++)
        REQUIRE_OK(put_value(b.store, id, 3, LEN, 0));
    shot kept = look(b.store), disk = on_disk();
    lost_on_disk(&kept, &disk, d->name, point);
    REQUIRE(kept.counter[1539] == 3, "%s, killed at %s: the newest value was evicted", d->name, point);
    require_clean(b.store);
}

static uint64_t die_and_look(const deed *d, uint32_t point)
{
    setup();
    die_at = point + 1;
    if (WIFSIGNALED(wait_child(start_child(run_dying, (void *)(uintptr_t)d, 20))))
        note_killed(seen->name[point]);
    shot before = on_disk();
    uint32_t slots;
    REQUIRE_OK(skv_reclaim_dead(b.store, &slots));
    shot kept = look(b.store), disk = on_disk();
    REQUIRE(memcmp(&before, &disk, sizeof disk) == 0, "%s, killed at %s: the disk has changed by the repair", d->name, seen->name[point]);
    uint64_t lost = lost_on_disk(&kept, &disk, d->name, seen->name[point]);
    require_it_goes_on(d, seen->name[point]);
    teardown();
    return lost;
}

static void deaths(void)
{
    uint64_t lost = 0, dead = 0;
    for (uint32_t i = 0; i < COUNT(deeds); i++) {
        share_points();
        setup();
        uint64_t before = evicted(b.store);
        REQUIRE(WIFEXITED(wait_child(start_child(run_noting, (void *)(uintptr_t)&deeds[i], 20))), "%s", deeds[i].name);
        REQUIRE(evicted(b.store) > before, "%s evicts nothing", deeds[i].name);
        teardown();
        REQUIRE(seen->count < POINTS, "%s passes too many points", deeds[i].name);
        for (uint32_t n = 0; n < seen->count; n++)
            lost += die_and_look(&deeds[i], n) > 0;
        dead += seen->count;
    }
    REQUIRE(lost > 0 && lost < dead, "of %" PRIu64 " deaths %" PRIu64 " came between frame and removal", dead, lost);
}

/* ---- Nobody dies ----------------------------------------------------------------------------------------- */

static skv_status change_something(rng *r)
{
    uint64_t id = below(r, IDS);
    switch (below(r, 12)) {
    case 0:
        return delete_id(b.store, id) == SKV_LOG_FAILED ? SKV_LOG_FAILED : SKV_OK;
    case 1:
        filled = below(r, IDS - BATCH);
        return put_batch();
    case 2:
        return put_value(b.store, id, 1 + below(r, 1000), LEN * (1 + below(r, 40)), 0);
    case 3:
        return put_value(b.store, id, 1 + below(r, 1000), 30, skv_now_ms(b.store) + 5000000);
    default:
        get_id(b.store, below(r, IDS), &f);
        return put_value(b.store, id, 1 + below(r, 1000), LEN / (1 + below(r, 8)), 0);
    }
}

static void disk_follows(void)
{
    rng r = {seed};
    setup();
    for (uint32_t round = 0; round < 12; round++) {
        uint64_t before = evicted(b.store);
        for (uint32_t i = 0; i < 400; i++)
            REQUIRE_OK(change_something(&r));
        REQUIRE(evicted(b.store) > before, "nothing was evicted");
        shot kept = look(b.store), disk = on_disk();
        REQUIRE(memcmp(&kept, &disk, sizeof disk) == 0, "seed %" PRIu64 ": the disk does not say what is in memory", seed);
        if (round % 4 == 3) {
            skv_checkpoint made;
            skv_wait wait = patient();
            REQUIRE_OK(skv_make_checkpoint(b.store, &made, &wait));
        }
    }
    require_clean(b.store);
    teardown();
}

/* ---- The disk fails ------------------------------------------------------------------------------------ */

static void full_disk(void)
{
    for (uint32_t i = 0; i < COUNT(deeds); i++) {
        setup();
        shot before = look(b.store);
        real = b.store->journal->files;         /* of this store                                */
        fail_files(-ENOSPC, 1, 1);
        skv_status status = deeds[i].run();
        REQUIRE(status == SKV_DISK_FULL, "%s on a full disk: status %d", deeds[i].name, (int)status);
        b.store->journal->files = b.store->journal->wal.files = real;
        shot kept = look(b.store), disk = on_disk();
        REQUIRE(memcmp(&before, &kept, sizeof kept) == 0, "%s on a full disk: something went", deeds[i].name);
        REQUIRE(memcmp(&disk, &kept, sizeof kept) == 0, "%s on a full disk: the disk differs", deeds[i].name);
        REQUIRE_OK(deeds[i].run());
        require_clean(b.store);
        teardown();
    }
}

/* ---- Less room than there was --------------------------------------------------------------------------- */

static void smaller_than_its_log(void)
{
    box c;
    skv_restored out;
    setup();
    make_box(&c, SIZE / 2, SKV_FLAG_EVICT);
    fill_from_disk(&c, &out);
    REQUIRE(out.evicted > 100, "%" PRIu64 " of some 600 items were evicted", out.evicted);
    shot all = look(b.store), some = look(c.store);
    uint64_t there = 0;
    for (uint64_t id = 0; id < IDS; id++) {
        REQUIRE(some.counter[id] == 0 || some.counter[id] == all.counter[id], "key %" PRIu64, id);
        there += some.counter[id] > 0;
    }
    REQUIRE(there > 100, "%" PRIu64 " items are left", there);
    for (uint64_t id = filled - 20; id < filled; id++)
        REQUIRE(some.counter[id], "key %" PRIu64 " was one of the newest", id);
    require_clean(c.store);
    remove_box(&c);
    teardown();
}

/* ---- A process that is stopped in the append of an eviction --------------------------------------------------- */

static void stop_nameless(const char *name)
{
    if (strcmp(name, "journal.nameless") == 0) {
        skv_crash_hook = NULL;  /* once                                                         */
        raise(SIGSTOP);
    }
}

static void stop_in_an_eviction(void *unused)
{
    (void)unused;
    skv_crash_hook = stop_nameless;
    put_some();
}

static void stopped_in_an_eviction(void)
{
    uint8_t value[LEN];
    int status;
    setup();
    pid_t child = start_child(stop_in_an_eviction, NULL, 60);
    REQUIRE(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status), "nothing is evicted");
    skv_status put = SKV_OK;
    skv_wait wait = {.block = true, .shared = true, .timeout_ns = STOPPED_MS * UINT64_C(1000000), .blamed_slot = SKV_NO_PROC};
    for (uint64_t id = 1000; put == SKV_OK || put == SKV_BUSY; id += put == SKV_OK) {
        key_text text;
        make_value(value, id, 5, sizeof value);
        skv_item item = {.key = key_for(b.store, id, &text), .value = value, .value_len = sizeof value, .type = SKV_T_BYTES};
        put = skv_put(b.store, &item, SKV_PUT_ANY, 0, &wait);
    }
    REQUIRE(put == SKV_TIMEOUT, "status %d", (int)put);
    REQUIRE(wait.blamed_slot < SKV_PROCS && skv_load(&b.store->procs[wait.blamed_slot].pid) == (uint32_t)child, "who is blamed?");
    kill(child, SIGCONT);
    finish_child(child);
    shot kept = look(b.store), disk = on_disk();
    REQUIRE(memcmp(&kept, &disk, sizeof disk) == 0, "what is on the disk");
    require_clean(b.store);
    teardown();
}

static const test tests[] = {
    {"deaths", deaths},
    {"disk_follows", disk_follows},
    {"full_disk", full_disk},
    {"smaller_than_its_log", smaller_than_its_log},
    {"stopped_in_an_eviction", stopped_in_an_eviction},
};

/* test_durable_evict SEED [NAME...] */
int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10);
    int status = run_tests(tests, COUNT(tests), argv + (argc > 1 ? 2 : argc), 590);
    remove_folder();
    print_killed();
    return status;
}
