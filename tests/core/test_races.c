/* test_races.c: executions that are too rare to wait for, forced one by one.
 *
 * Crash points (-DSKV_CRASH_POINTS) serve as places at which something else happens: another operation in the same
 * thread, a SIGSTOP, a kill.  Each test opens with the execution that it forces.
 */
#include <pthread.h>

#include "lease.h"
#include "lock.h"
#include "procs.h"
#include "spare.h"
#include "util.h"

static const char *hook_point;
static void (*hook_action)(void);

/* Once, at the first pass of the point. */
static void act_once(const char *name)
{
    if (!hook_point || strcmp(name, hook_point))
        return;
    hook_point = NULL;
    hook_action();
}

static void at_point(const char *name, void (*action)(void))
{
    hook_point = name;
    hook_action = action;
    skv_crash_hook = act_once;
}

static void die(void) { kill(getpid(), SIGKILL); }
static void stop_self(void) { kill(getpid(), SIGSTOP); }

static box b;
static found f;

/* A child that dies (or stops) at a point of one put. */
typedef struct fatal_put {
    const char *point;
    void (*action)(void);
    uint64_t id, counter;
    size_t len;
} fatal_put;

static void put_body(void *context)
{
    const fatal_put *p = context;
    at_point(p->point, p->action);
    REQUIRE_OK(put_value(b.store, p->id, p->counter, p->len, 0));
}

static void put_and_die(const char *point, uint64_t id, uint64_t counter, size_t len)
{
    fatal_put p = {point, die, id, counter, len};
    int status = wait_child(start_child(put_body, &p, 10));
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s is not passed", point);
}

/* ---- Clock bits ---------------------------------------------------------------------------------- */

/* A reader of an evicting store finds a value, validates, and is stopped; its bucket's table is freed and the block
 * becomes something else.  Then the reader goes on and sets the clock bit of "its" slot: nothing else may change. */
static void late_clock_bit(void)
{
    enum { VIEWS = 40, N = 3000 };
    skv_view views[VIEWS];
    key_text text;
    make_box(&b, MIB, SKV_FLAG_EVICT);
    for (uint64_t id = 0; id < VIEWS; id++)
        REQUIRE_OK(put_value(b.store, id, 1, 30, 0));
    for (uint64_t id = 0; id < VIEWS; id++) {
        skv_key key = key_for(b.store, id, &text);
        skv_find(b.store, &key, &views[id]);
        REQUIRE(views[id].record && skv_validate(&views[id]), "it is there");
    }
    REQUIRE_OK(clear_all(b.store));
    skv_leases_return(b.store);
    for (uint64_t id = 0; id < N; id++)
        REQUIRE_OK(put_value(b.store, id, id + 2, 24 + id % 200, 0));
    for (uint64_t id = 0; id < VIEWS; id++)
        skv_warm(b.store, &views[id]);
    for (uint64_t id = 0; id < N; id++)
        counter_of(b.store, id, &f);
    require_clean(b.store);
    remove_box(&b);
}

/* ---- Audits --------------------------------------------------------------------------------------- */

static pid_t stopped_child;

static void *wake_later(void *context)
{
    const struct timespec nap = {0, 300000000};
    (void)context;
    nanosleep(&nap, NULL);
    kill(stopped_child, SIGCONT);
    return NULL;
}

/* A put stops between the allocation of its block and its commit.  A first audit waits for it in vain and gives up.  A
 * second one begins; the put goes on, commits and ends.  Its block must not be taken for a leak. */
static void audit_after_an_audit_in_vain(size_t len)
{
    pthread_t waker;
    uint64_t freed;
    int status;
    fatal_put p = {"put.written", stop_self, 7, 70, len};
    make_box(&b, MIB, 0);
    stopped_child = start_child(put_body, &p, 20);
    REQUIRE(waitpid(stopped_child, &status, WUNTRACED) == stopped_child && WIFSTOPPED(status), "the child stops");
    skv_wait wait = patient();
    REQUIRE(skv_audit(b.store, &freed, &wait) == SKV_TIMEOUT, "the first audit waits in vain");
    REQUIRE(pthread_create(&waker, NULL, wake_later, NULL) == 0, "pthread_create");
    INSIST(status, again, (int)skv_audit(b.store, &freed, &again));
    pthread_join(waker, NULL);
    finish_child(stopped_child);
    REQUIRE(freed == 0, "the second audit freed %" PRIu64 " blocks of a live process", freed);
    for (uint64_t id = 20; id < 60; id++)
        put_value(b.store, id, 1, len, 0);
    REQUIRE(counter_of(b.store, 7, &f) == 70, "the value that was put");
    require_no_leaks(b.store);
    remove_box(&b);
}

