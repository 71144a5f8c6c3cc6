/* batch.c: put_many, delete_many and clear: all or nothing, for every reader, at every instant.
 *
 * How:  1 prepare all records and the intent, sort by bucket;  2 lock the distinct buckets in
 *       ascending order;  3 plan: find each key's slot; if tables lack room, unlock, allocate tables, start
 *       again at 2; put them in place when no bucket lacks one;  4 status = pending;  5 per bucket
 *       txn = intent, bump;  6 status = committed: the commit of all keys is this one store;  7 apply,
 *       per bucket txn = 0, bump;  8 unlock, free.
 *       What a kill leaves at each step, and who puts it right: intent.h.
 *
 * Concurrency: one batch in flight per process (batch_mutex), because the process slot has one
 *       status word.  Waiting for a bucket's lock gives all others back after each slice.
 */
#include <stdlib.h>

#include "age.h"
#include "alloc.h"
#include "ghost.h"
#include "intent.h"
#include "journal.h"
#include "repair.h"
#include "write.h"

#define ROUNDS 1000u            /* of step 2 and 3; others may fill the tables that we enlarge */

typedef struct group {          /* the part of a batch in one bucket                          */
    skv_bucket *bucket;
    uint32_t first, count;      /* of batch.items                                             */
    uint32_t entries;           /* planned                                                    */
    uint64_t spare, capacity;   /* a table for it, prepared; 0 = none                         */
    uint64_t needed;            /* capacity of the table that has to replace its own; 0 = none */
    uint64_t wanted;            /* the same, or 0 where the spare has it                      */
    skv_slot *slots;            /* of the planned table; a damaged table word may change under our lock */
    int64_t  live, tombstones, bytes;   /* what applying adds to the counts                   */
    uint64_t earliest;
} group;

typedef struct keyed {
    uint64_t hash;
    skv_item *item;
} keyed;

typedef struct batch {
    skv *store;
    skv_wait *wait;
    skv_item **items;           /* sorted by hash                                             */
    uint32_t count;
    bool removing;
    bool damaged;               /* counts or table words of the region contradict each other  */
    group *groups;
    uint32_t group_count;
    skv_intent_entry *entries;  /* planned, private until written to the intent               */
    uint32_t entry_count;
    uint64_t *taken;            /* a bit for each slot that the plan of one bucket uses       */
    uint64_t taken_slots;
    uint64_t *freed;            /* blocks to free after unlock                                */
    uint64_t *tables;           /* of clear: the tables that were taken out of the groups' buckets */
    uint32_t freed_count;
    uint64_t intent;
    uint32_t removed, expired;
    uint32_t busy;
    skv_scratch *scratch;       /* has the arrays and the frame, but not `taken`              */
    keyed *keys;                /* for sorting                                                */
    skv_frame frame;            /* for the log of a durable store                             */
    uint64_t position;          /* in the log, behind it                                      */
} batch;

/* ---- Sorting -------------------------------------------------------------------------------- */

#define RADIX_FROM  32u         /* items; fewer are sorted by insertion                       */
#define SHORT_RUN   16u

static void insertion_sort(keyed *items, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        keyed moved = items[i];
        uint32_t at = i;
        for (; at > 0 && items[at - 1].hash > moved.hash; at--)
            items[at] = items[at - 1];
        items[at] = moved;
    }
}

static void merge(const keyed *from, keyed *to, uint32_t low, uint32_t middle, uint32_t high)
{
    uint32_t a = low, b = middle;
    for (uint32_t i = low; i < high; i++) {
        bool left = a < middle && (b >= high || from[a].hash <= from[b].hash);
        to[i] = left ? from[a++] : from[b++];
    }
}

static void merge_sort(keyed *items, keyed *scratch, uint32_t count)
{
    keyed *from = items, *to = scratch;
    for (uint32_t width = 1; width < count; width *= 2) {
        for (uint32_t low = 0; low < count; low += 2 * width) {
            uint32_t middle = low + width < count ? low + width : count;
            uint32_t high = middle + width < count ? middle + width : count;
            merge(from, to, low, middle, high);
        }
        keyed *swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}

static void sort_run(keyed *items, keyed *scratch, uint32_t count)
{
    if (count <= SHORT_RUN)
        insertion_sort(items, count);
    else
        merge_sort(items, scratch, count);
}

static void radix_pass(const keyed *from, keyed *to, uint32_t count, uint32_t shift)
{
    uint32_t at[256] = {0}, sum = 0;
    for (uint32_t i = 0; i < count; i++)
        at[from[i].hash >> shift & 0xff]++;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t n = at[i];
        at[i] = sum;
        sum += n;
    }
    for (uint32_t i = 0; i < count; i++)
        to[at[from[i].hash >> shift & 0xff]++] = from[i];
}

