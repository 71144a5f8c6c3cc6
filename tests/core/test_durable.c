/* test_durable.c: a durable store whose processes die, whose disk fails, whose memory is lost.
 *
 * How: each deed is done once to see which crash points it passes, and then again in a child that dies at each of
 *      them.  After that the data come back in two ways: from the disk alone, as if the memory were lost, and
 *      from the memory, after its repair.  Both must be the same, and be what was before the deed or what is after it.
 */
#include <pthread.h>

#include "disk.h"
#include "durable.h"

#define IDS       100u
#define NUMBER    9999u             /* the key that is counted                                    */
#define TTL_MS    5000000u

static found f;

/* ---- What is in it ----------------------------------------------------------------------------------- */

typedef struct shot {
    uint64_t counter[IDS];
    bool expires[IDS];
    int64_t number;
} shot;

static shot look(skv *store)
{
    shot s = {0};
    key_text text;
    for (uint64_t id = 0; id < IDS; id++) {
        s.counter[id] = counter_of(store, id, &f);
        s.expires[id] = f.there && f.expires_ms;
    }
    (void)key_for(store, NUMBER, &text);
    if (get_id(store, NUMBER, &f))
        memcpy(&s.number, f.value, sizeof s.number);
    return s;
}

static bool same(const shot *x, const shot *y)
{
    return memcmp(x->counter, y->counter, sizeof x->counter) == 0 && memcmp(x->expires, y->expires, sizeof x->expires) == 0
           && x->number == y->number;
}

static shot on_disk(void)
{
    box c;
    skv_restored out;
    make_box(&c, SIZE, 0);
    fill_from_disk(&c, &out);
    shot s = look(c.store);
    remove_box(&c);
    return s;
}

static skv_status put_stable(uint64_t id, uint64_t counter, uint64_t ttl_ms)
{
    uint8_t value[200];
    key_text text;
    size_t len = VALUE_HEAD + (id * 7 + counter) % 150;
    make_value(value, id, counter, len);
    skv_item item = {.key = key_for(b.store, id, &text), .value = value, .value_len = len, .type = SKV_T_BYTES,
                     .expires_ms = ttl_ms ? skv_now_ms(b.store) + ttl_ms : 0};
    skv_wait wait = {.block = true, .shared = true, .stable = true};
    return skv_put(b.store, &item, SKV_PUT_ANY, 0, &wait);
}

/* Acknowledged and on disk. */
static void setup(void)
{
    need_folder();
    open_store();
    b.store->journal->wal.ahead = 0;        /* the deed lays out what is ahead of it              */
    for (uint64_t id = 0; id < 40; id++)
        REQUIRE_OK(put_value(b.store, id, id + 1, VALUE_HEAD + id, id % 2 ? skv_now_ms(b.store) + TTL_MS : 0));
    REQUIRE_OK(skv_journal_sync(b.store, 0));
    b.store->journal->wal.ahead = 40000;
}

static void teardown(void)
{
    remove_box(&b);
    empty_folder();
}

/* ---- Deeds ---------------------------------------------------------------------------------------------- */

static skv_status put_new(void) { return put_stable(50, 7, 0); }
static skv_status put_over(void) { return put_stable(2, 8, TTL_MS); }
static skv_status remove_one(void) { return delete_id(b.store, 3); }
static skv_status remove_none(void) { return delete_id(b.store, 90) == SKV_MISSING ? SKV_OK : SKV_CORRUPT; }

static skv_status touch(uint64_t id, uint64_t ttl_ms)
{
    key_text text;
    skv_key key = key_for(b.store, id, &text);
    skv_status status;
    INSIST(status, wait, skv_touch(b.store, &key, ttl_ms ? skv_now_ms(b.store) + ttl_ms : 0, NULL, &wait));
    return status;
}

static skv_status touch_first(void) { return touch(4, TTL_MS); }
static skv_status touch_again(void) { return touch(5, 2 * TTL_MS); }
static skv_status persist(void) { return touch(7, 0); }

static skv_status count(void)
{
    key_text text;
    skv_key key = key_for(b.store, NUMBER, &text);
    int64_t result;
    skv_status status;
    INSIST(status, wait, skv_incr(b.store, &key, 5, 5, 0, &result, &wait));
    return status;
}

enum { BATCH = 18 };
static uint64_t batch_counter = 77;

static skv_status put_batch(void)
{
    static uint8_t values[BATCH][64];
    key_text texts[BATCH];
    skv_item items[BATCH];
    for (uint64_t i = 0; i < BATCH; i++) {
        uint64_t id = i < 9 ? 10 + i : 60 + i;
        make_value(values[i], id, batch_counter, VALUE_HEAD + i);
        items[i] = (skv_item){.key = key_for(b.store, id, &texts[i]), .value = values[i], .value_len = VALUE_HEAD + i, .type = SKV_T_BYTES};
    }
    skv_status status;
    INSIST(status, wait, skv_put_many(b.store, items, BATCH, &wait));
    return status;
}

