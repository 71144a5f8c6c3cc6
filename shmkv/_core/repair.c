/* repair.c: see repair.h.
 *
 * A bucket's holder may have died anywhere between lock and unlock.  Word A, the table word and
 * the batch's status commit; everything else follows from them: an intent that is committed is
 * applied, another is dropped, counts are counted anew, B is mended, and the bump that may be
 * missing is made (one too many harms nobody).  Dying in here is the same case again.
 */
#include "repair.h"

#include "intent.h"
#include "lock.h"
#include "procs.h"
#include "write.h"

/* B is a hint that the holder may not have written yet; clock bits are kept, and the doom of a
 * removal that was not committed is lifted. */
static void mend_b(skv_slot *slot, uint64_t expires_ms)
{
    uint64_t b = skv_load(&slot->b);
    uint64_t mended = (b & ~SKV_MAX_EXPIRY & ~SKV_B_DOOMED) | skv_b_clipped(expires_ms);
    if (b != mended)
        skv_store(&slot->b, mended);
}

void skv_recount_locked(skv *store, skv_bucket *bucket)
{
    assert(skv_lock_held(&bucket->lock));
    uint64_t table = skv_load(&bucket->table), live = 0, tombstones = 0, bytes = 0, earliest = 0;
    skv_slot *slots = skv_slots(store, table);
    for (uint64_t i = 0; slots && i < skv_table_capacity(table); i++) {
        uint64_t a = skv_load(&slots[i].a);
        skv_head head;
        tombstones += a == SKV_TOMBSTONE;
        if (!skv_slot_is_live(a) || !skv_read_head(store, skv_slot_offset(a), &head))
            continue;
        live++;
        bytes += head.value_len;
        if (head.expires_ms && (earliest == 0 || head.expires_ms < earliest))
            earliest = head.expires_ms;
        mend_b(&slots[i], head.expires_ms);
    }
    skv_store(&bucket->count, (uint32_t)live);
    skv_store(&bucket->tombstones, (uint32_t)tombstones);
    skv_store(&bucket->value_bytes, bytes);
    skv_store_release(&bucket->earliest_expiry, earliest);
}

void skv_repair_bucket(skv *store, void *guarded)
{
    skv_bucket *bucket = guarded;
    skv_intent_settle_locked(store, bucket);
    SKV_CRASH("repair.settled");
    skv_recount_locked(store, bucket);
    SKV_CRASH("repair.counted");
    skv_bump_locked(bucket);
}

void skv_repair_compaction(skv *store, void *unused)
{
    (void)unused;
    skv_store_release(&store->header->auditing, 0);
}

bool skv_sweep_bucket_of_dead(skv *store, skv_bucket *bucket, uint32_t slot)
{
    if (skv_lock_take_from(store, &bucket->lock, slot, skv_repair_bucket, bucket))
        skv_unlock(store, &bucket->lock);
    return skv_intent_owner(store, skv_load_acquire(&bucket->txn)) != slot;
}