/* By hash, stable, so that of two equal keys the later stays later.  Two passes by its upper 16 bits, which
 * no branch of depends on the data, and then the short runs that are equal in them. */
static void sort_keyed(keyed *items, keyed *scratch, uint32_t count)
{
    if (count < RADIX_FROM) {
        insertion_sort(items, count);
        return;
    }
    radix_pass(items, scratch, count, 48);
    radix_pass(scratch, items, count, 56);
    for (uint32_t from = 0, end; from < count; from = end) {
        for (end = from + 1; end < count && items[end].hash >> 48 == items[from].hash >> 48; end++)
            continue;
        if (end - from > 1)
            sort_run(items + from, scratch, end - from);
    }
}

/* `keys` has room for twice as many. */
static void sort_items(skv_item *items, skv_item **sorted, uint32_t count, keyed *keys)
{
    for (uint32_t i = 0; i < count; i++)
        keys[i] = (keyed){items[i].key.hash, &items[i]};
    sort_keyed(keys, keys + count, count);
    for (uint32_t i = 0; i < count; i++)
        sorted[i] = keys[i].item;
}

static bool same_key(const skv_item *a, const skv_item *b)
{
    return a->key.hash == b->key.hash && a->key.len == b->key.len && a->key.is_bytes == b->key.is_bytes
           && memcmp(a->key.data, b->key.data, a->key.len) == 0;
}

/* Keeps the last of equal keys; their hashes are equal, so they are neighbours (or nearly). */
static uint32_t drop_repeated(skv_item **items, uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool later = false;
        for (uint32_t j = i + 1; j < count && items[j]->key.hash == items[i]->key.hash && !later; j++)
            later = same_key(items[i], items[j]);
        if (!later)
            items[kept++] = items[i];
    }
    return kept;
}

/* ---- Making and dropping a batch --------------------------------------------------------------- */

static void make_groups(batch *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        skv_bucket *bucket = skv_bucket_of(b->store, b->items[i]->key.hash);
        if (b->group_count == 0 || b->groups[b->group_count - 1].bucket != bucket)
            b->groups[b->group_count++] = (group){.bucket = bucket, .first = i};
        b->groups[b->group_count - 1].count++;
    }
}

/* The frame of all items, which does not grow: those that are dropped make it shorter. */
static size_t frame_room(const skv *store, const skv_item *items, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; store->journal && i < count; i++)
        bytes += SKV_OP_HEAD + items[i].key.len + items[i].value_len;
    return store->journal ? skv_frame_room(bytes) : 0;
}

static bool make_arrays(batch *b, size_t frame)
{
    const size_t n = b->count, items = n * sizeof *b->items, groups = n * sizeof *b->groups, entries = n * sizeof *b->entries;
    const size_t freed = (n * 3 + 1) * sizeof *b->freed, keys = 2 * n * sizeof *b->keys;
    b->scratch = skv_scratch_take(&b->store->scratch, skv_scratch_size(items) + skv_scratch_size(groups) + skv_scratch_size(entries)
                                                      + skv_scratch_size(freed) + skv_scratch_size(keys) + skv_scratch_size(frame));
    b->taken_slots = UINT64_C(1) << 16;
    b->taken = calloc(b->taken_slots / 64, sizeof *b->taken);
    if (!b->scratch || !b->taken)
        return false;
    b->items = skv_scratch_part(b->scratch, items);
    b->groups = skv_scratch_part(b->scratch, groups);
    b->entries = skv_scratch_part(b->scratch, entries);
    b->freed = skv_scratch_part(b->scratch, freed);
    b->keys = skv_scratch_part(b->scratch, keys);
    b->frame = (skv_frame){.bytes = skv_scratch_part(b->scratch, frame), .room = frame};
    return true;
}