static skv_status remove_batch(void)
{
    key_text texts[BATCH];
    skv_item items[BATCH];
    uint32_t removed;
    for (uint64_t i = 0; i < BATCH; i++)
        items[i] = (skv_item){.key = key_for(b.store, 30 + i, &texts[i])};
    skv_status status;
    INSIST(status, wait, skv_delete_many(b.store, items, BATCH, &removed, &wait));
    return status;
}

static skv_status clear(void) { return clear_all(b.store); }

static skv_status sync_all(void) { return skv_journal_sync(b.store, 0); }

static skv_status vouch(void)
{
    bool said;
    return skv_journal_vouch(b.store, &said);
}

static skv_status checkpoint(void)
{
    skv_checkpoint made;
    skv_wait wait = patient();
    return skv_make_checkpoint(b.store, &made, &wait);
}

typedef struct deed {
    const char *name;
    skv_status (*run)(void);
} deed;

static const deed deeds[] = {
    {"put_new", put_new}, {"put_over", put_over}, {"remove_one", remove_one}, {"remove_none", remove_none},
    {"touch_first", touch_first}, {"touch_again", touch_again}, {"persist", persist}, {"count", count},
    {"put_batch", put_batch}, {"remove_batch", remove_batch}, {"clear", clear}, {"checkpoint", checkpoint},
    {"vouch", vouch}, {"sync", sync_all},
};

/* ---- Deaths ----------------------------------------------------------------------------------------------------- */

typedef struct dying {
    skv_status (*run)(void);
    bool full;                      /* no write of the log succeeds                               */
} dying;

static void run_dying(void *context)
{
    const dying *d = context;
    if (d->full)
        fail_files(-ENOSPC, 1, UINT64_MAX);
    points = 0;
    d->run();
}

static void note_points(void *context)
{
    skv_crash_hook = note_point;
    run_dying(context);
}

static void die_at_point(void *context)
{
    skv_crash_hook = die_there;
    run_dying(context);
}

static void require_same_both_ways(const shot *before, const shot *after, const char *name, const char *point)
{
    shot lost = on_disk();
    uint32_t slots;
    REQUIRE_OK(skv_reclaim_dead(b.store, &slots));
    shot kept = look(b.store), again = on_disk();
    REQUIRE(same(&lost, &kept), "%s, killed at %s: the disk and the memory differ", name, point);
    REQUIRE(same(&again, &kept), "%s, killed at %s: the disk has changed by the repair", name, point);
    REQUIRE(same(&kept, before) || same(&kept, after), "%s, killed at %s: neither before nor after", name, point);
    require_clean(b.store);
    REQUIRE_OK(put_stable(95, 3, 0));
    shot more = look(b.store), there = on_disk();
    REQUIRE(more.counter[95] == 3 && same(&more, &there), "%s, killed at %s: the store does not go on", name, point);
}

static void deaths_of(const deed *d, bool full)
{
    dying it = {d->run, full};
    share_points();
    setup();
    shot before = look(b.store);
    REQUIRE(WIFEXITED(wait_child(start_child(note_points, &it, 20))), "%s", d->name);
    shot after = look(b.store);
    REQUIRE(!full || same(&before, &after), "%s: a full disk, and something was changed", d->name);
    teardown();
    uint32_t count_of = seen->count;
    REQUIRE(count_of < POINTS, "%s passes too many points", d->name);
    for (uint32_t i = 0; i < count_of; i++) {
        setup();
        die_at = i + 1;
        int status = wait_child(start_child(die_at_point, &it, 20));
        if (WIFSIGNALED(status))
            note_killed(seen->name[i]);
        require_same_both_ways(&before, &after, d->name, seen->name[i]);
        teardown();
    }
}

static void deaths(void)
{
    for (uint32_t i = 0; i < COUNT(deeds); i++)
        deaths_of(&deeds[i], false);
}

static void deaths_on_a_full_disk(void)
{
    for (uint32_t i = 0; i < COUNT(deeds); i++)
        if (deeds[i].run != checkpoint && deeds[i].run != remove_none)
            deaths_of(&deeds[i], true);
}

/* ---- Deaths in the repair ------------------------------------------------------------------------------------------- */

static const char *first_death;
static bool leaves_half;

