/* test_processes.c: many processes in one store; they are killed, stopped and begun anew all the time.
 *
 * How:  what a worker has acknowledged, and what it is about to do, stands in memory that all share.  Whoever looks
 *       after its death must find, under each of its keys, what it acknowledged last or what it was about to write; a
 *       batch as a whole.  Readers judge every value that they see, at every instant.
 *
 * Time: nobody may wait longer than 100 ms, save behind a process that is stopped; readers not even then.  The time
 *       for which a process could run and no processor was free is taken off (storm.h), and, since it delays those that
 *       wait for it too, the longest such time is allowed for.
 */
#include "lease.h"
#include "storm.h"

#define WORKERS      5u
#define READERS      2u
#define OWN_IDS      40u
#define GROUP_KEYS   12u
#define SHARED_GROUPS 3u
#define NOTHING      UINT64_MAX
#define LIMIT_NS     (UINT64_C(100000000) * SLOW)

enum { GROUP_BASE = 100000, COUNTER_ID = 200000, CROWD_BASE = 300000 };

static uint64_t seed = 1;
static double seconds = 8;

/* ---- What all share ---------------------------------------------------------------------------- */

typedef struct promise {        /* about one key, or about all keys of a group                */
    _Atomic uint64_t acknowledged;      /* counter, 0 = absent                                */
    _Atomic uint64_t intended;          /* what the call in flight writes; NOTHING = none     */
} promise;

typedef struct shared {
    promise own[WORKERS][OWN_IDS], group[WORKERS];
    _Atomic uint64_t counters;          /* names each write                                   */
    _Atomic uint64_t added[WORKERS];    /* acknowledged additions                             */
    _Atomic uint64_t adding[WORKERS];   /* 1 while one is in flight                           */
    uint64_t doubtful;                  /* additions that a kill interrupted (parent only)    */
    _Atomic uint32_t stops;             /* odd while a process is stopped                     */
    _Atomic uint64_t longest_write_ns, longest_read_ns, longest_queue_ns, writes, reads;
    _Atomic bool stop;
} shared;

static shared *sh;
static box b;
static bool stormy;             /* evicting, with clear()                                      */

/* ---- Workers -------------------------------------------------------------------------------------- */

typedef struct worker {
    uint32_t number;
    bool fresh;                 /* attaches anew instead of using the inherited handle        */
    rng r;
    found f;
} worker;

static uint64_t own_id(uint32_t worker, uint32_t i) { return worker * 1000 + i; }
static uint64_t group_id(uint32_t group) { return GROUP_BASE + group * 100; }

/* Does the store hold what was promised?  What it holds is from now on acknowledged. */
static void settle(promise *p, uint64_t seen, uint64_t id, const char *when)
{
    uint64_t acknowledged = atomic_load(&p->acknowledged), intended = atomic_load(&p->intended);
    REQUIRE(seen == acknowledged || seen == intended || (stormy && seen == 0),
            "key %" PRIu64 " %s: holds %" PRIu64 ", acknowledged %" PRIu64 ", intended %" PRIu64, id, when, seen, acknowledged, intended);
    atomic_store(&p->acknowledged, seen);
    atomic_store(&p->intended, NOTHING);
}

static uint64_t whole_group(uint64_t first, found *copies);

static void settle_all(uint32_t number, found *f, const char *when)
{
    static found copies[GROUP_KEYS];
    for (uint32_t i = 0; i < OWN_IDS; i++)
        settle(&sh->own[number][i], counter_of(b.store, own_id(number, i), f), own_id(number, i), when);
    settle(&sh->group[number], whole_group(group_id(number), copies), group_id(number), when);
}

static size_t random_len(rng *r)
{
    uint32_t kind = below(r, 100);
    return VALUE_HEAD + (kind < 80 ? below(r, 200) : kind < 97 ? below(r, 3000) : kind < 99 ? below(r, 20000) : 70000 + below(r, 60000));
}