static skv_status batch_init(batch *b, skv *store, skv_item *items, uint32_t count, bool removing, skv_wait *wait)
{
    *b = (batch){.store = store, .wait = wait, .count = count, .removing = removing};
    if (!make_arrays(b, frame_room(store, items, count)))
        return SKV_NO_MEMORY;
    sort_items(items, b->items, count, b->keys);
    for (uint32_t i = 0; i < count; i++)
        items[i].record = 0;
    b->count = drop_repeated(b->items, count);
    make_groups(b);
    b->busy = skv_busy_enter(store, true);
    return SKV_OK;
}

/* Frees what was replaced, or, where nothing was published, what was prepared. */
static void batch_end(batch *b, bool entered)
{
    skv *store = b->store;
    if (entered)
        skv_free_many(store, b->freed, b->freed_count);
    for (uint32_t i = 0; entered && i < b->count; i++)
        skv_free(store, b->items[i]->record);
    for (uint32_t i = 0; entered && i < b->group_count; i++)
        skv_free(store, b->groups[i].spare);
    if (entered) {
        skv_free(store, b->removing ? 0 : b->intent);
        skv_busy_exit(store, b->busy);
    }
    free(b->taken);
    skv_scratch_give(&store->scratch, b->scratch);
}

/* The items as the log is to have them: what is stored has no order, so any will do. */
static bool prepare_frame(batch *b)
{
    if (!b->store->journal)
        return true;
    bool good = skv_frame_begin(&b->frame, SKV_FRAME_CHANGE);
    for (uint32_t i = 0; good && i < b->count; i++)
        good = b->removing ? skv_journal_add_delete(&b->frame, &b->items[i]->key)
                           : skv_journal_add_put(b->store, &b->frame, b->items[i]);
    return good;
}

/* Overlaps cache misses: what the next items touch is fetched in short loops over all of them, so that their page
 * walks go on side by side; one prefetch between two items of work would wait for each walk. */
#define WINDOW 32u

static void prefetch_window(const batch *b, uint32_t from)
{
    skv_key keys[WINDOW];
    uint32_t n = b->count - from < WINDOW ? b->count - from : WINDOW;
    for (uint32_t i = 0; i < n; i++)
        keys[i] = b->items[from + i]->key;
    skv_prefetch_many(b->store, keys, n);
}

#define AHEAD_BUCKET 24u        /* groups ahead of the one whose bucket is looked at           */

/* ---- Locks --------------------------------------------------------------------------------------- */

static void unlock_groups(batch *b, uint32_t count)
{
    for (uint32_t i = count; i-- > 0;)
        skv_unlock(b->store, &b->groups[i].bucket->lock);
}

static skv_status lock_groups(batch *b)
{
    for (uint32_t i = 0; i < b->group_count; i++) {
        if (i + AHEAD_BUCKET < b->group_count)
            __builtin_prefetch(b->groups[i + AHEAD_BUCKET].bucket, 1);
        skv_status status = skv_lock_bucket(b->store, b->groups[i].bucket, b->wait);
        if (status) {
            unlock_groups(b, i);
            return status;
        }
        SKV_CRASH("batch.locked");
    }
    return SKV_OK;
}

/* ---- The plan ------------------------------------------------------------------------------------- */

static uint32_t missing_locked(const batch *b, const group *g)
{
    uint32_t missing = 0;
    for (uint32_t i = g->first; i < g->first + g->count; i++) {
        skv_hit hit;
        skv_probe(b->store, skv_load(&g->bucket->table), &b->items[i]->key, &hit);
        missing += hit.slot == NULL;
    }
    return missing;
}

static void note_need_locked(const batch *b, group *g)
{
    uint64_t capacity = skv_wanted_capacity(b->store, g->bucket, g->count);
    if (capacity && skv_load(&g->bucket->table))        /* perhaps they are overwrites         */
        capacity = skv_wanted_capacity(b->store, g->bucket, missing_locked(b, g));
    g->needed = b->removing ? 0 : capacity;
    g->wanted = g->spare && g->capacity >= g->needed ? 0 : g->needed;
}

/* Of the table that is planned for. */
static uint64_t capacity_of(const group *g)
{
    uint64_t capacity = skv_table_capacity(skv_load_acquire(&g->bucket->table));
    uint64_t next = g->needed && !g->wanted ? g->capacity : g->needed;
    return next > capacity ? next : capacity;
}

