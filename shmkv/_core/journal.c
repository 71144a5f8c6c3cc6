/* journal.c: see journal.h. */
#include "journal.h"

#include <errno.h>
#include <stdlib.h>

static skv_log_state *log_of(const skv *store)
{
    return &store->header->log;
}

/* ---- Leading a sync, among processes ------------------------------------------------------------- */

#define TURN_MS 20u
#define PATIENCE 250u           /* slices of 20 ms, behind a process that may be stopped         */
#define AHEAD   (256u << 10)    /* bytes of the log that are laid out before they are needed      */

static bool try_lead(void *context, _Atomic uint32_t *lock)
{
    skv *store = context;
    return skv_register(store) == SKV_OK && skv_trylock(store, lock);
}

static void end_lead(void *context, _Atomic uint32_t *lock)
{
    skv_unlock(context, lock);
}

/* An error has poisoned the log. */
static void repair_lead(skv *store, void *unused)
{
    (void)unused;
    skv_wal_repair_lead(&store->journal->wal);
}

static bool free_dead(void *context, _Atomic uint32_t *lock)
{
    return skv_lock_repair_if_dead(context, lock, repair_lead, NULL);
}

static void wait_turn(void *context, _Atomic uint32_t *word, uint32_t seen, _Atomic uint32_t *lock)
{
    skv *store = context;
    if (!free_dead(store, lock))
        store->os.futex_wait(store->os.context, word, seen, TURN_MS);
}

static void wake_turns(void *context, _Atomic uint32_t *word)
{
    skv *store = context;
    store->os.futex_wake_all(store->os.context, word);
}

/* ---- After a death --------------------------------------------------------------------------------- */

/* The frame is whole, so its change counts, unless a repair of one of its buckets was first to say that it does not. */
static bool commit_dead_writer(void *context)
{
    skv *store = context;
    if (skv_load(&log_of(store)->writer) == 0)          /* nobody's intent hangs on it         */
        return true;
    uint32_t slot = skv_load(&log_of(store)->writer) - 1;
    uint64_t pending = skv_load(&log_of(store)->writer_status), seen = pending;
    uint64_t committed = (pending & ~UINT64_C(3)) | SKV_BATCH_COMMITTED;
    if (slot >= SKV_PROCS || (pending & 3) != SKV_BATCH_PENDING)
        return false;
    bool done = atomic_compare_exchange_strong_explicit(&store->procs[slot].status, &seen, committed,
                                                        memory_order_acq_rel, memory_order_acquire);
    SKV_CRASH("journal.decided");
    return done || seen == committed;
}

/* An error has poisoned the log, and is told to whoever writes next. */
static void repair_log(skv *store, void *unused)
{
    (void)unused;
    skv_wal_repair_locked(&store->journal->wal, commit_dead_writer, store);
    SKV_CRASH("journal.repaired");
}

void skv_journal_repair_if_dead(skv *store)
{
    if (store->journal)
        skv_lock_repair_if_dead(store, &log_of(store)->lock, repair_log, NULL);
}

void skv_journal_repair_of(skv *store, uint32_t dead_slot)
{
    if (!store->journal)
        return;
    if (skv_lock_take_from(store, &log_of(store)->lock, dead_slot, repair_log, NULL))
        skv_unlock(store, &log_of(store)->lock);
    if (skv_lock_take_from(store, &log_of(store)->sync_lock, dead_slot, repair_lead, NULL))
        skv_unlock(store, &log_of(store)->sync_lock);
    if (skv_lock_take_from(store, &store->header->checkpoint_lock, dead_slot, NULL, NULL))
        skv_unlock(store, &store->header->checkpoint_lock);
}

static bool names(const _Atomic uint32_t *lock, uint32_t slot)
{
    return (skv_load(lock) & SKV_LOCK_OWNER_MASK) == slot + 1;
}

/* A process that has no journal yet, because it is just attaching, cannot put the log right; and one that died in the
 * middle of that may have left the decision to the next one. */
bool skv_journal_is_done_with(const skv *store, uint32_t dead_slot)
{
    const skv_log_state *log = log_of(store);
    if (!(store->fixed.flags & SKV_FLAG_DURABLE))
        return true;
    return !names(&log->lock, dead_slot) && !names(&log->sync_lock, dead_slot) && !names(&store->header->checkpoint_lock, dead_slot)
           && (skv_load(&log->lock) == 0 || skv_load(&log->writer) != dead_slot + 1);
}

/* For whoever has no deadline of its own: for so long as a process may be stopped without being missed.  It may be the
 * first thing that a forked child does: without a row nobody could take the lock from it. */
skv_status skv_journal_lock_within(skv *store, uint64_t timeout_ns)
{
    const uint64_t slices = timeout_ns ? timeout_ns / (TURN_MS * UINT64_C(1000000)) + 1 : PATIENCE;
    skv_status status = skv_register(store);
    if (status)
        return status;
    status = SKV_BUSY;
    for (uint64_t slice = 0; slice < slices && status == SKV_BUSY; slice++) {
        skv_wait wait = {.block = true, .shared = true};
        status = skv_journal_lock(store, &wait);
    }
    return status == SKV_BUSY ? SKV_TIMEOUT : status;
}