static void audit_after_an_audit_in_vain_small(void) { audit_after_an_audit_in_vain(60); }
static void audit_after_an_audit_in_vain_run(void) { audit_after_an_audit_in_vain(100000); }

/* The same, but the first auditor is killed while it waits. */
static void audit_body(void *context)
{
    uint64_t freed;
    skv_wait wait = patient();
    (void)context;
    skv_audit(b.store, &freed, &wait);
}

static void audit_after_a_killed_audit(void)
{
    pthread_t waker;
    uint64_t freed;
    int status;
    fatal_put p = {"put.written", stop_self, 7, 70, 100000};
    const struct timespec nap = {0, 100000000};
    make_box(&b, MIB, 0);
    stopped_child = start_child(put_body, &p, 20);
    REQUIRE(waitpid(stopped_child, &status, WUNTRACED) == stopped_child && WIFSTOPPED(status), "the child stops");
    pid_t auditor = start_child(audit_body, NULL, 20);
    nanosleep(&nap, NULL);
    kill(auditor, SIGKILL);
    wait_child(auditor);
    REQUIRE(pthread_create(&waker, NULL, wake_later, NULL) == 0, "pthread_create");
    INSIST(status, wait, (int)skv_audit(b.store, &freed, &wait));
    pthread_join(waker, NULL);
    finish_child(stopped_child);
    REQUIRE(freed == 0, "%" PRIu64 " blocks of a live process were freed", freed);
    for (uint64_t id = 20; id < 30; id++)
        put_value(b.store, id, 1, 100000, 0);
    REQUIRE(counter_of(b.store, 7, &f) == 70, "the value that was put");
    require_no_leaks(b.store);
    remove_box(&b);
}

/* A put is killed after its commit and before the bump.  Nothing names the old record any more, but a reader that found
 * it still would validate: an audit may free it only after a bump (I3). */
static void audit_before_the_repair(void)
{
    key_text text;
    skv_view view;
    uint64_t freed;
    skv_status status;
    uint8_t copy[60];
    make_box(&b, MIB, 0);
    REQUIRE_OK(put_value(b.store, 7, 1, sizeof copy, 0));
    skv_key key = key_for(b.store, 7, &text);
    skv_find(b.store, &key, &view);
    put_and_die("put.published", 7, 2, sizeof copy);
    INSIST(status, wait, skv_audit(b.store, &freed, &wait));
    REQUIRE_OK(status);
    for (uint64_t id = 20; id < 200; id++) {    /* not into its bucket, or that were repaired */
        key_text other;
        if (skv_bucket_of(b.store, key_for(b.store, id, &other).hash) != view.bucket)
            REQUIRE_OK(put_value(b.store, id, 1, sizeof copy, 0));
    }
    memcpy(copy, view.value, sizeof copy);
    if (skv_validate(&view))
        REQUIRE(read_value(copy, sizeof copy, 7) == 1, "a reader accepted the bytes of another record");
    require_no_leaks(b.store);
    remove_box(&b);
}

/* ---- Snapshots -------------------------------------------------------------------------------------------- */

#define LATER (UINT64_C(1) << 38)

static void touch_body(void *context)
{
    key_text text;
    skv_status status;
    (void)context;
    skv_key key = key_for(b.store, 7, &text);
    at_point("touch.published", die);
    INSIST(status, wait, skv_touch(b.store, &key, LATER + 1, NULL, &wait));
    REQUIRE_OK(status);
}

static void touch_and_die(void)
{
    int status = wait_child(start_child(touch_body, NULL, 10));
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "touch.published is not passed");
}

static void overwrite_and_die(void) { put_and_die("put.published", 7, 2, 60); }

/* A reader collects the first of two keys.  That is changed by a process which is killed after the commit, before the bump;
 * somebody sees the change and puts the second key.  Then the reader collects the second: old and new are no snapshot,
 * although both counters are what they were. */