static void use_spare_locked(batch *b, group *g)
{
    uint64_t old = skv_table_offset(skv_load(&g->bucket->table));
    if (!skv_replace_table_locked(b->store, g->bucket, g->spare, g->capacity)) {
        b->damaged = true;
        return;
    }
    g->spare = 0;
    if (old)
        b->freed[b->freed_count++] = old;
}

/* Does each bucket have room for all its items, or a spare table that has? */
static bool all_have_room_locked(batch *b)
{
    bool ready = true;
    for (uint32_t i = 0; i < b->group_count; i++) {
        group *g = &b->groups[i];
        note_need_locked(b, g);
        ready = ready && !g->wanted && capacity_of(g) <= b->taken_slots;
    }
    return ready;
}

static void note_entry(batch *b, group *g, uint64_t index, uint64_t new_a, uint64_t old_a, uint64_t new_b)
{
    b->entries[b->entry_count++] = (skv_intent_entry){
        .bucket = (uint32_t)(g->bucket - b->store->buckets), .index = (uint32_t)index,
        .new_a = new_a, .old_a = old_a, .new_b = new_b};
    g->entries++;
}

static void plan_removal_locked(batch *b, group *g, const skv_hit *hit, const skv_slot *slots)
{
    if (!hit->slot)
        return;
    bool gone = skv_is_expired(b->store, hit->head.expires_ms);
    b->removed += !gone;
    b->expired += gone;
    g->live--;
    g->tombstones++;
    g->bytes -= hit->head.value_len;
    note_entry(b, g, (uint64_t)(hit->slot - slots), SKV_TOMBSTONE, hit->a, 0);
}

static void plan_write_locked(batch *b, group *g, skv_item *item, const skv_hit *hit, skv_slot *slots, uint64_t capacity)
{
    uint64_t a = skv_slot_word(skv_tag_of(item->key.hash), item->record);
    uint64_t new_b = skv_b_written(b->store, item->key.hash, item->expires_ms);
    _Atomic uint64_t *words = (_Atomic uint64_t *)(void *)(b->store->base + item->record);
    skv_store(&words[1], skv_load(&g->bucket->seq) + 1);        /* its version: after the first bump */
    if (item->expires_ms && (g->earliest == 0 || item->expires_ms < g->earliest))
        g->earliest = item->expires_ms;
    g->bytes += (int64_t)item->value_len;
    if (hit->slot) {
        g->bytes -= hit->head.value_len;
        note_entry(b, g, (uint64_t)(hit->slot - slots), a, hit->a, new_b);
        return;
    }
    uint64_t at = skv_place_locked(slots, capacity, skv_tag_of(item->key.hash), b->taken);
    if (at == capacity) {
        b->damaged = true;
        return;
    }
    if (skv_unlikely(b->store->evict) && skv_ghost_recall_locked(slots, capacity, skv_tag_of(item->key.hash), at))
        new_b |= SKV_B_PROVEN;
    b->taken[at / 64] |= UINT64_C(1) << (at % 64);
    g->live++;
    g->tombstones -= skv_load(&slots[at].a) == SKV_TOMBSTONE;
    note_entry(b, g, at, a, skv_load(&slots[at].a), new_b);
}

static void clear_taken(batch *b, const group *g, uint32_t from)
{
    (void)g;
    for (uint32_t i = from; i < b->entry_count; i++)
        b->taken[b->entries[i].index / 64] = 0;
}

static void plan_group_locked(batch *b, group *g)
{
    uint64_t table = skv_load(&g->bucket->table), capacity = skv_table_capacity(table);
    skv_slot *slots = skv_slots(b->store, table);
    uint32_t from = b->entry_count;
    g->slots = slots;
    g->entries = 0;
    g->live = g->tombstones = g->bytes = 0;
    g->earliest = 0;
    if (!slots || capacity > b->taken_slots) {
        b->damaged = b->damaged || !b->removing || table != 0;
        return;
    }
    for (uint32_t i = g->first; i < g->first + g->count; i++) {
        skv_hit hit;
        if (i % WINDOW == 0)
            prefetch_window(b, i);
        skv_probe(b->store, table, &b->items[i]->key, &hit);
        if (b->removing)
            plan_removal_locked(b, g, &hit, slots);
        else
            plan_write_locked(b, g, b->items[i], &hit, slots, capacity);
    }
    clear_taken(b, g, from);
}