static void die_first(const char *name)
{
    if (strcmp(name, first_death))
        return;
    if (leaves_half)
        real.write(real.context, b.store->journal->wal.handle, "half a frame", 12,
                   SKV_SEGMENT_HEAD + skv_load(&b.store->header->log.end) - b.store->journal->wal.base);
    kill(getpid(), SIGKILL);
}

static void first_dies(void *context)
{
    skv_crash_hook = die_first;
    ((const deed *)context)->run();
}

static skv_status reclaim(void)
{
    return skv_reclaim_dead(b.store, NULL);
}

static void corpse(const deed *d, const char *point, bool half)
{
    setup();
    real = b.store->journal->files;
    first_death = point;
    leaves_half = half;
    int status = wait_child(start_child(first_dies, (void *)(uintptr_t)d, 20));
    REQUIRE(WIFSIGNALED(status), "%s does not pass %s", d->name, point);
}

static void deaths_of_repairers(void)
{
    static const struct { uint32_t deed; const char *point; bool half; } corpses[] = {
        {1, "journal.named", true}, {1, "wal.written", false}, {1, "logged.announced", false}, {1, "wal.counted", false},
        {2, "wal.written", false}, {2, "logged.announced", false}, {8, "journal.named", true}, {8, "wal.written", false},
        {8, "batch.announced", false}, {9, "wal.written", false}, {10, "wal.written", false}, {5, "logged.committed", false},
        {12, "journal.vouching", true}, {12, "wal.written", false}, {12, "wal.counted", false},
    };
    dying it = {reclaim, false};
    for (uint32_t c = 0; c < COUNT(corpses); c++) {
        const deed *d = &deeds[corpses[c].deed];
        setup();
        shot before = look(b.store);
        REQUIRE_OK(d->run());
        shot after = look(b.store);
        teardown();
        share_points();
        corpse(d, corpses[c].point, corpses[c].half);
        REQUIRE(WIFEXITED(wait_child(start_child(note_points, &it, 20))), "repair");
        teardown();
        uint32_t count_of = seen->count;
        for (uint32_t i = 0; i < count_of; i++) {
            corpse(d, corpses[c].point, corpses[c].half);
            die_at = i + 1;
            if (WIFSIGNALED(wait_child(start_child(die_at_point, &it, 20))))
                note_killed(seen->name[i]);
            require_same_both_ways(&before, &after, d->name, seen->name[i]);
            teardown();
        }
    }
}

/* ---- Deaths while it is opened ------------------------------------------------------------------------------------------ */

static skv_status open_again(void)
{
    box c;
    skv_restored out;
    make_box(&c, SIZE, 0);
    fill_from_disk(&c, &out);
    remove_box(&c);
    return SKV_OK;
}

/* And gets ready to append, as the first process after a crash does. */
static skv_status go_on_again(void)
{
    box c;
    skv_restored out;
    skv_files files;
    make_box(&c, SIZE, SKV_FLAG_DURABLE);
    fill_from_disk(&c, &out);
    REQUIRE(skv_os_files(folder_fd, &files) == 0, "the folder");
    REQUIRE(skv_journal_open(c.store, files, uuid, &out.found, 0) == 0, "the journal");
    remove_box(&c);
    return SKV_OK;
}

static void deaths_while_restoring(void)
{
    const deed d = {"restore", open_again}, e = {"open", go_on_again};
    only = "restore.";
    deaths_of(&d, false);
    only = "wal.";
    deaths_of(&e, false);
    only = "";
}

/* ---- Calls that fail ------------------------------------------------------------------------------------------------------ */

static bool is_told(skv_status status)
{
    return status == SKV_DISK_FULL || status == SKV_LOG_ERROR || status == SKV_LOG_FAILED || status == SKV_NOT_STABLE;
}

/* The n-th call fails, once, or all from then on. */
static void failing_calls_of(const deed *d, int error, uint64_t count_of)
{
    for (uint64_t n = 1;; n++) {
        setup();
        real = b.store->journal->files;
        shot before = look(b.store);
        fail_files(error, n, count_of);
        skv_status status = d->run();
        if (status == SKV_OK && !(b.store->header->log.failed))
            status = skv_journal_sync(b.store, 0);
        bool failed = calls >= n;
        fail_files(error, UINT64_MAX, 0);
        REQUIRE(status == SKV_OK || is_told(status), "%s, call %d: status %d", d->name, (int)n, (int)status);
        const bool poisoned = skv_load(&b.store->header->log.failed);
        shot kept = look(b.store), disk = on_disk();
        if (status && status != SKV_NOT_STABLE && !poisoned)
            REQUIRE(same(&kept, &before), "%s, call %d fails, and something was changed", d->name, (int)n);
        REQUIRE(same(&kept, &disk), "%s, call %d fails: the disk and the memory differ", d->name, (int)n);
        REQUIRE(!poisoned || put_stable(95, 3, 0) == SKV_LOG_FAILED, "%s, call %d: the log has failed, and goes on", d->name, (int)n);
        REQUIRE(poisoned || put_stable(95, 3, 0) == SKV_OK, "%s, call %d: the store does not go on", d->name, (int)n);
        require_clean(b.store);
        teardown();
        if (!failed)
            return;
        REQUIRE(n < 200, "%s makes calls for ever", d->name);
    }
}