static void snapshot_beside_a_corpse(void (*change)(void))
{
    key_text texts[2];
    skv_view views[2];
    make_box(&b, MIB, 0);
    uint64_t other = 8;
    skv_key keys[2] = {key_for(b.store, 7, &texts[0]), key_for(b.store, other, &texts[1])};
    while (skv_bucket_of(b.store, keys[1].hash) == skv_bucket_of(b.store, keys[0].hash))
        keys[1] = key_for(b.store, ++other, &texts[1]);
    REQUIRE_OK(put_value(b.store, 7, 1, 60, LATER));
    skv_find(b.store, &keys[0], &views[0]);
    change();
    REQUIRE_OK(put_value(b.store, other, 2, 60, 0));
    skv_find(b.store, &keys[1], &views[1]);
    REQUIRE(views[0].record && views[1].record, "both are there");
    REQUIRE(!skv_validate_many(b.store, keys, views, 2), "an old and a new value are taken for one snapshot");
    require_no_leaks(b.store);
    remove_box(&b);
}

static void snapshot_beside_a_dead_put(void) { snapshot_beside_a_corpse(overwrite_and_die); }
static void snapshot_beside_a_dead_touch(void) { snapshot_beside_a_corpse(touch_and_die); }

/* ---- Hints that a death leaves behind ------------------------------------------------------------------------ */

/* An item with a ttl is overwritten by one without; the writer is killed after the commit, before the hint in word B says
 * so.  When the ttl would have been over, a sweep must not take the new item for expired. */
static void persisted_by_a_corpse(void)
{
    uint64_t dropped;
    make_box(&b, MIB, 0);
    skv_set_clock(b.store, LATER - 1);
    REQUIRE_OK(put_value(b.store, 7, 1, 60, LATER));
    overwrite_and_die();
    skv_set_clock(b.store, LATER + 1);
    skv_wait wait = patient();
    REQUIRE_OK(skv_reclaim_dead(b.store, NULL));
    REQUIRE_OK(skv_sweep_expired(b.store, b.store->bucket_count, &dropped, &wait));
    REQUIRE(counter_of(b.store, 7, &f) == 2 && dropped == 0, "what was put without a ttl");
    require_no_leaks(b.store);
    remove_box(&b);
}

/* ---- In the middle of a reader's walk ------------------------------------------------------------------------ */

/* A page of the region is taken away from this process, and given back by the handler of the fault: so something happens
 * exactly when a reader comes to it.  The reader holds no lock, hence the handler may do what it likes. */
static uint8_t *trapped;
static void (*trap_action)(void);
static bool trap_sprung;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    uint8_t *at = info->si_addr;
    if (!trapped || at < trapped || at >= trapped + 4096) {
        signal(number, SIG_DFL);
        return;
    }
    mprotect(trapped, 4096, PROT_READ | PROT_WRITE);
    trapped = NULL;
    trap_sprung = true;
    trap_action();
}

static void set_trap(uint8_t *page, void (*action)(void))
{
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &act, NULL);
    trap_action = action;
    trap_sprung = false;
    REQUIRE(mprotect(page, 4096, PROT_NONE) == 0, "mprotect: %s", strerror(errno));
    trapped = page;
}

#define STABLE 120u
#define CHURNED 120u
#define POOL   1500u

static skv_bucket *one_bucket;
static uint64_t pool[POOL];             /* numbers of keys in that bucket                     */
static bool in_store[POOL];
static rng churn_rng;

static void pick_keys_of_one_bucket(void)
{
    key_text text;
    uint32_t n = 0;
    one_bucket = skv_bucket_of(b.store, key_for(b.store, 0, &text).hash);
    for (uint64_t id = 0; n < POOL; id++)
        if (skv_bucket_of(b.store, key_for(b.store, id, &text).hash) == one_bucket)
            pool[n++] = id;
}