/* True when every bucket has room and its plan stands.  No spare is put in place before there is one for each that needs
 * one: who makes room for a table shrinks those that have more of it than items, and would take back what the other
 * buckets of this batch were given, for ever where memory is short. */
static bool plan_locked(batch *b)
{
    if (!all_have_room_locked(b))
        return false;
    b->entry_count = b->removed = b->expired = 0;
    for (uint32_t i = 0; i < b->group_count && !b->damaged; i++) {
        group *g = &b->groups[i];
        if (g->needed)
            use_spare_locked(b, g);
        if (!b->damaged)
            plan_group_locked(b, g);
    }
    return true;
}

/* Allocates what is wanted.  No lock is held. */
static skv_status prepare_tables(batch *b, enum skv_effort effort)
{
    for (uint32_t i = 0; i < b->group_count; i++) {
        group *g = &b->groups[i];
        uint64_t capacity = capacity_of(g);
        if (skv_table_bytes(capacity) > b->store->size)
            return SKV_CORRUPT;         /* a damaged count: no table is longer than the region  */
        if (capacity > b->taken_slots) {
            free(b->taken);
            b->taken_slots = (capacity * 2 + 63) / 64 * 64;
            b->taken = calloc(b->taken_slots / 64, sizeof *b->taken);
            if (!b->taken)
                return SKV_NO_MEMORY;
        }
        if (!g->wanted)
            continue;
        skv_free(b->store, g->spare);
        g->spare = 0;
        g->capacity = g->wanted;
        uint64_t number = (uint64_t)(g->bucket - b->store->buckets);
        skv_status status = skv_prepare_table(b->store, number, g->capacity, effort, b->wait, &g->spare);
        if (status)
            return status;
    }
    return SKV_OK;
}

/* Most keys of a load are new: the tables that they seem to need are made before the first plan, or half of
 * it would be made twice.  Only a guess, from counts that change; what it lacks is found later. */
static skv_status foresee_tables(batch *b, enum skv_effort effort)
{
    for (uint32_t i = 0; i < b->group_count; i++) {
        group *g = &b->groups[i];
        if (i + AHEAD_BUCKET < b->group_count)
            __builtin_prefetch(b->groups[i + AHEAD_BUCKET].bucket, 1);
        g->needed = g->wanted = skv_wanted_capacity(b->store, g->bucket, g->count);
    }
    skv_status status = prepare_tables(b, effort);
    return status == SKV_NO_MEMORY ? status : SKV_OK;
}

/* What is larger than a page needs pages in a row, and none that holds a block which nothing names yet can be emptied
 * for it: so it comes before this batch's smaller blocks. */
static skv_status allocate_runs(batch *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        const skv_item *item = b->items[i];
        uint64_t size = skv_record_size(item->key.len, item->value_len, item->expires_ms != 0);
        if (skv_likely(size <= SKV_PAGE_SIZE))
            continue;
        skv_status status = skv_alloc(b->store, SKV_RECORDS, size, SKV_MOVE, b->wait, &b->items[i]->record);
        if (status)
            return status;
    }
    return SKV_OK;
}

static skv_status prepare(batch *b)
{
    if (!prepare_frame(b))
        return SKV_NO_MEMORY;
    if (b->removing) {          /* must not fail for want of room: it is what makes some       */
        b->intent = skv_row_intent(b->store, skv_load(&b->store->slot));
        return SKV_OK;
    }
    skv_status status = allocate_runs(b);
    if (status == SKV_OK)
        status = skv_alloc(b->store, SKV_TABLES, skv_intent_size(b->count), SKV_MOVE, b->wait, &b->intent);
    SKV_CRASH("batch.intent_allocated");
    /* For the same reason, where there is always too little room, tables come before records: a small store in which
     * each page held some of them evicted everything, to make a page free for a table. */
    if (status == SKV_OK && b->store->evict)
        status = foresee_tables(b, SKV_MOVE);
    return status ? status : skv_prepare_records(b->store, b->items, b->count, b->wait);
}

/* On SKV_OK all buckets are locked and planned. */
static skv_status lock_and_plan(batch *b)
{
    skv_status foreseen = b->removing || b->store->evict ? SKV_OK : foresee_tables(b, SKV_SPREAD);
    if (foreseen)
        return foreseen;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        skv_status status = lock_groups(b);
        if (status)
            return status;
        bool planned = plan_locked(b);
        if (planned && !b->damaged)
            return SKV_OK;
        unlock_groups(b, b->group_count);
        if (b->damaged)
            return SKV_CORRUPT;
        status = prepare_tables(b, SKV_MOVE);
        if (status)
            return status;
    }
    return SKV_BUSY;
}