static void failing_calls(void)
{
    for (uint32_t i = 0; i < COUNT(deeds); i++) {
        failing_calls_of(&deeds[i], -ENOSPC, 1);
        failing_calls_of(&deeds[i], -EIO, 1);
        failing_calls_of(&deeds[i], -EIO, UINT64_MAX);
    }
}

static int never_rename(void *c, const char *from, const char *to) { (void)c, (void)from, (void)to; return -EIO; }

/* The log goes on in a new file, and the one before it, which was laid out ahead of its end, stays as well. */
static void snapshots_that_fail(void)
{
    setup();
    REQUIRE_OK(put_stable(50, 1, 0));
    b.store->journal->files.rename = never_rename;
    for (uint64_t i = 2; i < 6; i++) {
        REQUIRE(checkpoint() == SKV_LOG_ERROR, "it cannot be renamed");
        REQUIRE(skv_load(&b.store->header->log.segment) == i, "the log did not go on in a new file");
        REQUIRE_OK(put_stable(50, i, 0));
        shot kept = look(b.store), disk = on_disk();
        REQUIRE(kept.counter[50] == i && same(&kept, &disk), "after %d snapshots that failed", (int)i - 1);
    }
    teardown();
}

/* ---- A leader that is stopped ------------------------------------------------------------------------------------------------ */

static void stop_as_leader(const char *name)
{
    if (strcmp(name, "wal.leading") == 0)
        kill(getpid(), SIGSTOP);
}

static void lead_and_stop(void *context)
{
    (void)context;
    skv_crash_hook = stop_as_leader;
    put_stable(20, 5, 0);
}

static void stopped_leader(void)
{
    setup();
    pid_t child = start_child(lead_and_stop, NULL, 30);
    int status;
    REQUIRE(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status), "it does not lead");
    double start = now_s();
    REQUIRE_OK(put_stable(21, 6, 0));
    REQUIRE(now_s() - start < 10 * SLOW, "who waits for a sync waits for a stopped process");
    kill(child, SIGKILL);
    wait_child(child);
    uint32_t slots;
    REQUIRE_OK(skv_reclaim_dead(b.store, &slots));
    REQUIRE_OK(put_stable(22, 6, 0));
    shot kept = look(b.store), disk = on_disk();
    REQUIRE(same(&kept, &disk) && kept.counter[20] == 5, "what the stopped one wrote");
    teardown();
}

/* ---- Rows that a lock of the log names --------------------------------------------------------------------------------------- */

static uint32_t holder(const _Atomic uint32_t *lock) { return (skv_load(lock) & SKV_LOCK_OWNER_MASK) - 1; }

/* By a process that is just attaching, and has no journal yet to put the log right with. */
static void require_kept_without_journal(uint32_t slot, const char *point)
{
    skv_journal *journal = b.store->journal;
    b.store->journal = NULL;
    REQUIRE_OK(skv_reclaim_dead(b.store, NULL));
    b.store->journal = journal;
    REQUIRE(skv_load(&b.store->procs[slot].state) == SKV_PROC_USED, "killed at %s: its row is free, and the log's lock names it", point);
}

static void require_freed(uint32_t slot, const _Atomic uint32_t *lock, const char *point)
{
    REQUIRE_OK(skv_reclaim_dead(b.store, NULL));
    REQUIRE(skv_load(lock) == 0, "killed at %s: its lock is still held", point);
    REQUIRE(skv_load(&b.store->procs[slot].state) == SKV_PROC_FREE, "killed at %s: its row is not given back", point);
    require_clean(b.store);
}

