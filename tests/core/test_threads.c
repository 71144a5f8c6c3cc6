/* test_threads.c: many threads in one store at once; every value that is read is judged.
 *
 * quiet     nothing is dropped, so each writer knows what its keys hold, counters add up, and a batch's
 *           keys have one counter at every instant.
 * stormy    small evicting store with expiry and clear(): whatever is there must be whole, and what is there of a
 *           batch must be of one batch.
 * In both: growth, evacuation, audits, compaction, sweeps and scans run beside.
 */
#include <pthread.h>

#include "util.h"

#define OWN_IDS     300u        /* of each single-key writer                                  */
#define GROUP_KEYS  12u
#define GROUPS      24u
#define COUNTERS    5u
#define LARGE_IDS   6u
#define MAX_THREADS 24u

enum { GROUP_BASE = 1000000, COUNTER_BASE = 2000000, LARGE_BASE = 3000000, CROWD_BASE = 4000000 };

static uint64_t seed = 1;
static double seconds = 3;

typedef struct arena {
    skv *store;
    bool stormy;
    _Atomic bool stop;
    _Atomic uint64_t batches;   /* names each batch                                           */
    _Atomic int64_t added[COUNTERS];
    _Atomic uint64_t operations, snapshots, retries;
} arena;

typedef struct worker {
    arena *a;
    uint32_t number;
    rng r;
    found f;
    pthread_t thread;
} worker;

static bool goes_on(worker *w)
{
    atomic_fetch_add_explicit(&w->a->operations, 1, memory_order_relaxed);
    return !atomic_load_explicit(&w->a->stop, memory_order_relaxed);
}

static bool is_full(skv_status status)
{
    return status == SKV_FULL;
}

/* ---- Writers ---------------------------------------------------------------------------------- */

static size_t random_len(rng *r)
{
    uint32_t kind = below(r, 100);
    return VALUE_HEAD + (kind < 80 ? below(r, 200) : kind < 99 ? below(r, 3000) : below(r, 20000));
}

static void touch_own(worker *w, uint64_t id, uint64_t counter)
{
    key_text text;
    skv_key key = key_for(w->a->store, id, &text);
    uint64_t expires_ms = below(&w->r, 2) ? 0 : skv_now_ms(w->a->store) + 1000000;
    skv_status status;
    INSIST(status, wait, skv_touch(w->a->store, &key, expires_ms, NULL, &wait));
    if (w->a->stormy)
        return;
    REQUIRE(status == (counter ? SKV_OK : SKV_MISSING), "key %" PRIu64 ": status %d", id, (int)status);
    if (counter)
        REQUIRE(get_id(w->a->store, id, &w->f) && w->f.expires_ms == expires_ms, "key %" PRIu64, id);
}

/* Its keys are its own: in a quiet store it knows what they hold. */
static void *single_writer(void *context)
{
    worker *w = context;
    skv *s = w->a->store;
    uint64_t model[OWN_IDS] = {0}, counter = 0;
    while (goes_on(w)) {
        uint32_t i = below(&w->r, OWN_IDS), action = below(&w->r, 10);
        uint64_t id = w->number * OWN_IDS + i;
        uint64_t seen = counter_of(s, id, &w->f);
        REQUIRE(seen == model[i] || (w->a->stormy && seen == 0), "key %" PRIu64 ": %" PRIu64 ", not %" PRIu64, id, seen, model[i]);
        if (action < 7) {
            uint64_t expires = w->a->stormy && below(&w->r, 3) == 0 ? skv_now_ms(s) + below(&w->r, 30) : 0;
            skv_status status = put_value(s, id, ++counter, random_len(&w->r), expires);
            REQUIRE(status == SKV_OK || (w->a->stormy && is_full(status)), "status %d", (int)status);
            model[i] = status == SKV_OK ? counter : model[i];
        } else if (action < 9) {
            skv_status status = delete_id(s, id);
            REQUIRE(w->a->stormy || status == (model[i] ? SKV_OK : SKV_MISSING), "key %" PRIu64 ": status %d", id, (int)status);
            model[i] = 0;
        } else {
            touch_own(w, id, model[i]);
        }
    }
    return NULL;
}