/* ---- The commit ------------------------------------------------------------------------------------- */

/* Before txn is set: a mark means nothing without it, and a repair lifts it. */
static void doom_locked(batch *b)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < b->group_count; i++) {
        for (uint32_t n = 0; n < b->groups[i].entries; n++, at++)
            atomic_fetch_or_explicit(&b->groups[i].slots[b->entries[at].index].b, SKV_B_DOOMED, memory_order_relaxed);
        SKV_CRASH("batch.doomed");
    }
}

static void announce_locked(batch *b)
{
    for (uint32_t i = 0; i < b->group_count; i++) {
        skv_store_release(&b->groups[i].bucket->txn, b->intent);
        SKV_CRASH("batch.txn_set");
        skv_bump_locked(b->groups[i].bucket);
    }
}

static void apply_group_locked(batch *b, group *g, uint32_t from)
{
    skv_bucket *bucket = g->bucket;
    skv_slot *slots = g->slots;
    for (uint32_t i = from; i < from + g->entries; i++) {
        const skv_intent_entry *entry = &b->entries[i];
        /* A doomed slot stays doomed: a reader or a repair may meet it before A says so, or between the two. */
        if (skv_slot_is_live(entry->old_a) && !b->removing)
            skv_store_b_locked(&slots[entry->index], entry->new_b);
        else if (!b->removing)
            skv_store(&slots[entry->index].b, entry->new_b);
        skv_store_release(&slots[entry->index].a, entry->new_a);
        SKV_CRASH("batch.applied");
        if (skv_slot_is_live(entry->old_a))
            b->freed[b->freed_count++] = skv_slot_offset(entry->old_a);
    }
    skv_store(&bucket->count, (uint32_t)(skv_load(&bucket->count) + g->live));
    skv_store(&bucket->tombstones, (uint32_t)(skv_load(&bucket->tombstones) + g->tombstones));
    skv_store(&bucket->value_bytes, skv_load(&bucket->value_bytes) + (uint64_t)g->bytes);
    uint64_t earliest = skv_load(&bucket->earliest_expiry);
    if (g->earliest && (earliest == 0 || g->earliest < earliest))
        skv_store_release(&bucket->earliest_expiry, g->earliest);
}

static void settle_locked(skv_bucket *bucket)
{
    skv_store_release(&bucket->txn, 0);
    SKV_CRASH("batch.txn_cleared");
    skv_bump_locked(bucket);
}

/* The log took nothing: as if it had never been announced. */
static void withdraw_locked(batch *b, uint64_t generation)
{
    uint32_t at = 0;
    skv_intent_end(b->store, generation);
    SKV_CRASH("batch.withdrawn");
    for (uint32_t i = 0; i < b->group_count; i++) {
        settle_locked(b->groups[i].bucket);
        for (uint32_t n = 0; b->removing && n < b->groups[i].entries; n++, at++)
            atomic_fetch_and_explicit(&b->groups[i].slots[b->entries[at].index].b, ~SKV_B_DOOMED, memory_order_relaxed);
    }
}

/* From the log's lock to its release: a process that is stopped in here holds up every other writer. */
static skv_status append_and_commit_locked(batch *b, uint64_t generation)
{
    skv *store = b->store;
    skv_status status = skv_journal_lock(store, b->wait);
    if (status)
        return status;
    SKV_CRASH("batch.appending");
    status = skv_journal_write_locked(store, &b->frame, skv_intent_status(generation, SKV_BATCH_PENDING), b->wait->stable, &b->position);
    if (status == SKV_OK) {
        skv_intent_commit(store, generation);                   /* the commit                 */
        SKV_CRASH("batch.committed");
        skv_journal_accept_locked(store, b->position);
    }
    skv_journal_unlock(store);
    return status;
}