static void own_write(worker *w)
{
    uint32_t i = below(&w->r, OWN_IDS);
    uint64_t id = own_id(w->number, i), next = below(&w->r, 4) ? 1 + atomic_fetch_add(&sh->counters, 1) : 0;
    promise *p = &sh->own[w->number][i];
    atomic_store(&p->intended, next);
    skv_status status = next ? put_value(b.store, id, next, random_len(&w->r), 0) : delete_id(b.store, id);
    bool fine = status == SKV_OK || (!next && status == SKV_MISSING && (stormy || atomic_load(&p->acknowledged) == 0))
                || (stormy && status == SKV_FULL);
    REQUIRE(fine, "key %" PRIu64 ": status %d", id, (int)status);
    if (status != SKV_FULL)
        atomic_store(&p->acknowledged, next);
    atomic_store(&p->intended, NOTHING);
    uint64_t seen = counter_of(b.store, id, &w->f);
    REQUIRE(seen == atomic_load(&p->acknowledged) || (stormy && seen == 0), "key %" PRIu64 ": reads %" PRIu64 " after writing %" PRIu64,
            id, seen, next);
}

static skv_status write_group(worker *w, uint64_t first, uint64_t counter)
{
    static uint8_t values[GROUP_KEYS][1024];
    key_text texts[GROUP_KEYS];
    skv_item items[GROUP_KEYS];
    uint32_t removed;
    for (uint32_t i = 0; i < GROUP_KEYS; i++) {
        size_t len = VALUE_HEAD + below(&w->r, 900);
        make_value(values[i], first + i, counter, len);
        items[i] = (skv_item){.key = key_for(b.store, first + i, &texts[i]), .value = values[i], .value_len = len, .type = SKV_T_BYTES};
    }
    skv_status status;
    if (counter)
        INSIST(status, wait, skv_put_many(b.store, items, GROUP_KEYS, &wait));
    else
        INSIST(status, wait, skv_delete_many(b.store, items, GROUP_KEYS, &removed, &wait));
    REQUIRE(status == SKV_OK || (stormy && status == SKV_FULL), "status %d", (int)status);
    return status;
}

static void own_group(worker *w)
{
    promise *p = &sh->group[w->number];
    uint64_t next = below(&w->r, 6) ? 1 + atomic_fetch_add(&sh->counters, 1) : 0;
    atomic_store(&p->intended, next);
    if (write_group(w, group_id(w->number), next) == SKV_OK)
        atomic_store(&p->acknowledged, next);
    atomic_store(&p->intended, NOTHING);
}

static void add_one(worker *w)
{
    key_text text;
    skv_key key = key_for(b.store, COUNTER_ID, &text);
    int64_t result;
    skv_status status;
    atomic_store(&sh->adding[w->number], 1);
    INSIST(status, wait, skv_incr(b.store, &key, 1, 1, 0, &result, &wait));
    REQUIRE(status == SKV_OK || (stormy && status == SKV_FULL), "status %d", (int)status);
    atomic_fetch_add(&sh->added[w->number], 1);
    atomic_store(&sh->adding[w->number], 0);
}

/* Puts and deletes that nobody promises anything about: tables grow and shrink. */
static void crowd(worker *w)
{
    uint64_t id = CROWD_BASE + below(&w->r, 8000);
    if (below(&w->r, 3))
        put_value(b.store, id, 1 + atomic_fetch_add(&sh->counters, 1), VALUE_HEAD + below(&w->r, 60), 0);
    else
        delete_id(b.store, id);
}

static void one_write(worker *w, uint32_t action)
{
    switch (action) {
    case 0:
        write_group(w, group_id(WORKERS + below(&w->r, SHARED_GROUPS)), 1 + atomic_fetch_add(&sh->counters, 1));
        break;
    case 1:
        own_group(w);
        break;
    case 2:
        add_one(w);
        break;
    case 3: case 4: case 5:
        crowd(w);
        break;
    default:
        own_write(w);
    }
}

static void take_handle(bool fresh)
{
    if (!fresh)
        return;
    detach_box(&b);
    attach_box(&b, false);
}

static void worker_body(void *context)
{
    worker *w = context;
    one_thread = below(&w->r, 2);       /* with a spare block, or without                     */
    take_handle(w->fresh);
    settle_all(w->number, &w->f, "after a kill");
    watch time = {.longest_queue_ns = &sh->longest_queue_ns};
    while (!atomic_load(&sh->stop)) {
        uint32_t stops = atomic_load(&sh->stops);
        watch_start(&time);
        one_write(w, below(&w->r, 12));
        uint64_t took = watch_stop(&time);
        atomic_fetch_add_explicit(&sh->writes, 1, memory_order_relaxed);
        if (stops % 2 == 0 && atomic_load(&sh->stops) == stops)
            note_longest(&sh->longest_write_ns, took);
    }
}