/* Other keys take the places of keys, until the table was rebuilt and lies where it lay before. */
static void rebuild_and_come_back(void)
{
    uint64_t before = skv_load(&one_bucket->table), rebuilds = 0, last = before;
    for (uint32_t i = 0; i < 100000 && (rebuilds < 2 || last != before); i++) {
        uint32_t out, in;
        do
            out = STABLE + below(&churn_rng, POOL - STABLE);
        while (!in_store[out]);
        do
            in = STABLE + below(&churn_rng, POOL - STABLE);
        while (in_store[in]);
        REQUIRE_OK(delete_id(b.store, pool[out]));
        REQUIRE_OK(put_value(b.store, pool[in], 1, 30, 0));
        in_store[out] = false;
        in_store[in] = true;
        rebuilds += skv_load(&one_bucket->table) != last;
        last = skv_load(&one_bucket->table);
    }
}

/* An audit notes what a table names.  In the middle of it the table is rebuilt twice, so that the bucket's table word is
 * what it was, but entries lie elsewhere: none that is there all the time may be missed, or it is freed as a leak. */
static void audit_of_a_rebuilt_table(void)
{
    make_box(&b, MIB, 0);
    churn_rng.x = 7;
    pick_keys_of_one_bucket();
    memset(in_store, 0, sizeof in_store);
    for (uint32_t i = 0; i < STABLE + CHURNED; i++) {
        in_store[i] = true;
        REQUIRE_OK(put_value(b.store, pool[i], 1, 30, 0));
    }
    for (uint32_t round = 0; round < 300; round++) {
        skv_names names;
        key_text text;
        skv_view view;
        uint64_t start = skv_table_offset(skv_load(&one_bucket->table));
        uint8_t *page = b.store->base + (start + 4096) / 4096 * 4096;
        set_trap(page, rebuild_and_come_back);
        REQUIRE(skv_names_collect(b.store, &names), "no memory");
        REQUIRE(trap_sprung, "the table does not reach the next page");
        for (uint32_t i = 0; i < STABLE; i++) {
            skv_key key = key_for(b.store, pool[i], &text);
            skv_find(b.store, &key, &view);
            uint64_t offset = (uint64_t)((const uint8_t *)view.record - b.store->base);
            REQUIRE(view.record && skv_is_named(b.store, &names, offset), "round %u: key %d is live, and was missed", round, (int)pool[i]);
        }
        free(names.bits);
    }
    require_no_leaks(b.store);
    remove_box(&b);
}

/* Grows the region, and overwrites the key with a record that lies in what was added; the writer is killed after its commit,
 * before the bump. */
static void overwrite_in_new_pages(void)
{
    uint64_t end = skv_committed_pages(b.store);
    for (uint64_t id = 1000; skv_committed_pages(b.store) == end; id++)
        REQUIRE_OK(put_value(b.store, id, 1, 60000, 0));
    put_and_die("put.published", pool[0], 2, 300000);
}

/* A reader looks up how far the region is allocated, and is held up.  The region grows, and the key, which was there all
 * the time, gets a record in the new part.  The reader must not take it for missing. */
static void read_across_growth(void)
{
    make_box(&b, 32 * MIB, 0);
    pick_keys_of_one_bucket();
    for (uint32_t i = 0; i < 400; i++)
        REQUIRE_OK(put_value(b.store, pool[i], 1, 30, 0));
    key_text text;
    skv_view view;
    skv_hit hit;
    skv_key key = key_for(b.store, pool[0], &text);
    skv_probe(b.store, skv_load(&one_bucket->table), &key, &hit);
    set_trap((uint8_t *)((uintptr_t)hit.slot & ~(uintptr_t)4095), overwrite_in_new_pages);
    skv_find(b.store, &key, &view);
    REQUIRE(trap_sprung, "the reader came by");
    bool valid = skv_validate(&view);
    REQUIRE(view.record || !valid, "a key that was there all the time is missing, and the reader believes it");
    REQUIRE(counter_of(b.store, pool[0], &f) == 2, "what was committed");
    require_no_leaks(b.store);
    remove_box(&b);
}

/* ---- The same place with another content ------------------------------------------------------------------ */

static uint64_t replaced_id;
static size_t replaced_len;

/* Overwrites until the key's record lies where it lay before, with another length. */
static void replace_in_place(void)
{
    key_text text;
    skv_view view;
    skv_key key = key_for(b.store, replaced_id, &text);
    skv_find(b.store, &key, &view);
    const skv_record *before = view.record;
    for (uint64_t i = 0; i < 3000; i++) {
        REQUIRE_OK(put_value(b.store, replaced_id, 100 + i, replaced_len, 0));
        skv_find(b.store, &key, &view);
        if (view.record == before)
            return;
    }
    REQUIRE(false, "the record never came back to its place");
}