/* Everything up to the commit.  Buckets are locked; on a failure they still are, and nothing was changed. */
static skv_status announce_and_commit_locked(batch *b, uint32_t action, uint64_t *generation)
{
    *generation = skv_intent_begin(b->store, b->intent, action, b->entries, action == SKV_INTENT_WRITE ? b->entry_count : 0);
    if (action == SKV_INTENT_REMOVE)
        doom_locked(b);
    announce_locked(b);
    SKV_CRASH("batch.announced");
    skv_status status = append_and_commit_locked(b, *generation);
    if (status)
        withdraw_locked(b, *generation);
    return status;
}

static skv_status commit_locked(batch *b)
{
    skv *store = b->store;
    uint64_t generation;
    skv_status status = announce_and_commit_locked(b, b->removing ? SKV_INTENT_REMOVE : SKV_INTENT_WRITE, &generation);
    uint32_t from = 0;
    for (uint32_t i = 0; status == SKV_OK && i < b->group_count; i++) {
        apply_group_locked(b, &b->groups[i], from);
        from += b->groups[i].entries;
        settle_locked(b->groups[i].bucket);
    }
    SKV_CRASH("batch.settled");
    unlock_groups(b, b->group_count);
    SKV_CRASH("batch.unlocked");
    if (status)
        return status;
    skv_intent_end(store, generation);
    for (uint32_t i = 0; i < b->count; i++)
        b->items[i]->record = 0;        /* they are the store's now                           */
    return SKV_OK;
}

/* ---- put_many, delete_many ---------------------------------------------------------------------------- */

/* From the first lock to the last unlock; records, intent and order were prepared before, so that
 * threads do that side by side. */
static skv_status run_prepared(batch *b)
{
    skv *store = b->store;
    prefetch_window(b, 0);
    skv_status status = skv_turn_take(store, b->wait);
    if (status)
        return status;
    status = lock_and_plan(b);
    if (status == SKV_OK)
        status = commit_locked(b);
    pthread_mutex_unlock(&store->batch_mutex);
    return status;
}

static skv_status run_batch(skv *store, skv_item *items, uint32_t count, bool removing, skv_wait *wait, batch *b)
{
    skv_status status = store->read_only ? SKV_READ_ONLY : skv_register(store);
    if (status)
        return status;
    if (store->journal && !wait->block)
        return SKV_BUSY;        /* no file is written under the GIL                           */
    status = batch_init(b, store, items, count, removing, wait);
    bool entered = status == SKV_OK;
    if (entered)
        status = prepare(b);
    if (status == SKV_OK)
        status = run_prepared(b);
    batch_end(b, entered);
    if (!skv_is_whole(store))
        return SKV_CORRUPT;
    return status == SKV_OK && wait->stable ? skv_journal_wait(store, b->position, wait) : status;
}

uint64_t skv_item_size(const skv_item *item)
{
    return skv_record_size(item->key.len, item->value_len, true);
}

skv_status skv_put_many(skv *store, skv_item *items, uint32_t count, skv_wait *wait)
{
    uint64_t total = 0;
    if (count > SKV_MAX_BATCH)
        return SKV_TOO_LARGE;
    for (uint32_t i = 0; i < count; i++) {
        if (!skv_item_fits(store, &items[i]))
            return SKV_TOO_LARGE;
        total += skv_item_size(&items[i]);
    }
    if (total > skv_max_value(store) && count > 1)
        return SKV_TOO_LARGE;
    if (count == 0)
        return store->read_only ? SKV_READ_ONLY : SKV_OK;
    batch b;
    skv_status status = run_batch(store, items, count, false, wait, &b);
    for (uint32_t tries = 0; status && skv_is_worth_another_try(store, status, tries, wait); tries++)
        status = run_batch(store, items, count, false, wait, &b);
    if (status == SKV_OK)
        skv_count(store, SKV_SETS, b.count, wait->shared);
    if (status == SKV_OK && store->evict)
        skv_age_count(store, total);
    return status;
}

skv_status skv_delete_many(skv *store, skv_item *items, uint32_t count, uint32_t *removed, skv_wait *wait)
{
    *removed = 0;
    if (count > SKV_MAX_BATCH)
        return SKV_TOO_LARGE;
    if (count == 0)
        return store->read_only ? SKV_READ_ONLY : SKV_OK;
    batch b;
    skv_status status = run_batch(store, items, count, true, wait, &b);
    if (status)
        return status;
    *removed = b.removed;
    skv_count(store, SKV_DELETES, b.removed, wait->shared);
    skv_count(store, SKV_EXPIRED, b.expired, wait->shared);
    return SKV_OK;
}

