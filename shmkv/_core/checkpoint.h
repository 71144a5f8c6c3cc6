/* checkpoint.h: a snapshot of a durable store on disk, so that the log before it can go.
 *
 * How:  1 the log goes on in a new segment n;  2 every bucket is copied, as scans do, into `n.snapshot.tmp`, while
 *       others write;  3 that file is synced, and then the log: what the copies show of changes that came after 1
 *       is on stable storage before they count;  4 it is renamed to `n.snapshot`, and the folder synced;  5 files with
 *       lower numbers are removed.  The copy is fuzzy (Gray, Notes on Data Base Operating Systems, 1978): a change after
 *       1 may be in it or not, and its frame in segment n gives the same end in both cases, as operations are
 *       absolute.  Killed anywhere, the older snapshot and all segments from it on are there until 4 is done.
 *
 * Concurrency: one at a time among all processes (header.checkpoint_lock, which survives its holder).  Writers wait for
 *       step 1 only, whose sync has little left to write because the log was synced just before.
 */
#ifndef SKV_CHECKPOINT_H
#define SKV_CHECKPOINT_H

#include "journal.h"

typedef struct skv_checkpoint {
    uint64_t number;            /* of the snapshot and of the segment that follows it         */
    uint64_t items, bytes;      /* in it; of its file                                         */
} skv_checkpoint;

/* Behind a process that is stopped in the middle of an append it waits for wait->timeout_ns (0 = five seconds): SKV_TIMEOUT.
 * SKV_BUSY: another one is at it; SKV_DISK_FULL, SKV_LOG_ERROR, SKV_LOG_FAILED: the snapshots before it count. */
skv_status skv_make_checkpoint(skv *store, skv_checkpoint *out, skv_wait *wait);

/* The process slot of who is at it; none of the table: nobody. */
static inline uint32_t skv_checkpoint_holder(const skv *store)
{
    return (skv_load(&store->header->checkpoint_lock) & SKV_LOCK_OWNER_MASK) - 1;
}

#endif