/* touch() looks at a record without an expiry, gives the lock up to allocate room for a copy, and meanwhile the record is
 * replaced, twice, so that a longer one lies at the same place: the copy must not be written into the room for the shorter. */
static void touch_of_a_replaced_value(void)
{
    key_text text;
    make_box(&b, MIB, 0);
    replaced_id = 7;
    replaced_len = 34;                  /* 16 + 12 + 34 = 62, + 8 = 70: needs the next class   */
    REQUIRE_OK(put_value(b.store, 7, 1, 26, 0));        /* 54, + 8 = 62: fits the same class   */
    for (uint64_t id = 20; id < 60; id++)
        REQUIRE_OK(put_value(b.store, id, id, 30, 0));  /* neighbours                          */
    skv_key key = key_for(b.store, 7, &text);
    skv_status status;
    at_point("write.unlocked", replace_in_place);
    INSIST(status, wait, skv_touch(b.store, &key, UINT64_C(1) << 38, NULL, &wait));
    REQUIRE_OK(status);
    REQUIRE(counter_of(b.store, 7, &f) >= 100 && f.len == 34, "the last value that was put");
    for (uint64_t id = 20; id < 60; id++)
        REQUIRE(counter_of(b.store, id, &f) == id, "the neighbour %d", (int)id);
    for (uint64_t id = 100; id < 3000; id++)    /* what lies behind the copy is allocated now */
        REQUIRE_OK(put_value(b.store, id, id, 30, 0));
    REQUIRE(counter_of(b.store, 7, &f) >= 100, "the copy");
    for (uint64_t id = 20; id < 3000; id == 59 ? id = 100 : id++)
        REQUIRE(counter_of(b.store, id, &f) == id, "the neighbour %d", (int)id);
    require_no_leaks(b.store);
    remove_box(&b);
}

/* compact() looks at a run, allocates its new place, and meanwhile the value is replaced so that a longer one lies at the
 * same place: the copy must be of the longer one, or not be made. */
static void move_of_a_replaced_run(void)
{
    skv_compact_report report;
    make_box(&b, 16 * MIB, 0);
    REQUIRE_OK(put_value(b.store, 1, 1, 300000, 0));
    REQUIRE_OK(put_value(b.store, 7, 2, 70000, 0));
    REQUIRE_OK(delete_id(b.store, 1));          /* a gap below, so that the run is worth moving */
    replaced_id = 7;
    replaced_len = 120000;                      /* as many pages                               */
    at_point("evacuate.allocated", replace_in_place);
    REQUIRE_OK(compact_all(b.store, &report));
    uint64_t counter = counter_of(b.store, 7, &f);
    REQUIRE(counter == 2 || f.len == 120000, "counter %" PRIu64 ", %u bytes", counter, f.len);
    require_no_leaks(b.store);
    remove_box(&b);
}

/* ---- Dead processes ------------------------------------------------------------------------------------------ */

static _Atomic uint32_t *dead_lock;

/* As the first one does who waits for a lock, and as the lock's word is when nobody waits any more. */
static void change_waiters(void)
{
    atomic_fetch_xor(dead_lock, SKV_LOCK_WAITERS);
}

/* Who reclaims a dead process's slot takes its locks over while others begin, or cease, to wait for them, which changes
 * the waiters bit of the lock word between a look and the CAS.  No lock may keep the name of a slot that is free. */
static void reclaim_while_others_wait(void)
{
    key_text text;
    make_box(&b, MIB, 0);
    for (int waiting = 0; waiting < 2; waiting++) {
        uint32_t slots;
        put_and_die("write.locked", 7, 1, 60);
        dead_lock = &skv_bucket_of(b.store, key_for(b.store, 7, &text).hash)->lock;
        if (waiting)
            change_waiters();
        at_point("repair.seen", change_waiters);
        REQUIRE_OK(skv_reclaim_dead(b.store, &slots));
        REQUIRE(!hook_point, "its lock was taken over");
        uint32_t owner = skv_load(dead_lock) & SKV_LOCK_OWNER_MASK;
        REQUIRE(owner == 0 || skv_load(&b.store->procs[owner - 1].state) == SKV_PROC_USED,
                "the lock still names slot %u, which is free for the next process", owner - 1);
    }
    require_no_leaks(b.store);
    remove_box(&b);
}