/* Several threads write the same groups; each batch is whole at every instant. */
static void *batch_writer(void *context)
{
    worker *w = context;
    skv *s = w->a->store;
    static _Thread_local uint8_t values[GROUP_KEYS][1024];
    while (goes_on(w)) {
        uint32_t g = below(&w->r, GROUPS), removed;
        uint64_t counter = 1 + atomic_fetch_add(&w->a->batches, 1);
        key_text texts[GROUP_KEYS];
        skv_item items[GROUP_KEYS];
        for (uint32_t i = 0; i < GROUP_KEYS; i++) {
            uint64_t id = GROUP_BASE + g * GROUP_KEYS + i;
            size_t len = VALUE_HEAD + below(&w->r, 900);
            make_value(values[i], id, counter, len);
            items[i] = (skv_item){.key = key_for(s, id, &texts[i]), .value = values[i], .value_len = len, .type = SKV_T_BYTES};
        }
        skv_status status;
        if (below(&w->r, 8))
            INSIST(status, wait, skv_put_many(s, items, GROUP_KEYS, &wait));
        else
            INSIST(status, wait, skv_delete_many(s, items, GROUP_KEYS, &removed, &wait));
        REQUIRE(status == SKV_OK || (w->a->stormy && is_full(status)), "status %d", (int)status);
    }
    return NULL;
}

static void *adder(void *context)
{
    worker *w = context;
    while (goes_on(w)) {
        uint32_t i = below(&w->r, COUNTERS);
        int64_t delta = (int64_t)below(&w->r, 100) - 30, result;
        key_text text;
        skv_key key = key_for(w->a->store, COUNTER_BASE + i, &text);
        skv_status status;
        INSIST(status, wait, skv_incr(w->a->store, &key, delta, delta, 0, &result, &wait));
        REQUIRE(status == SKV_OK || (w->a->stormy && is_full(status)), "status %d", (int)status);
        atomic_fetch_add(&w->a->added[i], delta);
    }
    return NULL;
}

/* Values of one page to five, of ever other lengths, so that runs come back at the same place with another length. */
static void *large_writer(void *context)
{
    worker *w = context;
    uint64_t counter = 0;
    while (goes_on(w)) {
        uint64_t id = LARGE_BASE + below(&w->r, LARGE_IDS);
        skv_status status = put_value(w->a->store, id, ++counter, 66000 + below(&w->r, w->a->stormy ? 60000 : 250000), 0);
        REQUIRE(status == SKV_OK || is_full(status), "status %d", (int)status);
        counter_of(w->a->store, LARGE_BASE + below(&w->r, LARGE_IDS), &w->f);
        if (status || below(&w->r, 20) == 0)
            delete_id(w->a->store, id);
    }
    return NULL;
}

/* Fills tables until they grow, and empties them again. */
static void *crowd(void *context)
{
    worker *w = context;
    uint64_t most = w->a->stormy ? 4000 : 20000;
    while (goes_on(w)) {
        for (uint64_t i = 0; i < most && goes_on(w); i++) {
            skv_status status = put_value(w->a->store, CROWD_BASE + i, i + 1, VALUE_HEAD + i % 50, 0);
            REQUIRE(status == SKV_OK || (w->a->stormy && is_full(status)), "status %d", (int)status);
        }
        for (uint64_t i = 0; i < most && goes_on(w); i++)
            delete_id(w->a->store, CROWD_BASE + i);
    }
    return NULL;
}

/* ---- Readers ------------------------------------------------------------------------------------- */

static void *reader(void *context)
{
    worker *w = context;
    while (goes_on(w)) {
        uint64_t id = below(&w->r, 3) ? below(&w->r, OWN_IDS * 2) : GROUP_BASE + below(&w->r, GROUPS * GROUP_KEYS);
        counter_of(w->a->store, id, &w->f);
        atomic_fetch_add_explicit(&w->a->retries, w->f.tries, memory_order_relaxed);
    }
    return NULL;
}