static void rows_that_a_lock_names(void)
{
    static const deed writer = {"put", put_new}, snapshot = {"checkpoint", checkpoint}, repairer = {"reclaim", reclaim};
    skv_header *header;
    const struct { const deed *d; const char *point; size_t lock; } holders[] = {
        {&writer, "wal.written", offsetof(skv_header, log.lock)}, {&writer, "wal.leading", offsetof(skv_header, log.sync_lock)},
        {&snapshot, "checkpoint.made", offsetof(skv_header, checkpoint_lock)}};
    for (uint32_t i = 0; i < COUNT(holders); i++) {
        corpse(holders[i].d, holders[i].point, false);
        header = b.store->header;
        const _Atomic uint32_t *lock = (const void *)((const char *)header + holders[i].lock);
        uint32_t slot = holder(lock);
        REQUIRE(slot < SKV_PROCS, "killed at %s: nobody holds the lock", holders[i].point);
        require_kept_without_journal(slot, holders[i].point);
        require_freed(slot, lock, holders[i].point);
        teardown();
    }
    /* Who put the log right is dead as well: the frame of the first one is still to be decided. */
    corpse(&writer, "wal.written", false);
    header = b.store->header;
    uint32_t slot = holder(&header->log.lock);
    first_death = "repair.taken";
    REQUIRE(WIFSIGNALED(wait_child(start_child(first_dies, (void *)(uintptr_t)&repairer, 20))), "it repairs nothing");
    REQUIRE(holder(&header->log.lock) != slot, "the log is the repairer's");
    require_kept_without_journal(slot, "wal.written");
    require_freed(slot, &header->log.lock, "wal.written");
    teardown();
}

/* ---- Stopped at each point ---------------------------------------------------------------------------------------------------- */

#define STOPPED_MS 40u

/* Where others are held up: from taking the log's lock to giving it back.  What a prefix stands for is all of it. */
static bool is_in_the_append(const char *point)
{
    static const char *const places[] = {
        "logged.appending", "batch.appending", "journal.named", "wal.written", "wal.laid_out", "logged.committed", "batch.committed",
        "wal.counted", "wal.appended",
        "journal.looked", "journal.vouching", "journal.vouched",
        "wal.shortened", "wal.rotating", "wal.made", "wal.head_", "wal.folder_synced", "wal.noted", "wal.begun",
    };
    for (uint32_t i = 0; i < COUNT(places); i++)
        if (strncmp(point, places[i], strlen(places[i])) == 0)
            return true;
    return false;
}

static void stop_there(const char *name)
{
    (void)name;
    if (++points == die_at)
        kill(getpid(), SIGSTOP);
}

static void stop_at_point(void *context)
{
    skv_crash_hook = stop_there;
    REQUIRE_OK(((const deed *)context)->run());
}

/* One that the stopped process has no lock of. */
static uint64_t free_id(void)
{
    key_text text;
    for (uint64_t id = 70; id < IDS; id++) {
        skv_key key = key_for(b.store, id, &text);
        if (skv_load(&skv_bucket_of(b.store, key.hash)->lock) == 0)
            return id;
    }
    return IDS;
}

static skv_status put_within(uint64_t id, uint64_t counter, bool stable, uint32_t *blamed)
{
    uint8_t value[VALUE_HEAD];
    key_text text;
    make_value(value, id, counter, sizeof value);
    skv_item item = {.key = key_for(b.store, id, &text), .value = value, .value_len = sizeof value, .type = SKV_T_BYTES};
    skv_wait wait = {.block = true, .shared = true, .stable = stable, .timeout_ns = STOPPED_MS * UINT64_C(1000000), .blamed_slot = SKV_NO_PROC};
    skv_status status;
    do
        status = skv_put(b.store, &item, SKV_PUT_ANY, 0, &wait);
    while (status == SKV_BUSY);
    *blamed = wait.blamed_slot;
    return status;
}

static void beside_a_stopped(const deed *d, const char *point, bool stable)
{
    int status;
    uint32_t blamed;
    pid_t child = start_child(stop_at_point, (void *)(uintptr_t)d, 60);
    REQUIRE(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status), "%s does not pass %s", d->name, point);
    uint64_t id = free_id();
    REQUIRE(id < IDS, "%s, stopped at %s: all buckets are locked", d->name, point);
    double start = now_s();
    skv_status put = put_within(id, 5, stable, &blamed);
    REQUIRE(now_s() - start < 5 * SLOW, "%s, stopped at %s: %.1f s", d->name, point, now_s() - start);
    if (is_in_the_append(point)) {
        REQUIRE(put == SKV_TIMEOUT, "%s, stopped at %s: status %d, though it has the log's lock", d->name, point, (int)put);
        REQUIRE(blamed < SKV_PROCS && skv_load(&b.store->procs[blamed].pid) == (uint32_t)child, "%s, stopped at %s: who is blamed?", d->name, point);
    } else {
        REQUIRE(put == SKV_OK, "%s, stopped at %s: others are held up, status %d", d->name, point, (int)put);
    }
    kill(child, SIGCONT);
    finish_child(child);
    REQUIRE_OK(put_within(id, 6, true, &blamed));
    shot kept = look(b.store), disk = on_disk();
    REQUIRE(kept.counter[id] == 6 && same(&kept, &disk), "%s, stopped at %s: what is on the disk", d->name, point);
    require_clean(b.store);
}

