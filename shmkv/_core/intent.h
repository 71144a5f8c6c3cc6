/* intent.h: how a batch is seen by all at once, and finished by others when its process dies.
 *
 * What: a list {bucket, slot index, new A, old A, new B} in the region, sorted by bucket; a removal has
 *       no list but marks its slots in word B (doomed), before its txn is set.
 * How:  the owner, holding the locks of all its buckets, sets its status to pending, then per
 *       bucket txn = intent and bump; then status = committed, which is the commit of the whole
 *       batch (one store); then applies the entries, and per bucket txn = 0 and bump.
 *       Whoever meets txn asks the owner's status: committed means that the entries count,
 *       anything else means that they do not.  Killed before the commit: discarded; after it:
 *       applied, by the repair of each bucket.  Entries are absolute, so applying is idempotent.
 *
 * Concurrency: an intent is immutable while a txn word names it (I5, I6).  Readers bound
 *       everything that they read of it.
 */
#ifndef SKV_INTENT_H
#define SKV_INTENT_H

#include "engine.h"

/* Offset of the intent in a process's row, for removals and for one change of a durable store: they need no room. */
static inline uint64_t skv_row_intent(const skv *store, uint32_t slot)
{
    return store->fixed.procs_offset + slot * (uint64_t)sizeof(skv_proc) + offsetof(skv_proc, removal);
}

/* True: the intent decides about this key, `view` holds its answer (or the miss).
 * False: the slots do; `view->status_word` is set either way when the status was looked at. */
bool skv_overlay_find(const skv *store, uint64_t txn, const skv_key *key, skv_view *view);

/* The part of a committed intent that lies in one bucket. */
typedef struct skv_overlay {
    const skv_intent_entry *entries;
    uint32_t count;
    bool clears;                /* the bucket is empty                                        */
    bool removes;               /* its doomed slots are empty                                 */
    const _Atomic uint64_t *status_word;        /* NULL = there was no txn                    */
    uint64_t status;
} skv_overlay;
void skv_overlay_of_bucket(const skv *store, const skv_bucket *bucket, skv_overlay *overlay);
/* What slot `index` holds, seen through the overlay. */
uint64_t skv_overlay_slot_slow(const skv_overlay *overlay, uint64_t index, const skv_slot *slot);

static inline uint64_t skv_overlay_slot(const skv_overlay *overlay, uint64_t index, const skv_slot *slot)
{
    return skv_likely(!overlay->status_word) ? skv_load_acquire(&slot->a) : skv_overlay_slot_slow(overlay, index, slot);
}

/* Applies (if committed) or drops the intent that `bucket->txn` names, clears txn.  Lock held.
 * The caller bumps, and recounts. */
void skv_intent_settle_locked(skv *store, skv_bucket *bucket);
/* ---- Writing one: by the one batch or logged change that its process has in flight (batch_mutex) ---- */

/* Fills the intent at `offset`, and makes it the process's.  Its status is pending from then on; returned is its generation. */
uint64_t skv_intent_begin(skv *store, uint64_t offset, uint32_t action, const skv_intent_entry *entries, uint32_t count);
/* The word that makes it pending, or committed. */
static inline uint64_t skv_intent_status(uint64_t generation, enum skv_batch_status status)
{
    return generation << 2 | status;
}
/* The commit: release, so that whoever sees it sees the intent and every txn word. */
static inline void skv_intent_commit(skv *store, uint64_t generation)
{
    skv_store_release(&store->proc->status, skv_intent_status(generation, SKV_BATCH_COMMITTED));
}
/* No txn names it any more. */
void skv_intent_end(skv *store, uint64_t generation);

/* Process slot that a txn word belongs to, or SKV_NO_PROC. */
uint32_t skv_intent_owner(const skv *store, uint64_t txn);

static inline uint64_t skv_intent_size(uint64_t entries)
{
    return sizeof(skv_intent) + entries * sizeof(skv_intent_entry);
}

#endif