/* ---- clear ----------------------------------------------------------------------------------------------- */

/* Frees a table that nothing names any more, and the records that it names. */
static uint64_t free_table_and_records(skv *store, uint64_t table)
{
    const skv_slot *slots = skv_slots(store, table);
    uint64_t freed = 0;
    for (uint64_t i = 0; slots && i < skv_table_capacity(table); i++) {
        uint64_t a = skv_load(&slots[i].a);
        if (skv_slot_is_live(a)) {
            skv_free(store, skv_slot_offset(a));
            freed++;
        }
    }
    if (slots)
        skv_free(store, skv_table_offset(table));
    return freed;
}

static void empty_bucket_locked(skv_bucket *bucket)
{
    skv_publish_table_locked(bucket, 0);
    SKV_CRASH("clear.applied");
    skv_store(&bucket->count, 0);
    skv_store(&bucket->tombstones, 0);
    skv_store(&bucket->value_bytes, 0);
    skv_store_release(&bucket->earliest_expiry, 0);
}

static skv_status clear_locked(batch *b)
{
    uint64_t generation;
    skv_status status = announce_and_commit_locked(b, SKV_INTENT_CLEAR, &generation);
    for (uint32_t i = 0; status == SKV_OK && i < b->group_count; i++) {
        b->tables[i] = skv_load(&b->groups[i].bucket->table);
        empty_bucket_locked(b->groups[i].bucket);
        settle_locked(b->groups[i].bucket);
    }
    unlock_groups(b, b->group_count);
    SKV_CRASH("clear.unlocked");
    if (status == SKV_OK)
        skv_intent_end(b->store, generation);
    return status;
}

static bool prepare_clear_frame(batch *b)
{
    const skv_op op = {.kind = SKV_OP_CLEAR};
    return !b->store->journal || (skv_frame_begin(&b->frame, SKV_FRAME_CHANGE) && skv_frame_add(&b->frame, &op));
}

static bool make_clear_arrays(batch *b)
{
    const size_t n = b->group_count, groups = n * sizeof *b->groups, tables = n * sizeof *b->tables;
    const size_t frame = skv_frame_room(SKV_OP_HEAD);
    b->scratch = skv_scratch_take(&b->store->scratch, skv_scratch_size(groups) + skv_scratch_size(tables) + skv_scratch_size(frame));
    if (!b->scratch)
        return false;
    b->groups = skv_scratch_part(b->scratch, groups);
    b->tables = skv_scratch_part(b->scratch, tables);
    b->frame = (skv_frame){.bytes = skv_scratch_part(b->scratch, frame), .room = frame};
    return true;
}

static skv_status run_clear(batch *b, uint64_t *freed)
{
    for (uint32_t i = 0; i < b->group_count; i++)
        b->groups[i] = (group){.bucket = &b->store->buckets[i]};
    b->intent = skv_row_intent(b->store, skv_load(&b->store->slot));
    skv_status status = prepare_clear_frame(b) ? lock_groups(b) : SKV_NO_MEMORY;
    if (status == SKV_OK)
        status = clear_locked(b);
    for (uint32_t i = 0; status == SKV_OK && i < b->group_count; i++)
        if (b->tables[i])
            *freed += free_table_and_records(b->store, b->tables[i]);
    return status;
}

skv_status skv_clear(skv *store, skv_wait *wait)
{
    if (!wait->block)
        return SKV_BUSY;        /* locks every bucket: not under the GIL                      */
    skv_status status = store->read_only ? SKV_READ_ONLY : skv_register(store);
    if (status == SKV_OK)
        status = skv_turn_take(store, wait);
    if (status)
        return status;
    batch b = {.store = store, .wait = wait, .removing = true, .group_count = (uint32_t)store->bucket_count};
    const bool entered = make_clear_arrays(&b);
    status = SKV_NO_MEMORY;
    if (entered) {
        uint64_t freed = 0;
        b.busy = skv_busy_enter(store, true);
        status = run_clear(&b, &freed);
        skv_count(store, SKV_DELETES, freed, wait->shared);
    }
    batch_end(&b, entered);
    pthread_mutex_unlock(&store->batch_mutex);
    if (!skv_is_whole(store))
        return SKV_CORRUPT;
    return status == SKV_OK && wait->stable ? skv_journal_wait(store, b.position, wait) : status;
}
