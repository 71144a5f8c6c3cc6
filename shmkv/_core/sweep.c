/* sweep.c: taking out what has expired.  See sweep.h.
 *
 * Expiry: readers treat an expired item as absent; writers take a few out of the bucket they
 *       have locked; skv_sweep_expired walks buckets, for compact(), for a full store and timers.
 *       Word B holds a copy of the expiry, so a sweep reads slots only.
 *
 * Concurrency: a bucket is locked for one visit, and skipped if that would mean waiting.
 */
#include "sweep.h"

#include "alloc.h"
#include "repair.h"

#define FEW_SLOTS       64u     /* that a writer looks at                                     */
#define VISIT_REMOVES   64u     /* items that one locked visit takes out at most              */

static uint32_t value_len_of(const skv *store, uint64_t a)
{
    skv_head head;
    return skv_read_head(store, skv_slot_offset(a), &head) ? head.value_len : 0;
}

/* ---- Expiry ------------------------------------------------------------------------------- */

typedef struct visit {
    uint64_t freed[VISIT_REMOVES];
    uint32_t count;
} visit;

/* Takes out what has expired among `steps` slots from the bucket's hand on; true if it saw the whole
 * table.  The earliest expiry is known anew only then. */
static bool sweep_slots_locked(skv *store, skv_bucket *bucket, uint64_t now, uint64_t steps, uint32_t most, visit *found)
{
    uint64_t table = skv_load(&bucket->table), capacity = skv_table_capacity(table), earliest = 0;
    skv_slot *slots = skv_slots(store, table);
    if (!slots)
        return true;
    bool whole = steps >= capacity;
    uint64_t i = skv_load(&bucket->hand) % capacity;
    for (uint64_t n = 0; n < (whole ? capacity : steps); n++, i = i + 1 == capacity ? 0 : i + 1) {
        uint64_t a = skv_load(&slots[i].a), expiry = skv_slot_is_live(a) ? skv_slot_expiry(store, a, skv_load(&slots[i].b)) : 0;
        if (expiry == 0)
            continue;
        if (now < expiry) {
            earliest = earliest == 0 || expiry < earliest ? expiry : earliest;
            continue;
        }
        if (found->count == most) {
            whole = false;
            break;
        }
        skv_remove_locked(store, bucket, &slots[i], value_len_of(store, a));
        SKV_CRASH("sweep.removed");
        found->freed[found->count++] = skv_slot_offset(a);
    }
    skv_store(&bucket->hand, (uint32_t)i);
    if (whole)
        skv_store_release(&bucket->earliest_expiry, earliest);
    if (found->count)
        skv_bump_locked(bucket);
    return whole;
}

void skv_sweep_few_slow_locked(skv_write *write)
{
    visit found = {.count = 0};
    uint32_t room = SKV_FREED_AT_ONCE - write->freed_count;
    sweep_slots_locked(write->store, write->bucket, skv_now_ms(write->store), FEW_SLOTS, room, &found);
    for (uint32_t i = 0; i < found.count; i++)
        write->freed[write->freed_count++] = found.freed[i];
    skv_count(write->store, SKV_EXPIRED, found.count, write->wait->shared);
}

static void free_found(skv *store, const visit *found)
{
    for (uint32_t i = 0; i < found->count; i++)
        skv_free(store, found->freed[i]);
}

static skv_status sweep_bucket(skv *store, skv_bucket *bucket, uint64_t now, uint64_t *dropped, skv_wait *wait)
{
    for (uint32_t round = 0; round < 100000; round++) {
        uint64_t earliest = skv_load_acquire(&bucket->earliest_expiry);
        if (earliest == 0 || now < earliest)
            return SKV_OK;
        skv_status status = skv_lock_bucket(store, bucket, wait);
        if (status)
            return status;
        visit found = {.count = 0};
        uint32_t busy = skv_busy_enter(store, true);
        bool whole = sweep_slots_locked(store, bucket, now, UINT64_MAX, VISIT_REMOVES, &found);
        skv_unlock(store, &bucket->lock);
        free_found(store, &found);
        skv_busy_exit(store, busy);
        skv_count(store, SKV_EXPIRED, found.count, wait->shared);
        *dropped += found.count;
        if (whole)
            return SKV_OK;
    }
    return SKV_OK;
}

skv_status skv_sweep_expired(skv *store, uint64_t buckets, uint64_t *dropped, skv_wait *wait)
{
    uint64_t total = 0, now = skv_now_ms(store);
    skv_status status = store->read_only ? SKV_READ_ONLY : skv_register(store);
    if (buckets > store->bucket_count)
        buckets = store->bucket_count;
    for (uint64_t i = 0; i < buckets && status == SKV_OK; i++) {
        uint64_t hand = atomic_fetch_add_explicit(&store->header->sweep_hand, 1, memory_order_relaxed);
        status = sweep_bucket(store, &store->buckets[hand & (store->bucket_count - 1)], now, &total, wait);
    }
    if (dropped)
        *dropped = total;
    return status;
}