/* One consistent copy of a group: the counters, 0 where a key is absent. */
static bool try_snapshot(skv *s, const skv_key *keys, uint64_t first_id, found *copies, uint64_t *counters)
{
    skv_view views[GROUP_KEYS];
    skv_find_many(s, keys, views, GROUP_KEYS);
    for (uint32_t i = 0; i < GROUP_KEYS; i++)
        if (!copy_view(&views[i], &copies[i]))
            return false;
    if (!skv_validate_many(s, keys, views, GROUP_KEYS))
        return false;
    for (uint32_t i = 0; i < GROUP_KEYS; i++) {
        counters[i] = copies[i].there ? read_value(copies[i].value, copies[i].len, first_id + i) : 0;
        skv_warm(s, &views[i]);
    }
    return true;
}

static void *snapshot_reader(void *context)
{
    worker *w = context;
    skv *s = w->a->store;
    found copies[GROUP_KEYS] = {{0}};
    while (goes_on(w)) {
        uint64_t first = GROUP_BASE + below(&w->r, GROUPS) * GROUP_KEYS, counters[GROUP_KEYS], whole = 0;
        key_text texts[GROUP_KEYS];
        skv_key keys[GROUP_KEYS];
        for (uint32_t i = 0; i < GROUP_KEYS; i++)
            keys[i] = key_for(s, first + i, &texts[i]);
        bool done = false;
        for (uint32_t tries = 0; !done; tries++) {
            skv_frozen *frozen = tries > SKV_READ_TRIES ? skv_freeze(s, keys, GROUP_KEYS) : NULL;
            done = try_snapshot(s, keys, first, copies, counters);
            skv_thaw(s, frozen);
            REQUIRE(tries < 1000000, "a snapshot is overtaken for ever");
            if (!done)
                skv_relax(s, &(skv_view){0}, tries);
        }
        for (uint32_t i = 0; i < GROUP_KEYS; i++) {
            REQUIRE(counters[i] != UINT64_MAX, "key %" PRIu64 " is torn in a snapshot", first + i);
            whole = counters[i] ? counters[i] : whole;
        }
        for (uint32_t i = 0; i < GROUP_KEYS; i++)
            REQUIRE(counters[i] == whole || (w->a->stormy && counters[i] == 0),
                    "a snapshot has parts of batch %" PRIu64 " and of %" PRIu64, whole, counters[i]);
        atomic_fetch_add_explicit(&w->a->snapshots, 1, memory_order_relaxed);
    }
    for (uint32_t i = 0; i < GROUP_KEYS; i++)
        free(copies[i].value);
    return NULL;
}

static void *scanner(void *context)
{
    worker *w = context;
    skv *s = w->a->store;
    skv_copies copies = {0};
    while (goes_on(w)) {
        uint64_t bucket = rnd(&w->r) % skv_bucket_count(s);
        REQUIRE_OK(skv_copy_bucket(s, bucket, true, NULL, NULL, &copies));
        for (size_t i = 0; i < copies.count; i++) {
            const skv_copied *item = &copies.items[i];
            uint64_t id = id_in_key(copies.bytes + item->key_at);
            REQUIRE(item->type == SKV_T_INT || read_value(copies.bytes + item->value_at, item->value_len, id) != UINT64_MAX,
                    "key %" PRIu64 " is torn in a scan", id);
            for (size_t j = i + 1; j < copies.count && j < i + 3; j++)
                REQUIRE(id_in_key(copies.bytes + copies.items[j].key_at) != id, "key %" PRIu64 " twice in a scan", id);
        }
        if (below(&w->r, 50) == 0)
            skv_count_items(s);
    }
    skv_free_items(&copies);
    return NULL;
}

/* ---- Housekeeping ------------------------------------------------------------------------------------ */

/* Nobody has died, so nothing leaks, but for runs whose owner waited in vain for a lock whose holder did not get
 * a processor: each is counted among the deaths (skv_free_run). */