/* ---- Readers, keeper ------------------------------------------------------------------------ */

/* The counter that all keys of the group have at one instant; 0 = all are absent. */
static uint64_t whole_group(uint64_t first, found *copies)
{
    uint64_t ids[GROUP_KEYS];
    for (uint32_t i = 0; i < GROUP_KEYS; i++)
        ids[i] = first + i;
    snapshot(b.store, ids, GROUP_KEYS, copies);
    uint64_t whole = 0;
    for (uint32_t pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < GROUP_KEYS; i++) {
            uint64_t counter = copies[i].there ? read_value(copies[i].value, copies[i].len, first + i) : 0;
            REQUIRE(counter != UINT64_MAX, "key %" PRIu64 " is torn in a snapshot", first + i);
            REQUIRE(pass == 0 || counter == whole || (stormy && counter == 0),
                    "group %" PRIu64 " has parts of batch %" PRIu64 " and of %" PRIu64, first, whole, counter);
            whole = counter ? counter : whole;
        }
    return whole;
}

typedef struct reader {
    rng r;
    bool read_only;
} reader;

static void reader_body(void *context)
{
    reader *w = context;
    found f = {0};
    static found copies[GROUP_KEYS];
    if (w->read_only) {
        detach_box(&b);
        attach_box(&b, true);
    }
    watch time = {.longest_queue_ns = &sh->longest_queue_ns};
    while (!atomic_load(&sh->stop)) {
        watch_start(&time);
        if (below(&w->r, 4))
            counter_of(b.store, own_id(below(&w->r, WORKERS), below(&w->r, OWN_IDS)), &f);
        else
            whole_group(group_id(below(&w->r, WORKERS + SHARED_GROUPS)), copies);
        note_longest(&sh->longest_read_ns, watch_stop(&time));
        atomic_fetch_add_explicit(&sh->reads, 1, memory_order_relaxed);
    }
}

static void keeper_body(void *context)
{
    rng r = *(rng *)context;
    const struct timespec nap = {0, 5000000};
    take_handle(true);
    while (!atomic_load(&sh->stop)) {
        skv_compact_report report;
        skv_copies copies = {0};
        skv_wait wait = patient();
        uint64_t freed;
        skv_status status;
        switch (below(&r, stormy ? 6 : 5)) {
        case 0:
            status = skv_compact(b.store, &report, &wait);
            if (status == SKV_OK)
                status = skv_return_memory(b.store, &wait);
            REQUIRE(status == SKV_OK || status == SKV_BUSY, "status %d", (int)status);
            break;
        case 1:
            status = skv_audit(b.store, &freed, &wait);
            REQUIRE(status == SKV_OK || status == SKV_BUSY || status == SKV_TIMEOUT, "status %d", (int)status);
            break;
        case 2:
            REQUIRE_OK(skv_reclaim_dead(b.store, NULL));
            break;
        case 3:
            REQUIRE_OK(skv_copy_bucket(b.store, rnd(&r) % skv_bucket_count(b.store), true, NULL, NULL, &copies));
            skv_free_items(&copies);
            break;
        case 4:
            skv_count_items(b.store);
            break;
        default:
            skv_clear(b.store, &wait);
        }
        nanosleep(&nap, NULL);
    }
}

/* ---- The storm ------------------------------------------------------------------------------------------- */

#define KEEPER WORKERS

static pid_t victims[WORKERS + 1];

static void start_victim(uint32_t i, rng *r)
{
    static worker w;
    static rng keeper_rng;
    if (i == KEEPER) {
        keeper_rng.x = rnd(r);
        victims[i] = start_child(keeper_body, &keeper_rng, 60);
        return;
    }
    w = (worker){.number = i, .fresh = below(r, 2), .r = {rnd(r)}};
    victims[i] = start_child(worker_body, &w, 60);
}

/* A victim that failed says so itself; the storm ends with it. */
static void kill_victim(uint32_t i)
{
    kill(victims[i], SIGKILL);
    int status = wait_child(victims[i]);
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "victim %u ended by itself with status %x", i, (unsigned)status);
    if (i != KEEPER)
        sh->doubtful += atomic_exchange(&sh->adding[i], 0);
}

