/* sweep.c: expiry and eviction.  See sweep.h.
 *
 * Expiry: readers treat an expired item as absent; writers take a few out of the bucket they
 *       have locked; skv_sweep_expired walks buckets, for compact(), for a full store and timers.
 *       Word B holds a copy of the expiry, so a sweep reads slots only.
 * Eviction: a clock (Corbato 1969) over buckets, and over the slots of a bucket: a slot that was read since
 *       the hand last passed loses a bit, a cold one goes.  New entries start cold.
 *
 * Concurrency: a bucket is locked for one visit, and skipped if that would mean waiting.
 */
#include "sweep.h"

#include "alloc.h"
#include "repair.h"

#define FEW_SLOTS       64u     /* that a writer looks at                                     */
#define VISIT_REMOVES   64u     /* items that one locked visit takes out at most              */
#define EVICT_PART      8u      /* a visit evicts an eighth of a bucket's items at most, or   */
#define EVICT_LEAST     4u      /* this many                                                  */

void skv_warm_slot(_Atomic uint64_t *slot_b, uint64_t b)
{
    static _Thread_local uint32_t reads;
    uint32_t clock = skv_b_clock(b);
    /* The table may be gone by now and its block in other hands: only the very word that was seen
     * before the validation is changed, and never a zero, which any fresh memory holds. */
    if (b == 0 || clock == 3 || (clock > 0 && ++reads % 8) || skv_load(slot_b) != b)
        return;
    /* A B that changed meanwhile keeps its new expiry; a lost CAS is dropped. */
    atomic_compare_exchange_strong_explicit(slot_b, &b, b + (UINT64_C(1) << SKV_CLOCK_SHIFT),
                                            memory_order_relaxed, memory_order_relaxed);
}

static uint32_t value_len_of(const skv *store, uint64_t a)
{
    skv_head head;
    return skv_read_head(store, skv_slot_offset(a), &head) ? head.value_len : 0;
}

/* When a live slot's item expires; 0 = never. */
static uint64_t expiry_of(const skv *store, const skv_slot *slot)
{
    uint64_t expiry = skv_b_expiry(skv_load(&slot->b));
    skv_head head;
    if (skv_unlikely(expiry == SKV_MAX_EXPIRY) && skv_read_head(store, skv_slot_offset(skv_load(&slot->a)), &head))
        return head.expires_ms;
    return expiry;
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
        uint64_t a = skv_load(&slots[i].a), expiry = skv_slot_is_live(a) ? expiry_of(store, &slots[i]) : 0;
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

/* ---- Eviction -------------------------------------------------------------------------------- */

/* True: the slot may go.  A slot that was read loses one of its clock bits instead. */
static bool is_cold(const skv *store, skv_slot *slot, uint64_t now)
{
    uint64_t b = skv_load(&slot->b), expiry = expiry_of(store, slot);
    if (expiry && now >= expiry)
        return true;
    if (skv_b_clock(b) == 0)
        return true;
    atomic_compare_exchange_strong_explicit(&slot->b, &b, b - (UINT64_C(1) << SKV_CLOCK_SHIFT),
                                            memory_order_relaxed, memory_order_relaxed);
    return false;
}

static uint64_t evict_locked(skv *store, skv_bucket *bucket, uint64_t bytes, visit *found)
{
    uint64_t table = skv_load(&bucket->table), capacity = skv_table_capacity(table), freed = 0;
    skv_slot *slots = skv_slots(store, table);
    if (!slots)
        return 0;
    uint64_t now = skv_now_ms(store), i = skv_load(&bucket->hand) % capacity;
    uint64_t most = skv_load(&bucket->count) / EVICT_PART;
    most = most < EVICT_LEAST ? EVICT_LEAST : most > VISIT_REMOVES ? VISIT_REMOVES : most;
    for (uint64_t n = 0; n < capacity && found->count < most && freed < bytes; n++, i = i + 1 == capacity ? 0 : i + 1) {
        uint64_t a = skv_load(&slots[i].a);
        skv_head head;
        if (!skv_slot_is_live(a) || !is_cold(store, &slots[i], now) || !skv_read_head(store, skv_slot_offset(a), &head))
            continue;
        skv_remove_locked(store, bucket, &slots[i], head.value_len);
        SKV_CRASH("evict.removed");
        found->freed[found->count++] = skv_slot_offset(a);
        freed += skv_record_size(head.key_len, head.value_len, head.flags & SKV_REC_EXPIRY);
    }
    skv_store(&bucket->hand, (uint32_t)i);
    if (found->count)
        skv_bump_locked(bucket);
    return freed;
}

uint64_t skv_evict_some(skv *store, uint64_t bytes)
{
    uint64_t freed = 0, items = 0;
    /* Two turns: the first may only cool what was warm. */
    for (uint64_t n = 0; n < store->bucket_count * 2 && freed < bytes; n++) {
        uint64_t hand = atomic_fetch_add_explicit(&store->header->evict_hand, 1, memory_order_relaxed);
        skv_bucket *bucket = &store->buckets[hand & (store->bucket_count - 1)];
        if (skv_load(&bucket->count) == 0)
            continue;
        if (!skv_trylock(store, &bucket->lock)) {
            skv_lock_repair_if_dead(store, &bucket->lock, skv_repair_bucket, bucket);
            continue;
        }
        visit found = {.count = 0};
        freed += evict_locked(store, bucket, bytes - freed, &found);
        skv_unlock(store, &bucket->lock);
        SKV_CRASH("evict.unlocked");
        free_found(store, &found);
        items += found.count;
    }
    skv_count(store, SKV_EVICTED, items, true);
    return items;
}