static bool was_passed_before(uint32_t point)
{
    for (uint32_t i = 0; i < point; i++)
        if (strcmp(seen->name[i], seen->name[point]) == 0)
            return true;
    return false;
}

/* A process that is stopped holds up others only where it appends to the log, and then nothing is lost when it goes on.
 * (`clear` locks every bucket, so that there is no key that it is not about.) */
static void stopped_at_each_point(void)
{
    static const uint32_t chosen[] = {0, 1, 2, 4, 7, 8, 9, 11, 12, 13};
    for (uint32_t n = 0; n < COUNT(chosen); n++) {
        const deed *d = &deeds[chosen[n]];
        dying it = {d->run, false};
        share_points();
        setup();
        REQUIRE(WIFEXITED(wait_child(start_child(note_points, &it, 20))), "%s", d->name);
        teardown();
        for (uint32_t i = 0; i < seen->count; i++) {
            if (was_passed_before(i))
                continue;
            setup();
            die_at = i + 1;
            beside_a_stopped(d, seen->name[i], n % 2);
            teardown();
        }
    }
}

/* ---- Killed behind a stopped one ------------------------------------------------------------------------------------------------ */

static const char *stop_name;
static uint64_t stopped_id;

static void stop_at_name(const char *name)
{
    if (strcmp(name, stop_name) == 0)
        kill(getpid(), SIGSTOP);
}

static skv_status put_free(void) { return put_stable(stopped_id, 7, 0); }

static void run_to_stop(void *context)
{
    skv_crash_hook = stop_at_name;
    REQUIRE_OK(((const deed *)context)->run());
}

static pid_t stopped_in(const deed *d, const char *point)
{
    int status;
    stop_name = point;
    pid_t child = start_child(run_to_stop, (void *)(uintptr_t)d, 30);
    REQUIRE(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status), "%s does not pass %s", d->name, point);
    return child;
}

/* A change is announced before the log is its own: who is killed there has changed nothing, whoever has the log. */
static void killed_behind_a_stopped_one(void)
{
    static const deed appending = {"put", put_free};
    static const deed waiting[] = {{"put", put_over}, {"remove", remove_one}, {"put_batch", put_batch}, {"remove_batch", remove_batch}};
    static const char *const stops[] = {"logged.appending", "wal.written", "wal.counted"};
    for (uint32_t i = 0; i < COUNT(waiting) * COUNT(stops); i++) {
        const deed *d = &waiting[i % COUNT(waiting)];
        uint32_t slots;
        setup();
        shot expected = look(b.store);
        pid_t dying = stopped_in(d, i % COUNT(waiting) < 2 ? "logged.announced" : "batch.announced");
        stopped_id = free_id();
        expected.counter[stopped_id] = 7;
        pid_t stopped = stopped_in(&appending, stops[i / COUNT(waiting)]);
        kill(dying, SIGKILL);
        wait_child(dying);
        REQUIRE_OK(skv_reclaim_dead(b.store, &slots));
        REQUIRE(slots == 1, "%u rows are given back", slots);
        kill(stopped, SIGCONT);
        finish_child(stopped);
        shot kept = look(b.store), disk = on_disk();
        REQUIRE(same(&kept, &expected) && same(&disk, &expected), "%s, killed behind one that is stopped at %s", d->name, stop_name);
        require_clean(b.store);
        REQUIRE_OK(d->run());
        teardown();
    }
}

/* ---- A snapshot beside a writer ---------------------------------------------------------------------------------------------- */

static pid_t slow_writer;
static _Atomic bool goes_on;
static uint64_t rotated_at;

static void stop_committed(const char *name)
{
    if (strcmp(name, "logged.committed") == 0)
        kill(getpid(), SIGSTOP);
}

static void write_and_stop(void *context)
{
    (void)context;
    skv_crash_hook = stop_committed;
    put_stable(20, 555, 0);
}

static void *wake_writer(void *unused)
{
    (void)unused;
    usleep(200000);
    atomic_store(&goes_on, true);
    kill(slow_writer, SIGCONT);
    return NULL;
}

/* When the log goes on in a new file, a writer commits there, and is stopped before the end of the log is behind its
 * frame; the snapshot has its change, and may not be there before the frame is on stable storage. */