static void stop_for_a_while(pid_t pid, rng *r)
{
    const struct timespec nap = {0, (long)(1000000 + below(r, 60) * 1000000u)};
    atomic_fetch_add(&sh->stops, 1);
    kill(pid, SIGSTOP);
    nanosleep(&nap, NULL);
    kill(pid, SIGCONT);
    /* Until it runs again it is as good as stopped. */
    const struct timespec moment = {0, 2000000};
    nanosleep(&moment, NULL);
    atomic_fetch_add(&sh->stops, 1);
}

static void storm(uint64_t size, uint16_t flags)
{
    rng r = {seed};
    reader readers[READERS] = {{{1}, true}, {{2}, false}};
    pid_t others[READERS];
    uint32_t kills = 0, stops = 0;
    memset(sh, 0, sizeof *sh);
    for (uint32_t i = 0; i < WORKERS; i++) {
        atomic_store(&sh->group[i].intended, NOTHING);
        for (uint32_t k = 0; k < OWN_IDS; k++)
            atomic_store(&sh->own[i][k].intended, NOTHING);
    }
    stormy = flags != 0;
    make_box(&b, size, flags);
    for (uint32_t i = 0; i < READERS; i++)
        others[i] = start_child(reader_body, &readers[i], 60);
    for (uint32_t i = 0; i <= WORKERS; i++)
        start_victim(i, &r);
    for (double end = now_s() + seconds; now_s() < end;) {
        const struct timespec nap = {0, (long)(1000000 + below(&r, 25) * 1000000u)};
        uint32_t i = below(&r, WORKERS + 1);
        nanosleep(&nap, NULL);
        if (below(&r, 4)) {
            kill_victim(i);
            start_victim(i, &r);
            kills++;
        } else {
            stop_for_a_while(victims[i], &r);
            stops++;
        }
    }
    for (uint32_t i = 0; i <= WORKERS; i++)
        kill_victim(i);
    atomic_store(&sh->stop, true);
    for (uint32_t i = 0; i < READERS; i++)
        finish_child(others[i]);
    printf("   %u kills, %u stops, %" PRIu64 " writes, %" PRIu64 " reads; longest write %.1f ms, read %.1f ms, machine %.1f ms\n",
           kills, stops, sh->writes, sh->reads, (double)sh->longest_write_ns / 1e6,
           (double)sh->longest_read_ns / 1e6, (double)sh->longest_queue_ns / 1e6);
}

/* After the storm: everything is where it was promised, and the store is as good as new. */
static void calm(void)
{
    found f = {0};
    static found copies[GROUP_KEYS];
    for (uint32_t i = 0; i < WORKERS; i++)
        settle_all(i, &f, "at the end");
    for (uint32_t g = 0; g < WORKERS + SHARED_GROUPS; g++)
        whole_group(group_id(g), copies);
    uint64_t added = 0, total = 0;
    for (uint32_t i = 0; i < WORKERS; i++)
        added += sh->added[i];
    if (get_id(b.store, COUNTER_ID, &f))
        memcpy(&total, f.value, sizeof total);
    REQUIRE(stormy || (total >= added && total <= added + sh->doubtful), "%" PRIu64 " in the counter, %" PRIu64 " acknowledged, %" PRIu64 " doubtful",
            total, added, sh->doubtful);
    for (uint32_t i = 0; i < WORKERS * OWN_IDS; i++) {
        double start = now_s();
        skv_status status = put_value(b.store, own_id(i / OWN_IDS, i % OWN_IDS), 1, 50, 0);
        REQUIRE(status == SKV_OK && now_s() - start < 0.1 * SLOW + (double)sh->longest_queue_ns / 1e9, "status %d after %.0f ms",
                (int)status, (now_s() - start) * 1e3);
    }
    require_clean(b.store);
    require_no_leaks(b.store);
    uint64_t noise = sh->longest_queue_ns;
    REQUIRE(sh->longest_write_ns < LIMIT_NS + noise, "a write took %.1f ms", (double)sh->longest_write_ns / 1e6);
    REQUIRE(sh->longest_read_ns < LIMIT_NS + noise, "a read took %.1f ms", (double)sh->longest_read_ns / 1e6);
    REQUIRE(sh->writes > 100 && sh->reads > 100, "no progress");
    free(f.value);
    remove_box(&b);
}

static void kills_and_stops(void)
{
    storm(32 * MIB, 0);
    calm();
}

static void kills_in_an_evicting_store(void)
{
    storm(4 * MIB, SKV_FLAG_EVICT);
    calm();
}

