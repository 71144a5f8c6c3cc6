/* evict.c: which items go.  See evict.h.
 *
 * What: new items are on probation while a tenth of the store's size is written (age.h).  One that was not read by then
 *       goes, and is remembered for a while (ghost.h); one that was read, or that comes back while it is remembered, is
 *       proven.  Among proven items goes a clock (Corbato 1969): read since the hand last passed, an item loses a bit of
 *       its clock; cold, it goes, where probation gives too little.  (After S3-FIFO, Yang et al. 2023, whose queues are here
 *       an order of ages.)
 * How:  a visit looks at one bucket after another, from the common hand on, until it has seen enough items to compare: one
 *       bucket of small items, hundreds of buckets where the store holds a few large ones.  It drops an eighth of what it saw
 *       at most, of several buckets the oldest first, and so goes by use and age whatever the size.
 *       In a durable store the items of one bucket that go are one frame of deletions, written before any of them goes.
 *
 *       Killed in between: an item is there or not; its block, no longer named, is a leak.  Killed between frame and
 *       removal: the log has lost what memory still has, as if it had been evicted when the store is next restored; a
 *       change of it until then is a frame of its own.  So these frames need no intent.
 *
 * Concurrency: a bucket is locked for one look or a few removals, and skipped if that would mean waiting.
 */
#include "evict.h"

#include "age.h"
#include "alloc.h"
#include "ghost.h"
#include "journal.h"
#include "repair.h"
#include "sweep.h"
#include "write.h"

#include <stdlib.h>

#define YOUNG_PART      10u     /* on probation: while a tenth of the store's size is written */
#define HERD_ITEMS      64u     /* enough to compare                                          */
#define VISIT_PART      8u      /* a visit drops an eighth of what it saw at most, or         */
#define VISIT_LEAST     4u      /* this many                                                  */
#define VISIT_MOST      64u
#define TURNS           5u      /* of the hand: the first ones may only cool what was warm    */

typedef struct victim {
    skv_bucket *bucket;
    uint64_t table, slot, a;    /* still the same item if they are                            */
    uint32_t age;
} victim;

/* A victim whose bucket is locked. */
typedef struct chosen {
    skv_slot *slot;
    uint64_t offset, bytes;
    skv_head head;
    bool expired, remembered;
} chosen;

typedef struct visit {
    skv *store;
    skv_wait *wait;
    skv_bucket *buckets[HERD_ITEMS];
    uint64_t hands[HERD_ITEMS]; /* where the common hand was at each                          */
    uint32_t bucket_count;
    uint64_t items;             /* in them                                                    */
    uint32_t now, young;        /* in ticks of age.h                                          */
    uint64_t now_ms;
    victim victims[VISIT_MOST];
    uint32_t victim_count;
    chosen chosen[VISIT_MOST];  /* of one bucket                                              */
    uint32_t chosen_count;
    uint64_t chosen_bytes;
    uint64_t wanted, freed;     /* bytes                                                      */
    uint64_t evicted, expired;  /* items                                                      */
    skv_frame frame;            /* of the chosen, in a durable store                          */
    skv_status status;          /* of its log                                                 */
    uint64_t offsets[VISIT_MOST];
    uint32_t offset_count;      /* removed under the lock, not yet freed                      */
} visit;

/* ---- A read -------------------------------------------------------------------------------------- */

#define WARM_PART       2u      /* of the hits that would raise a clock beyond the first time  */
#define FIRST_STEP      2u      /* of a proven item's clock: two turns of the hand             */

void skv_warm_slot(_Atomic uint64_t *slot_b, uint64_t b)
{
    static _Thread_local uint32_t reads;
    uint32_t clock = skv_b_clock(b);
    const uint64_t step = clock == 0 && (b & SKV_B_PROVEN) ? FIRST_STEP : 1;
    /* The table may be gone by now and its block in other hands: only the very word that was seen
     * before the validation is changed, and never a zero, which any fresh memory holds. */
    if (b == 0 || clock == 3 || (clock > 0 && ++reads % WARM_PART) || skv_load(slot_b) != b)
        return;
    /* A B that changed meanwhile keeps its new expiry; a lost CAS is dropped. */
    atomic_compare_exchange_strong_explicit(slot_b, &b, b + (step << SKV_CLOCK_SHIFT),
                                            memory_order_relaxed, memory_order_relaxed);
}