static void beside_a_writer(const char *name)
{
    static pthread_t waker;
    int status;
    if (strcmp(name, "checkpoint.rotated") == 0) {
        rotated_at = skv_load(&b.store->header->log.end);
        slow_writer = start_child(write_and_stop, NULL, 30);
        REQUIRE(waitpid(slow_writer, &status, WUNTRACED) == slow_writer && WIFSTOPPED(status), "it does not commit");
        REQUIRE(counter_of(b.store, 20, &f) == 555, "readers do not see it");
    } else if (strcmp(name, "checkpoint.synced") == 0) {
        REQUIRE(pthread_create(&waker, NULL, wake_writer, NULL) == 0, "pthread_create");
    } else if (strcmp(name, "checkpoint.renamed") == 0) {
        REQUIRE(goes_on, "the snapshot did not wait for a change that it shows");
        REQUIRE(skv_load(&b.store->header->log.synced) > rotated_at, "a change that it shows is not synced");
        pthread_join(waker, NULL);
    }
}

static void snapshot_beside_a_writer(void)
{
    setup();
    skv_crash_hook = beside_a_writer;
    REQUIRE_OK(checkpoint());
    skv_crash_hook = NULL;
    finish_child(slow_writer);
    shot kept = look(b.store), disk = on_disk();
    REQUIRE(kept.counter[20] == 555 && same(&kept, &disk), "what the writer wrote");
    teardown();
}

/* ---- A leader that dies with bad news ------------------------------------------------------------------------------------------- */

static int failing_sync(void *c, int h) { (void)c, (void)h; return -EIO; }

static void lead_into_failure(void *context)
{
    b.store->journal->wal.files.sync = failing_sync;
    first_dies(context);
}

static uint32_t leads_repaired;

static void count_repaired_leads(const char *name)
{
    leads_repaired += strcmp(name, "wal.lead_repaired") == 0;
}

/* The sync that failed was told to the dead one alone.  Whoever leads next writes again what was to be synced. */
static void leader_with_bad_news(void)
{
    static const deed writer = {"put", put_new};
    for (uint32_t waits = 0; waits < 2; waits++) {
        setup();
        first_death = "wal.told";
        REQUIRE(WIFSIGNALED(wait_child(start_child(lead_into_failure, (void *)(uintptr_t)&writer, 20))), "it does not lead");
        REQUIRE(!skv_load(&b.store->header->log.failed), "it has told others");
        leads_repaired = 0;
        skv_crash_hook = count_repaired_leads;
        if (!waits)
            REQUIRE_OK(skv_reclaim_dead(b.store, NULL));
        REQUIRE_OK(put_stable(51, 1, 0));
        skv_crash_hook = NULL;
        REQUIRE(leads_repaired == 1, "its bad news were forgotten");
        shot kept = look(b.store), disk = on_disk();
        REQUIRE(same(&kept, &disk) && kept.counter[50] == 7, "what the dead one wrote");
        teardown();
    }
}

/* ---- Power cuts -------------------------------------------------------------------------------------------------------- */

static uint64_t seed = 1;
static uint32_t cuts = 2;               /* after each change of the disk                             */
static uint64_t states;

typedef struct outage {
    disk *d;
    rng r;
    box left;                       /* what comes back is put into it                            */
    shot before, other;             /* acknowledged; and what else came back during one change   */
    bool has_other;
} outage;

/* All that was acknowledged is there, and the change that is being made is there as a whole or not at all. */
static void cut_and_look(void *context)
{
    outage *o = context;
    for (uint32_t i = 0; i < cuts; i++) {
        skv_restored out;
        disk *rest = disk_cut(o->d, &o->r);
        REQUIRE_OK(clear_all(o->left.store));
        fill_from(&o->left, files_on(rest), &out);
        shot s = look(o->left.store);
        disk_free(rest);
        states++;
        if (same(&s, &o->before))
            continue;
        REQUIRE(!o->has_other || same(&s, &o->other), "after one change two others come back");
        o->other = s;
        o->has_other = true;
    }
}

static skv_status change_something(rng *r)
{
    uint64_t id = below(r, 60);
    skv_status status;
    switch (below(r, 14)) {
    case 0:
        return checkpoint();
    case 1: case 2:
        batch_counter++;
        return put_batch();
    case 3:
        return remove_batch();
    case 4:
        return below(r, 4) ? count() : clear();
    case 5: case 6:
        status = delete_id(b.store, id);
        return status == SKV_MISSING ? SKV_OK : status;
    case 7: case 8:
        status = touch(id, below(r, 2) ? TTL_MS : 0);
        return status == SKV_MISSING ? SKV_OK : status;
    default:
        return put_stable(id, 1 + below(r, 1000), below(r, 3) ? 0 : TTL_MS);
    }
}