/* ---- Crowds ------------------------------------------------------------------------------------------------ */

static void idle_body(void *context)
{
    const uint32_t *number = context;
    size_t len = 24;
    for (uint32_t i = 0; i < 30; i++, len += len / 4)
        REQUIRE_OK(put_value(b.store, 1000000 + *number * 100 + i, 1, len, 0));
    atomic_fetch_add(&sh->writes, 1);
    pause();
}

/* 64 processes write a value of each of 30 sizes and then sleep, attached: they must not keep the store from others. */
static void idle_crowd(void)
{
    enum { IDLE = 64 };
    pid_t pids[IDLE];
    uint64_t id = 0;
    memset(sh, 0, sizeof *sh);
    make_box(&b, 64 * MIB, 0);
    for (uint32_t i = 0; i < IDLE; i++)
        pids[i] = start_child(idle_body, &i, 60);
    while (atomic_load(&sh->writes) < IDLE)
        usleep(1000);
    while (put_value(b.store, id, 1, 100, 0) == SKV_OK)
        id++;
    for (uint32_t i = 0; i < IDLE; i++) {
        kill(pids[i], SIGKILL);
        wait_child(pids[i]);
    }
    REQUIRE(id * (100 + 12) >= 64 * MIB * 8 / 10 * 112 / 160, "only %" PRIu64 " values of 100 bytes fit beside them", id);
    skv_stats stats;
    REQUIRE_OK(skv_get_stats(b.store, &stats));
    REQUIRE(stats.used >= stats.size * 8 / 10, "full at %" PRIu64 " of %" PRIu64 " bytes", stats.used, stats.size);
    require_no_leaks(b.store);
    remove_box(&b);
}

static void spare_body(void *context)
{
    const uint32_t *number = context;
    one_thread = true;
    REQUIRE_OK(put_value(b.store, *number, 1, 300 + 200 * *number, 0));
    REQUIRE_OK(put_value(b.store, *number, 2, 300 + 200 * *number, 0));
    skv_leases_return(b.store);
    REQUIRE(b.store->spare, "nothing is kept after an overwrite");
    atomic_fetch_add(&sh->writes, 1);
    pause();
}

/* A block that an idle process keeps for its next put keeps no page from others. */
static void idle_spares(void)
{
    enum { IDLE = 6 };
    pid_t pids[IDLE];
    memset(sh, 0, sizeof *sh);
    make_box(&b, 2 * MIB, 0);
    uint64_t id = 100;
    for (uint32_t i = 0; i < IDLE; i++) {           /* each block in another part of the store */
        for (uint32_t n = 0; n < 42; n++)
            REQUIRE_OK(put_value(b.store, id++, 1, 3000, 0));
        pids[i] = start_child(spare_body, &i, 60);
        while (atomic_load(&sh->writes) <= i)
            usleep(1000);
    }
    for (uint64_t i = 0; i < id; i++)
        REQUIRE(i >= IDLE && i < 100 ? true : delete_id(b.store, i) == SKV_OK, "no key %" PRIu64, i);
    require_clean(b.store);
    skv_status status = put_value(b.store, 1, 1, 520000, 0);
    REQUIRE(status == SKV_OK, "a value of a quarter of the store: status %d", (int)status);
    for (uint32_t i = 0; i < IDLE; i++) {
        kill(pids[i], SIGKILL);
        wait_child(pids[i]);
    }
    require_no_leaks(b.store);
    remove_box(&b);
}

enum { SUCCESSORS = 400 };

static void overwriting_body(void *context)
{
    const uint64_t *id = context;
    one_thread = true;
    REQUIRE_OK(put_value(b.store, *id, *id, 8000, 0));
    REQUIRE(b.store->spare, "nothing is kept after an overwrite");
    kill(getpid(), SIGKILL);
}

static uint64_t used(void)
{
    skv_stats stats;
    REQUIRE_OK(skv_get_stats(b.store, &stats));
    return stats.used;
}