static void attach_body(void *context)
{
    skv_status status;
    (void)context;
    at_point("repair.taken", die);
    status = skv_register(b.store);
    REQUIRE(status == SKV_OK, "status %d", (int)status);
}

/* All 1,023 slots belong to dead processes, one of which holds a lock.  A process that has no slot yet must repair that
 * first, and is killed in the middle: the lock must name somebody whose death can be told. */
static void death_in_a_full_process_table(void)
{
    make_box(&b, 2 * MIB, 0);
    put_and_die("write.locked", 7, 1, 60);
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++)
        skv_store(&b.store->procs[slot].state, SKV_PROC_USED);
    int status = wait_child(start_child(attach_body, NULL, 10));
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "it repairs, and is killed");
    double start = now_s();
    skv_wait wait = patient();
    uint8_t value[60];
    key_text text;
    make_value(value, 7, 2, sizeof value);
    skv_item item = {.key = key_for(b.store, 7, &text), .value = value, .value_len = sizeof value, .type = SKV_T_BYTES};
    skv_status put;
    do
        put = skv_put(b.store, &item, SKV_PUT_ANY, 0, &wait);
    while (put == SKV_BUSY && now_s() - start < 2);
    REQUIRE(put == SKV_OK, "the lock of a dead process without a slot: status %d after %.1f s", (int)put, now_s() - start);
    require_no_leaks(b.store);
    remove_box(&b);
}

#define BATCH 8u

static void batch_body(void *context)
{
    skv_item items[BATCH];
    key_text texts[BATCH];
    uint8_t values[BATCH][60];
    skv_status status;
    (void)context;
    for (uint64_t i = 0; i < BATCH; i++) {
        make_value(values[i], i, 2, sizeof values[i]);
        items[i] = (skv_item){.key = key_for(b.store, i, &texts[i]), .value = values[i], .value_len = sizeof values[i],
                              .type = SKV_T_BYTES};
    }
    at_point("batch.committed", die);
    INSIST(status, wait, skv_put_many(b.store, items, BATCH, &wait));
    REQUIRE_OK(status);
}

/* A process is killed when its batch is committed, and a second one while it repairs one of the buckets: the lock names the
 * second, the intent the first.  Whoever reclaims their slots must not give up the first one's status before that bucket
 * was finished from it. */
static void reclaim_behind_a_dead_repairer(void)
{
    make_box(&b, MIB, 0);
    for (uint64_t id = 0; id < BATCH; id++)
        REQUIRE_OK(put_value(b.store, id, 1, 60, 0));
    int status = wait_child(start_child(batch_body, NULL, 10));
    REQUIRE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the batch is committed");
    put_and_die("repair.taken", 3, 3, 60);
    REQUIRE_OK(skv_reclaim_dead(b.store, NULL));
    for (uint64_t id = 0; id < BATCH; id++)
        REQUIRE(counter_of(b.store, id, &f) == 2, "key %d of a batch that was committed", (int)id);
    require_no_leaks(b.store);
    remove_box(&b);
}

/* Many processes die, each inside a batch over the same buckets, each repairing what the one before left. */
static void death_after_death(void)
{
    make_box(&b, MIB, 0);
    for (uint64_t i = 0; i < 60; i++)
        put_and_die(i % 2 ? "repair.settled" : "write.locked", 7, 1, 60);
    double start = now_s();
    REQUIRE_OK(put_value(b.store, 7, 3, 60, 0));
    REQUIRE(now_s() - start < 0.1 * SLOW, "%.0f ms", (now_s() - start) * 1e3);
    require_no_leaks(b.store);
    remove_box(&b);
}

/* ---- Spare blocks --------------------------------------------------------------------------------- */

static void put_alone(uint64_t id, uint64_t counter)
{
    one_thread = true;
    REQUIRE_OK(put_value(b.store, id, counter, 60, 0));
    one_thread = false;
}

static void steal_and_use(void *context)
{
    (void)context;
    skv_spares_free(b.store);
    for (uint64_t id = 100; id < 400; id++)
        REQUIRE_OK(put_value(b.store, id, id, 60, 0));
}