static void power_cuts(void)
{
    for (uint32_t round = 0; round < 3; round++) {
        skv_restored out;
        outage o = {.d = disk_new(), .r = {seed * 1000 + round}};
        make_box(&o.left, SIZE, 0);
        make_box(&b, SIZE, SKV_FLAG_DURABLE);
        o.d->context = &o;
        o.d->after = cut_and_look;
        fill_from(&b, files_on(o.d), &out);
        REQUIRE(skv_journal_open(b.store, files_on(o.d), uuid, &out.found, 0) == 0, "the journal");
        for (uint32_t i = 0; i < 60; i++) {
            o.before = look(b.store);
            o.has_other = false;
            REQUIRE_OK(change_something(&o.r));
            REQUIRE_OK(skv_journal_sync(b.store, 0));
            if (below(&o.r, 3) == 0)
                REQUIRE_OK(vouch());
            shot now = look(b.store);
            REQUIRE(!o.has_other || same(&o.other, &now), "something came back that nobody had stored");
        }
        o.d->after = NULL;
        remove_box(&b);
        remove_box(&o.left);
        disk_free(o.d);
    }
    printf("figure power_cuts %" PRIu64 "\n", states);
}

/* ---- Vouching ---------------------------------------------------------------------------------------------------------------- */

/* Once, if nobody writes, and while the log is good. */
static void vouching(void)
{
    bool said;
    setup();
    skv_log_state *log = &b.store->header->log;
    const uint64_t end = skv_load(&log->end);
    REQUIRE(skv_trylock(b.store, &log->lock), "the lock of the log");
    REQUIRE_OK(skv_journal_vouch(b.store, &said));
    REQUIRE(!said && skv_load(&log->end) == end, "beside somebody who writes");
    skv_unlock(b.store, &log->lock);
    REQUIRE_OK(skv_journal_vouch(b.store, &said));
    REQUIRE(said && skv_load(&log->end) == end + SKV_FRAME_HEAD, "the log ends at %" PRIu64, skv_load(&log->end));
    REQUIRE_OK(skv_journal_vouch(b.store, &said));
    REQUIRE(!said, "what is not synced is vouched for");
    REQUIRE_OK(skv_journal_sync(b.store, 0));
    REQUIRE_OK(skv_journal_vouch(b.store, &said));
    REQUIRE(!said, "it is said twice");
    REQUIRE_OK(put_stable(1, 2, 0));
    skv_store(&log->failed, EIO);
    REQUIRE(skv_journal_vouch(b.store, &said) == SKV_LOG_FAILED && !said, "of a log that has failed");
    teardown();
}

/* ---- Times of day ---------------------------------------------------------------------------------------------------------------- */

/* A ttl goes on while the memory is lost: what is left of it is the time of day's affair. */
static void times_of_day(void)
{
    setup();
    box c;
    skv_restored out;
    const uint64_t wall = 1800000000000u, now = 5000000u;
    skv_set_clock(b.store, now);
    skv_set_wall_clock(b.store, wall);
    REQUIRE_OK(put_value(b.store, 60, 1, 50, now + 10000));
    REQUIRE_OK(put_value(b.store, 61, 1, 50, now + 30000));
    REQUIRE_OK(put_value(b.store, 62, 1, 50, 0));
    make_box(&c, SIZE, 0);
    skv_set_clock(c.store, 700);            /* booted anew                                        */
    skv_set_wall_clock(c.store, wall + 20000);
    fill_from_disk(&c, &out);
    REQUIRE(!get_id(c.store, 60, &f), "its time is over");
    REQUIRE(get_id(c.store, 61, &f) && f.expires_ms == 700 + 10000, "expires at %" PRIu64, f.expires_ms);
    REQUIRE(get_id(c.store, 62, &f) && f.expires_ms == 0, "it never expires");
    remove_box(&c);
    teardown();
}

/* ---- All of it ---------------------------------------------------------------------------------------------------------------------- */

static const test tests[] = {
    {"deaths", deaths},
    {"deaths_on_a_full_disk", deaths_on_a_full_disk},
    {"deaths_of_repairers", deaths_of_repairers},
    {"deaths_while_restoring", deaths_while_restoring},
    {"failing_calls", failing_calls},
    {"snapshots_that_fail", snapshots_that_fail},
    {"stopped_leader", stopped_leader},
    {"stopped_at_each_point", stopped_at_each_point},
    {"killed_behind_a_stopped_one", killed_behind_a_stopped_one},
    {"rows_that_a_lock_names", rows_that_a_lock_names},
    {"snapshot_beside_a_writer", snapshot_beside_a_writer},
    {"leader_with_bad_news", leader_with_bad_news},
    {"power_cuts", power_cuts},
    {"vouching", vouching},
    {"times_of_day", times_of_day},
};

/* test_durable SEED CUTS [NAME...] */
int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        cuts = (uint32_t)strtoul(argv[2], NULL, 10);
    int status = run_tests(tests, COUNT(tests), argv + (argc > 2 ? 3 : argc), 590);
    remove_folder();
    print_killed();
    return status;
}