/* What each keeps for its next call goes back before the store grows for the next one; not what the living keep. */
static void keeping_workers(void)
{
    found f = {0};
    memset(sh, 0, sizeof *sh);
    make_box(&b, 64 * MIB, 0);
    for (uint64_t id = 0; id < 20; id++)
        REQUIRE_OK(put_value(b.store, id, id, 8000, 0));
    uint32_t number = 30;
    pid_t idle = start_child(spare_body, &number, 60);
    while (atomic_load(&sh->writes) == 0)
        usleep(1000);
    uint64_t before = used();
    for (uint64_t i = 0; i < SUCCESSORS; i++) {
        uint64_t id = i % 20;
        REQUIRE(WIFSIGNALED(wait_child(start_child(overwriting_body, &id, 10))), "worker %d", (int)i);
    }
    REQUIRE(used() < before + 1 * MIB, "%" PRIu64 " bytes more are used than before %d workers", used() - before, SUCCESSORS);
    uint32_t kept = 0;
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++)
        kept += skv_load(&b.store->procs[slot].pid) == (uint32_t)idle && skv_load(&b.store->procs[slot].spare) != 0;
    REQUIRE(kept == 1, "the living worker has lost what it keeps");
    kill(idle, SIGKILL);
    wait_child(idle);
    for (uint64_t id = 0; id < 20; id++)
        REQUIRE(counter_of(b.store, id, &f) == id, "key %d", (int)id);
    require_no_leaks(b.store);
    free(f.value);
    remove_box(&b);
}

static void one_put_body(void *context)
{
    const uint64_t *id = context;
    REQUIRE_OK(put_value(b.store, *id, *id, 60, 0));
    kill(getpid(), SIGKILL);
}

/* More processes die than there are process slots; each one's successor finds a slot. */
static void more_deaths_than_slots(void)
{
    found f = {0};
    skv_stats stats;
    make_box(&b, 4 * MIB, 0);
    for (uint64_t id = 1; id <= SKV_PROCS + 100; id++) {
        int status = wait_child(start_child(one_put_body, &id, 10));
        REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "child %d: status %x", (int)id, (unsigned)status);
    }
    for (uint64_t id = 1; id <= SKV_PROCS + 100; id++)
        REQUIRE(counter_of(b.store, id, &f) == id, "key %d", (int)id);
    require_no_leaks(b.store);
    REQUIRE_OK(skv_get_stats(b.store, &stats));
    REQUIRE(stats.processes == 1, "%u process slots are in use", stats.processes);
    REQUIRE(stats.counters[SKV_SETS] == SKV_PROCS + 100, "no death loses or doubles a count: %" PRIu64, stats.counters[SKV_SETS]);
    free(f.value);
    remove_box(&b);
}

static void twin_body(void *context)
{
    uint64_t id = *(const uint64_t *)context;
    skv_params p = params_for(2 * MIB, 0);
    bool created;
    while (!atomic_load(&sh->stop))
        skv_pause();
    REQUIRE_OK(skv_region_create(b.fd, &p, false, &created));
    atomic_fetch_add(&sh->writes, created);
    attach_box(&b, false);
    REQUIRE_OK(put_value(b.store, id, id + 1, 60, 0));
    detach_box(&b);
}

/* Processes that create the same name at once get one store. */
static void twins(void)
{
    found f = {0};
    for (int round = 0; round < 40; round++) {
        pid_t pids[3];
        memset(sh, 0, sizeof *sh);
        open_object(&b);
        for (uint64_t i = 0; i < 3; i++)
            pids[i] = start_child(twin_body, &i, 20);
        atomic_store(&sh->stop, true);
        for (uint32_t i = 0; i < 3; i++)
            finish_child(pids[i]);
        REQUIRE(sh->writes == 1, "%d of three created it", (int)sh->writes);
        attach_box(&b, false);
        for (uint64_t i = 0; i < 3; i++)
            REQUIRE(counter_of(b.store, i, &f) == i + 1, "the value of process %d", (int)i);
        require_no_leaks(b.store);
        remove_box(&b);
    }
    free(f.value);
}

static const test tests[] = {
    {"kills_and_stops", kills_and_stops},
    {"kills_in_an_evicting_store", kills_in_an_evicting_store},
    {"idle_crowd", idle_crowd},
    {"idle_spares", idle_spares},
    {"keeping_workers", keeping_workers},
    {"more_deaths_than_slots", more_deaths_than_slots},
    {"twins", twins},
};

/* test_processes SEED SECONDS [NAME...] */
int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        seconds = strtod(argv[2], NULL);
    sh = share(sizeof *sh);
    return run_tests(tests, COUNT(tests), argv + (argc > 2 ? 3 : argc), 100);
}