/* An overwrite keeps the block that it replaced.  Another process takes it, and uses it for records of its own.  The next
 * overwrite here must not write into it. */
static void stolen_spare(void)
{
    make_box(&b, MIB, 0);
    put_alone(1, 1);
    put_alone(1, 2);
    finish_child(start_child(steal_and_use, NULL, 10));
    put_alone(1, 3);
    for (uint64_t id = 100; id < 400; id++)
        REQUIRE(counter_of(b.store, id, &f) == id, "key %" PRIu64 " of the other process", id);
    REQUIRE(counter_of(b.store, 1, &f) == 3, "the key itself");
    require_no_leaks(b.store);
    remove_box(&b);
}

/* ---- Growth for others -------------------------------------------------------------------------- */

static uint64_t taken;

static void take_all_room(void)
{
    skv_status status = SKV_OK;
    for (taken = 0; status == SKV_OK; taken += status == SKV_OK)
        status = put_value(b.store, 100 + taken, taken + 1, 60000, 0);
    REQUIRE(status == SKV_FULL, "status %d", (int)status);
}

/* The region grows for a large value, and before that takes its pages, others use them up: then there is no room. */
static void grown_for_others(void)
{
    make_box(&b, MIB, 0);
    at_point("grow.published", take_all_room);
    skv_status status = put_value(b.store, 1, 1, 120000, 0);
    REQUIRE(hook_point == NULL && taken > 0, "nobody took the room");
    REQUIRE(status == SKV_FULL, "status %d", (int)status);
    for (uint64_t i = 0; i < taken; i++)
        REQUIRE(counter_of(b.store, 100 + i, &f) == i + 1, "key %" PRIu64, 100 + i);
    require_no_leaks(b.store);
    remove_box(&b);
}

/* ---- A header that becomes ready while it is read ------------------------------------------------- */

static void create_it(void)
{
    bool created;
    skv_params p = params_for(MIB, 0);
    REQUIRE_OK(skv_region_create(b.fd, &p, false, &created));
}

/* Its parts are of different moments then, and none of that is damage. */
static void ready_while_it_is_read(void)
{
    const char *points[] = {"header.state_read", "header.read"};
    for (size_t i = 0; i < COUNT(points); i++) {
        skv_fixed fixed;
        open_object(&b);
        at_point(points[i], create_it);
        REQUIRE_OK(skv_region_peek(b.fd, 1000, &fixed));
        REQUIRE(hook_point == NULL, "%s is not passed", points[i]);
        REQUIRE(fixed.magic == SKV_MAGIC && fixed.size == MIB, "the header that was written");
        remove_box(&b);
    }
}

static const test tests[] = {
    {"ready_while_it_is_read", ready_while_it_is_read},
    {"grown_for_others", grown_for_others},
    {"stolen_spare", stolen_spare},
    {"late_clock_bit", late_clock_bit},
    {"audit_after_an_audit_in_vain_small", audit_after_an_audit_in_vain_small},
    {"audit_after_an_audit_in_vain_run", audit_after_an_audit_in_vain_run},
    {"audit_after_a_killed_audit", audit_after_a_killed_audit},
    {"audit_before_the_repair", audit_before_the_repair},
    {"snapshot_beside_a_dead_put", snapshot_beside_a_dead_put},
    {"snapshot_beside_a_dead_touch", snapshot_beside_a_dead_touch},
    {"persisted_by_a_corpse", persisted_by_a_corpse},
    {"audit_of_a_rebuilt_table", audit_of_a_rebuilt_table},
    {"read_across_growth", read_across_growth},
    {"touch_of_a_replaced_value", touch_of_a_replaced_value},
    {"move_of_a_replaced_run", move_of_a_replaced_run},
    {"reclaim_while_others_wait", reclaim_while_others_wait},
    {"death_in_a_full_process_table", death_in_a_full_process_table},
    {"reclaim_behind_a_dead_repairer", reclaim_behind_a_dead_repairer},
    {"death_after_death", death_after_death},
};

/* test_races [NAME...] */
int main(int argc, char **argv)
{
    (void)argc;
    return run_tests(tests, COUNT(tests), argv + 1, 60);
}