/* ---- Who is looked at ------------------------------------------------------------------------- */

static bool lock_for_visit(skv *store, skv_bucket *bucket)
{
    if (skv_trylock(store, &bucket->lock))
        return true;
    skv_lock_repair_if_dead(store, &bucket->lock, skv_repair_bucket, bucket);
    return false;
}

static void unlock_and_free(visit *v, skv_bucket *bucket)
{
    if (v->offset_count)
        skv_bump_locked(bucket);
    skv_unlock(v->store, &bucket->lock);
    SKV_CRASH("evict.unlocked");
    skv_free_many(v->store, v->offsets, v->offset_count);
    v->offset_count = 0;
}

/* From the hand on, until there are enough items; how many buckets the hand passed. */
static uint64_t gather_buckets(visit *v)
{
    skv *store = v->store;
    uint64_t steps = 0;
    v->bucket_count = 0;
    v->items = 0;
    while (v->items < HERD_ITEMS && steps < store->bucket_count) {
        uint64_t hand = atomic_fetch_add_explicit(&store->header->evict_hand, 1, memory_order_relaxed);
        skv_bucket *bucket = &store->buckets[hand & (store->bucket_count - 1)];
        uint32_t count = skv_load(&bucket->count);
        steps++;
        if (count == 0)
            continue;
        v->hands[v->bucket_count] = hand;
        v->buckets[v->bucket_count++] = bucket;
        v->items += count;
    }
    return steps;
}

static uint32_t quota(const visit *v)
{
    uint64_t most = v->items / VISIT_PART;
    return (uint32_t)(most < VISIT_LEAST ? VISIT_LEAST : most > VISIT_MOST ? VISIT_MOST : most);
}

/* ---- One item ----------------------------------------------------------------------------------- */

static bool is_expired(const visit *v, uint64_t a, uint64_t b)
{
    uint64_t expiry = skv_slot_expiry(v->store, a, b);
    return skv_unlikely(expiry != 0) && v->now_ms >= expiry;
}

/* A reader may raise the clock at the same time: then this change is dropped. */
static void cool(skv_slot *slot, uint64_t b, uint64_t bits)
{
    atomic_compare_exchange_strong_explicit(&slot->b, &b, (b - (UINT64_C(1) << SKV_CLOCK_SHIFT)) | bits, memory_order_relaxed,
                                            memory_order_relaxed);
}

/* Blocks and runs are freed whole. */
static uint64_t bytes_of(const skv_head *head)
{
    uint64_t size = skv_record_size(head->key_len, head->value_len, head->flags & SKV_REC_EXPIRY);
    return size <= SKV_PAGE_SIZE ? size : (size + SKV_PAGE_SIZE - 1) & ~(uint64_t)(SKV_PAGE_SIZE - 1);
}

/* Others set the common hand back: so a visit may meet a bucket twice. */
static bool is_chosen(const visit *v, const skv_slot *slot)
{
    for (uint32_t i = 0; i < v->chosen_count; i++)
        if (v->chosen[i].slot == slot)
            return true;
    return false;
}

static void choose_locked(visit *v, skv_slot *slot, bool remember)
{
    const uint64_t a = skv_load(&slot->a);
    if (is_chosen(v, slot))
        return;
    chosen *it = &v->chosen[v->chosen_count];
    it->slot = slot;
    it->offset = skv_slot_offset(a);
    if (!skv_read_head(v->store, it->offset, &it->head))
        return;                 /* only in a damaged region                                   */
    it->expired = is_expired(v, a, skv_load(&slot->b));
    it->remembered = remember && !it->expired;
    it->bytes = bytes_of(&it->head);
    v->chosen_bytes += it->bytes;
    v->chosen_count++;
}