/* ---- Life -------------------------------------------------------------------------------------------- */

static int begin_log(skv_wal *wal, const skv_recovered *found)
{
    if (found->has_last)
        return skv_wal_resume_locked(wal, &found->last, found->synced, found->end, found->sequence);
    return skv_wal_begin_segment_locked(wal, found->last.number, found->end, found->sequence);
}

/* Is the log that this region belongs to in that folder?  Puts right what a dead writer left. */
static int join_log(skv *store, uint64_t timeout_ns)
{
    skv_status status = skv_journal_lock_within(store, timeout_ns);
    if (status)
        return status == SKV_LOG_FAILED ? -EROFS : status == SKV_TIMEOUT ? -ETIMEDOUT : -EBADMSG;
    int there = skv_wal_open_locked(&store->journal->wal);
    skv_journal_unlock(store);
    return there;
}

static void pause_turn(void *context)
{
    skv *store = context;
    store->os.pause(store->os.context);
}

static skv_journal *make_journal(skv *store, skv_files files, const uint8_t uuid[16])
{
    const skv_turns turns = {.context = store, .try_lead = try_lead, .end_lead = end_lead, .wait = wait_turn, .free_dead = free_dead, .wake_all = wake_turns,
                             .pause = pause_turn};
    skv_journal *journal = calloc(1, sizeof *journal);
    if (journal) {
        journal->files = files;
        skv_wal_init(&journal->wal, files, turns, log_of(store), uuid);
        journal->wal.ahead = AHEAD;
    }
    return journal;
}

int skv_journal_open(skv *store, skv_files files, const uint8_t uuid[16], const skv_recovered *found, uint64_t timeout_ns)
{
    skv_journal *journal = make_journal(store, files, uuid);
    if (!journal) {
        if (files.done)
            files.done(files.context);
        return -ENOMEM;
    }
    store->journal = journal;
    if (found)                  /* before there is a segment to join                          */
        skv_store(&log_of(store)->kept_from, found->snapshot_end);
    int status = found ? begin_log(&journal->wal, found) : join_log(store, timeout_ns);
    if (status)
        skv_journal_close(store);
    return status;
}

void skv_journal_close(skv *store)
{
    if (!store->journal)
        return;
    skv_files files = store->journal->files;
    skv_wal_close(&store->journal->wal);
    if (files.done)
        files.done(files.context);
    skv_frame_free(&store->journal->frame);
    free(store->journal);
    store->journal = NULL;
}

/* Another thread of the parent may have been opening a file, or making the buffer longer: that one is left alone. */
void skv_journal_after_fork(skv *store)
{
    if (!store->journal)
        return;
    skv_wal_close(&store->journal->wal);        /* what is surely its own                        */
    store->journal->frame = (skv_frame){0};
}

/* ---- Frames -------------------------------------------------------------------------------------------- */

static uint64_t wall_now_ms(const skv *store)
{
    uint64_t fake = skv_load(&store->fake_wall);
    return fake ? fake : store->os.wall_ms(store->os.context);
}

/* A wall clock that says less than the store's own would give times before 1970: 1 ms is long over as well. */
uint64_t skv_wall_of(const skv *store, uint64_t boot_ms)
{
    if (boot_ms == 0)
        return 0;
    uint64_t moved = wall_now_ms(store) + boot_ms - skv_now_ms(store);
    return (int64_t)moved > 0 ? moved : 1;
}

/* No ttl is longer than 30 years: the clock was wrong when it was written, or is now. */
#define MOST_TTL_MS UINT64_C(946728000000)

uint64_t skv_boot_of(const skv *store, uint64_t wall_ms)
{
    if (wall_ms == 0)
        return 0;
    uint64_t now = skv_now_ms(store), wall_now = wall_now_ms(store);
    if (wall_ms > wall_now && wall_ms - wall_now > MOST_TTL_MS)
        return now + MOST_TTL_MS;
    uint64_t moved = now + wall_ms - wall_now;
    return (int64_t)moved > 0 ? moved : 1;
}

bool skv_journal_add_put(skv *store, skv_frame *frame, const skv_item *item)
{
    return skv_frame_add(frame, &(skv_op){
        .kind = SKV_OP_PUT, .type = item->type, .bytes_key = item->key.is_bytes, .key_len = item->key.len,
        .value_len = item->value_len, .expires_ms = skv_wall_of(store, item->expires_ms), .key = item->key.data, .value = item->value});
}

bool skv_journal_add_delete(skv_frame *frame, const skv_key *key)
{
    return skv_frame_add(frame, &(skv_op){.kind = SKV_OP_DELETE, .bytes_key = key->is_bytes, .key_len = key->len, .key = key->data});
}

/* ---- A change -------------------------------------------------------------------------------------------- */

