/* journal.h: the log behind a durable store: every change is a frame in it before it counts in memory.
 *
 * What: one append for each change, made while the bucket locks are held, so that the order on disk is the order in
 *       memory for every key; one frame for a batch.
 * How:  the change is announced in the process's row (its intent, status pending) and in its buckets (txn); then,
 *       under the log's lock, 1 the frame is written, 2 the status is set to committed, which is the commit for all
 *       readers, 3 the end of the log is moved behind the frame.  Then it is applied like any committed batch.
 *
 *       killed before 1       nothing was changed: whoever repairs the bucket drops the intent
 *       killed in 1           the log's next holder finds no whole frame and cuts the file at the end of the log
 *       killed after 1        it finds a whole frame, sets the dead writer's status to committed, and moves the end
 *       killed after 2 or 3   the same, with nothing left to decide
 *
 *       A dead process's part in the log is put right before any bucket that it held.  Where somebody must know
 *       the fate of an intent while the log is being put right elsewhere, one CAS on the status decides: committed or
 *       idle; a frame whose status became idle is cut off.  (Write-ahead logging and the commit by one word: Gray and
 *       Reuter, Transaction Processing, 1993.)
 *
 * Concurrency: functions with _locked need the log's lock, which is taken while bucket locks are held and never the
 *       other way round.  One change of a process is in flight at a time (batch_mutex), as it has one status word.
 */
#ifndef SKV_JOURNAL_H
#define SKV_JOURNAL_H

#include "lock.h"
#include "recover.h"
#include "wal.h"

typedef struct skv_journal {
    skv_files files;
    skv_wal wal;
    skv_frame frame;            /* of changes of one key; guarded by batch_mutex              */
} skv_journal;

/* The functions below may be called for a store without a journal: then they do nothing, and succeed. */

/* ---- Life ---- */

/* What header.log.kept_from says while no files lead to what is in memory: a snapshot has to be written before anybody
 * relies on the log that goes on beside them. */
#define SKV_KEPT_NOWHERE UINT64_MAX

/* Gives a store its journal, which has `files` from then on, in every case.  `found`: what was recovered into it, or NULL: its region is in use already, and the log
 * with it; a process that is stopped in the middle of an append is waited for so long then (0 = five seconds).  0, or minus an errno. */
int skv_journal_open(skv *store, skv_files files, const uint8_t uuid[16], const skv_recovered *found, uint64_t timeout_ns);
void skv_journal_close(skv *store);
/* In a forked child: the parent's files and buffers may have been in any state. */
void skv_journal_after_fork(skv *store);

/* ---- Making frames ---- */

bool skv_journal_add_put(skv *store, skv_frame *frame, const skv_item *item);
bool skv_journal_add_delete(skv_frame *frame, const skv_key *key);
/* Unix time in ms of a time of the store's clock, and back; 0 = never stays 0. */
uint64_t skv_wall_of(const skv *store, uint64_t boot_ms);
uint64_t skv_boot_of(const skv *store, uint64_t wall_ms);

/* ---- A change ---- */

/* Buckets are locked, and the change is announced; or none are. */
skv_status skv_journal_lock(skv *store, skv_wait *wait);
/* Without buckets: not in slices, but until it is there, or SKV_TIMEOUT.  0 = five seconds. */
skv_status skv_journal_lock_within(skv *store, uint64_t timeout_ns);
/* The frame is in the file, and counts for nothing: the caller commits `pending`, or gives it up by a status.
 * `soon`: it is going to wait for a sync. */
skv_status skv_journal_write_locked(skv *store, skv_frame *frame, uint64_t pending, bool soon, uint64_t *position);
/* After the commit. */
void skv_journal_accept_locked(skv *store, uint64_t position);
void skv_journal_unlock(skv *store);
/* All of it for deletions that are right whether they are made in memory or not, as evictions are: once the frame is whole
 * it counts, whatever becomes of the caller. */
skv_status skv_journal_append(skv *store, skv_frame *frame, skv_wait *wait);
/* Returns when the log is on stable storage up to `position`; no lock is held. */
skv_status skv_journal_wait(skv *store, uint64_t position, const skv_wait *wait);
/* The same for all that is in the log.  Behind a process that is stopped in the middle of an append it waits so long;
 * 0 = five seconds. */
skv_status skv_journal_sync(skv *store, uint64_t timeout_ns);

/* Says in the log that all of it is on stable storage (wal.h), if nobody is writing to it: who writes says so too. */
skv_status skv_journal_vouch(skv *store, bool *said);

/* What a failed call on the log's files means; sets errno.  `error`: minus an errno. */
skv_status skv_journal_failure(const skv *store, int error);

/* The process slot of who has the log's lock; none of the table: nobody. */
static inline uint32_t skv_journal_holder(const skv *store)
{
    return (skv_load(&store->header->log.lock) & SKV_LOCK_OWNER_MASK) - 1;
}

/* ---- After a death ---- */

/* What a dead process was writing to the log is decided and put right. */
void skv_journal_repair_if_dead(skv *store);
/* The same for a slot whose liveness byte the caller holds. */
void skv_journal_repair_of(skv *store, uint32_t dead_slot);
/* No lock of the log names the slot, and nobody is about to decide about a frame of it: its row may go. */
bool skv_journal_is_done_with(const skv *store, uint32_t dead_slot);

#endif