static skv_status make_frame(visit *v)
{
    bool made = skv_frame_begin(&v->frame, SKV_FRAME_CHANGE);
    for (uint32_t i = 0; made && i < v->chosen_count; i++) {
        const skv_head *head = &v->chosen[i].head;
        const skv_key key = {.data = head->key, .len = head->key_len, .is_bytes = head->flags & SKV_REC_BYTES_KEY};
        if (!v->chosen[i].expired)      /* that is gone on disk as well                       */
            made = skv_journal_add_delete(&v->frame, &key);
    }
    return made ? SKV_OK : SKV_NO_MEMORY;
}

static skv_status log_chosen_locked(visit *v)
{
    if (skv_likely(!v->store->journal))
        return SKV_OK;
    skv_status status = make_frame(v);
    if (status || v->frame.size == SKV_FRAME_HEAD)
        return status;
    return skv_journal_append(v->store, &v->frame, v->wait);
}

static void remove_chosen_locked(visit *v, skv_bucket *bucket, const chosen *it)
{
    const uint64_t table = skv_load(&bucket->table);
    const uint32_t tag = skv_slot_tag(skv_load(&it->slot->a));
    skv_remove_locked(v->store, bucket, it->slot, it->head.value_len);
    SKV_CRASH("evict.removed");
    skv_store(&it->slot->b, 0);
    if (it->remembered)
        skv_ghost_add_locked(skv_slots(v->store, table), skv_table_capacity(table), tag);
    v->offsets[v->offset_count++] = it->offset;
    v->freed += it->bytes;
    v->evicted += !it->expired;
    v->expired += it->expired;
}

static void drop_chosen_locked(visit *v, skv_bucket *bucket)
{
    if (v->chosen_count)
        v->status = log_chosen_locked(v);
    for (uint32_t i = 0; i < v->chosen_count && v->status == SKV_OK; i++)
        remove_chosen_locked(v, bucket, &v->chosen[i]);
    v->chosen_count = 0;
    v->chosen_bytes = 0;
}

static bool is_enough(const visit *v)
{
    return v->status || v->freed + v->chosen_bytes >= v->wanted || v->evicted + v->expired + v->chosen_count >= quota(v);
}

/* ---- Probation ------------------------------------------------------------------------------------ */

static void judge_locked(visit *v, skv_bucket *bucket, uint64_t table, skv_slot *slot, uint64_t index)
{
    uint64_t a = skv_load(&slot->a), b = skv_load(&slot->b);
    if (!skv_slot_is_live(a))
        return;
    uint32_t age = is_expired(v, a, b) ? UINT32_MAX : skv_b_age(b, v->now);
    if (age != UINT32_MAX && ((b & SKV_B_PROVEN) || age < v->young))
        return;
    if (age != UINT32_MAX && skv_b_clock(b))
        cool(slot, b, SKV_B_PROVEN);
    else
        v->victims[v->victim_count++] = (victim){bucket, table, index, a, age};
}

static void find_victims(visit *v, skv_bucket *bucket)
{
    if (!lock_for_visit(v->store, bucket))
        return;
    uint64_t table = skv_load(&bucket->table), capacity = skv_table_capacity(table);
    skv_slot *slots = skv_slots(v->store, table);
    uint64_t i = slots ? (skv_load(&bucket->seq) * UINT64_C(0x9e3779b97f4a7c15) >> 32) % capacity : 0;
    for (uint64_t n = 0; slots && n < capacity && v->victim_count < VISIT_MOST; n++, i = i + 1 == capacity ? 0 : i + 1)
        judge_locked(v, bucket, table, &slots[i], i);
    skv_unlock(v->store, &bucket->lock);
}

static int oldest_first(const void *x, const void *y)
{
    const victim *a = x, *b = y;
    return (a->age < b->age) - (a->age > b->age);
}

static bool is_same_locked(const victim *it)
{
    return skv_load(&it->bucket->table) == it->table;
}