skv_status skv_journal_failure(const skv *store, int error)
{
    uint32_t poison = skv_load(&log_of(store)->failed);
    errno = poison ? (int)poison : -error;
    if (poison)
        return SKV_LOG_FAILED;
    return error == -ENOSPC || error == -EDQUOT ? SKV_DISK_FULL : error == -ENOMEM ? SKV_NO_MEMORY : SKV_LOG_ERROR;
}

skv_status skv_journal_lock(skv *store, skv_wait *wait)
{
    if (skv_likely(!store->journal))
        return SKV_OK;
    skv_status status = skv_lock(store, &log_of(store)->lock, wait, repair_log, NULL);
    if (status == SKV_OK && skv_load(&log_of(store)->failed)) {
        skv_journal_unlock(store);
        return skv_journal_failure(store, -EROFS);
    }
    return status;
}

skv_status skv_journal_write_locked(skv *store, skv_frame *frame, uint64_t pending, bool soon, uint64_t *position)
{
    if (skv_likely(!store->journal))
        return SKV_OK;
    skv_store(&log_of(store)->writer, skv_load(&store->slot) + 1);
    skv_store_release(&log_of(store)->writer_status, pending);
    SKV_CRASH("journal.named");
    int status = skv_wal_write_locked(&store->journal->wal, frame, soon, position);
    return status ? skv_journal_failure(store, status) : SKV_OK;
}

void skv_journal_accept_locked(skv *store, uint64_t position)
{
    if (store->journal)
        skv_wal_accept_locked(&store->journal->wal, position);
}

void skv_journal_unlock(skv *store)
{
    if (store->journal)
        skv_unlock(store, &log_of(store)->lock);
}

skv_status skv_journal_append(skv *store, skv_frame *frame, skv_wait *wait)
{
    uint64_t position;
    skv_status status = skv_journal_lock(store, wait);
    if (status)
        return status;
    skv_store_release(&log_of(store)->writer, 0);
    SKV_CRASH("journal.nameless");
    int error = skv_wal_append_locked(&store->journal->wal, frame, &position);
    skv_journal_unlock(store);
    SKV_CRASH("journal.appended");
    return error ? skv_journal_failure(store, error) : SKV_OK;
}

/* In turns.  Half of the time that is left, so that the sync beside a leader that is stopped comes within it. */
static uint32_t patience_of(const skv_wait *wait)
{
    const uint64_t turn_ns = TURN_MS * UINT64_C(1000000), now = wait->deadline_ns ? skv_monotonic_ns() : 0;
    uint64_t left = wait->timeout_ns ? wait->timeout_ns : SKV_WAL_PATIENCE * 2 * turn_ns;
    if (wait->deadline_ns && wait->deadline_ns < now + left)
        left = wait->deadline_ns > now ? wait->deadline_ns - now : 0;
    uint64_t turns = left / 2 / turn_ns;
    return turns == 0 ? 1 : turns < SKV_WAL_PATIENCE ? (uint32_t)turns : SKV_WAL_PATIENCE;
}

skv_status skv_journal_wait(skv *store, uint64_t position, const skv_wait *wait)
{
    if (!store->journal)
        return SKV_OK;
    int status = skv_wal_sync_within(&store->journal->wal, position, patience_of(wait));
    if (status == 0)
        return SKV_OK;
    skv_status told = skv_journal_failure(store, status);
    return told == SKV_LOG_FAILED ? told : SKV_NOT_STABLE;
}

skv_status skv_journal_sync(skv *store, uint64_t timeout_ns)
{
    if (!store->journal)
        return SKV_OK;
    /* A change is seen by readers a moment before the end of the log is moved behind it: who holds the lock meanwhile
     * has to be waited for, or a snapshot could show what is not synced. */
    skv_wait wait = {.timeout_ns = timeout_ns, .deadline_ns = timeout_ns ? skv_monotonic_ns() + timeout_ns : 0};
    skv_status status = skv_journal_lock_within(store, timeout_ns);
    if (status)
        return status;
    SKV_CRASH("journal.looked");
    uint64_t end = skv_load(&log_of(store)->end);
    int there = skv_wal_look_locked(&store->journal->wal);
    skv_journal_unlock(store);
    return there ? skv_journal_failure(store, there) : skv_journal_wait(store, end, &wait);
}

/* A dead writer's frame is decided first, whose name is then no longer needed. */
skv_status skv_journal_vouch(skv *store, bool *said)
{
    *said = false;
    if (!store->journal || !skv_wal_can_vouch(&store->journal->wal))
        return SKV_OK;
    skv_status status = skv_register(store);
    if (status)
        return status;
    skv_journal_repair_if_dead(store);
    if (!skv_trylock(store, &log_of(store)->lock))
        return SKV_OK;
    skv_store_release(&log_of(store)->writer, 0);
    SKV_CRASH("journal.vouching");
    int error = skv_load(&log_of(store)->failed) ? -EROFS : skv_wal_vouch_locked(&store->journal->wal, said);
    SKV_CRASH("journal.vouched");
    skv_journal_unlock(store);
    return error ? skv_journal_failure(store, error) : SKV_OK;
}