static void require_explained(const skv *s, uint64_t leaks)
{
    uint64_t deaths = skv_load(&s->header->deaths);
    REQUIRE(leaks <= deaths, "%" PRIu64 " blocks have leaked, and %" PRIu64 " were left behind", leaks, deaths);
}

static void *keeper(void *context)
{
    worker *w = context;
    skv *s = w->a->store;
    uint64_t leaks = 0;
    while (goes_on(w)) {
        skv_compact_report report;
        skv_stats stats;
        uint32_t slots;
        uint64_t freed;
        skv_wait wait = patient();
        skv_status status;
        switch (below(&w->r, w->a->stormy ? 7 : 6)) {
        case 0: case 1:
            status = compact_all(s, &report);
            REQUIRE(status == SKV_OK, "status %d", (int)status);
            require_explained(s, leaks += report.leaks);
            break;
        case 2:
            status = skv_audit(s, &freed, &wait);
            REQUIRE(status == SKV_OK || status == SKV_BUSY || status == SKV_TIMEOUT, "status %d", (int)status);
            require_explained(s, leaks += freed);
            break;
        case 3:
            skv_sweep_expired(s, skv_bucket_count(s), NULL, &wait);
            break;
        case 4:
            REQUIRE_OK(skv_get_stats(s, &stats));
            break;
        case 5:
            REQUIRE_OK(skv_reclaim_dead(s, &slots));
            REQUIRE(slots == 0, "nobody has died");
            break;
        default:
            status = clear_all(s);
            REQUIRE(status == SKV_OK || is_full(status), "status %d", (int)status);
        }
        const struct timespec nap = {0, 2000000};
        nanosleep(&nap, NULL);
    }
    return NULL;
}

/* ---- The two tests -------------------------------------------------------------------------------------- */

typedef void *(*body)(void *);

static void run_arena(arena *a)
{
    static const body bodies[] = {single_writer, single_writer, batch_writer, batch_writer, adder, adder, large_writer, crowd,
                                  reader, reader, snapshot_reader, snapshot_reader, scanner, keeper};
    static worker workers[MAX_THREADS];
    for (uint32_t i = 0; i < COUNT(bodies); i++) {
        workers[i] = (worker){.a = a, .number = i, .r = {seed * 1000 + i}};
        REQUIRE(pthread_create(&workers[i].thread, NULL, bodies[i], &workers[i]) == 0, "pthread_create");
    }
    const struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
    atomic_store(&a->stop, true);
    for (uint32_t i = 0; i < COUNT(bodies); i++) {
        pthread_join(workers[i].thread, NULL);
        free(workers[i].f.value);
    }
    printf("   %" PRIu64 " operations, %" PRIu64 " snapshots, %" PRIu64 " retries of readers\n", a->operations, a->snapshots,
           a->retries);
    REQUIRE(a->snapshots > 0 && a->operations > 100, "threads made no progress");
}

static void quiet(void)
{
    box b;
    found f = {0};
    static arena a;
    make_box(&b, 48 * MIB, 0);
    a.store = b.store;
    run_arena(&a);
    for (uint32_t i = 0; i < COUNTERS; i++) {
        int64_t sum = 0;
        if (get_id(b.store, COUNTER_BASE + i, &f))
            memcpy(&sum, f.value, sizeof sum);
        REQUIRE(sum == a.added[i], "counter %u: %" PRId64 ", and %" PRId64 " were added", i, sum, a.added[i]);
    }
    free(f.value);
    require_no_leaks(b.store);
    remove_box(&b);
}

static void stormy(void)
{
    box b;
    static arena a;
    make_box(&b, 4 * MIB, SKV_FLAG_EVICT);
    a.store = b.store;
    a.stormy = true;
    run_arena(&a);
    require_no_leaks(b.store);
    remove_box(&b);
}

static const test tests[] = {
    {"quiet", quiet},
    {"stormy", stormy},
};

/* test_threads SEED SECONDS [NAME...] */
int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        seconds = strtod(argv[2], NULL);
    return run_tests(tests, COUNT(tests), argv + (argc > 2 ? 3 : argc), 60);
}