/* Of the next victims those that lie in one bucket; how many that were. */
static uint32_t drop_of_one_bucket(visit *v, const victim *first, uint32_t count)
{
    skv_bucket *bucket = first->bucket;
    bool locked = lock_for_visit(v->store, bucket);
    uint32_t n = 0;
    for (; n < count && first[n].bucket == bucket && !is_enough(v); n++) {
        skv_slot *slots = skv_slots(v->store, first[n].table);
        if (!locked || !is_same_locked(&first[n]) || !slots || skv_load(&slots[first[n].slot].a) != first[n].a)
            continue;
        choose_locked(v, &slots[first[n].slot], true);
    }
    if (locked) {
        drop_chosen_locked(v, bucket);
        unlock_and_free(v, bucket);
    }
    return n;
}

static void drop_victims(visit *v)
{
    v->victim_count = 0;
    for (uint32_t i = 0; i < v->bucket_count; i++)
        find_victims(v, v->buckets[i]);
    /* In one bucket any of the many that have had their time may go: in the order of age, a loop that is a little longer
     * than the store is large would find nothing that it has put there. */
    if (v->bucket_count > 1)
        qsort(v->victims, v->victim_count, sizeof *v->victims, oldest_first);
    for (uint32_t i = 0; i < v->victim_count && !is_enough(v);)
        i += drop_of_one_bucket(v, &v->victims[i], v->victim_count - i);
}

/* ---- The clock --------------------------------------------------------------------------------------- */

static void turn_clock(visit *v, skv_bucket *bucket)
{
    if (!lock_for_visit(v->store, bucket))
        return;
    uint64_t table = skv_load(&bucket->table), capacity = skv_table_capacity(table);
    skv_slot *slots = skv_slots(v->store, table);
    uint64_t i = slots ? skv_load(&bucket->hand) % capacity : 0;
    for (uint64_t n = 0; slots && n < capacity && !is_enough(v); n++, i = i + 1 == capacity ? 0 : i + 1) {
        uint64_t a = skv_load(&slots[i].a), b = skv_load(&slots[i].b);
        if (!skv_slot_is_live(a) || !(b & SKV_B_PROVEN) || skv_b_age(b, v->now) < v->young)
            continue;
        if (skv_b_clock(b))
            cool(&slots[i], b, 0);
        else
            choose_locked(v, &slots[i], false);
    }
    drop_chosen_locked(v, bucket);
    skv_store(&bucket->hand, (uint32_t)i);
    unlock_and_free(v, bucket);
}

/* Of several buckets the next visit begins with the one where the clock stopped, or it would always be the same items that
 * lie first. */
static void turn_clocks(visit *v)
{
    uint32_t last = 0;
    for (uint32_t i = 0; i < v->bucket_count && !is_enough(v); i++) {
        turn_clock(v, v->buckets[i]);
        last = i;
    }
    if (last)
        skv_store(&v->store->header->evict_hand, v->hands[last]);
}

/* ---- One visit after another --------------------------------------------------------------------------- */

static skv_status evict_but(skv *store, uint64_t bytes, uint32_t young, skv_wait *wait, uint64_t *items)
{
    visit v = {.store = store, .wait = wait, .young = young, .now = skv_age_now(store), .now_ms = skv_now_ms(store)};
    uint64_t freed = 0;
    for (uint64_t steps = 0; steps < store->bucket_count * TURNS && freed < bytes && v.status == SKV_OK;) {
        steps += gather_buckets(&v);
        v.wanted = bytes - freed;
        v.freed = v.evicted = v.expired = 0;
        drop_victims(&v);
        turn_clocks(&v);
        freed += v.freed;
        *items += v.evicted + v.expired;
        skv_count(store, SKV_EVICTED, v.evicted, true);
        skv_count(store, SKV_EXPIRED, v.expired, true);
    }
    skv_frame_free(&v.frame);
    return v.status;
}

skv_status skv_evict_some(skv *store, uint64_t bytes, skv_wait *wait, uint64_t *items)
{
    *items = 0;
    skv_status status = evict_but(store, bytes, skv_age_ticks(store, store->size / YOUNG_PART), wait, items);
    return status || *items ? status : evict_but(store, bytes, 0, wait, items);
}
