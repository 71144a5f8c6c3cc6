/* evacuate.c: see evacuate.h.
 *
 * How:  a page is closed (nobody allocates in it any more), then each block in use is asked whom it
 *       belongs to: a record's key leads to its bucket, a table's header names its bucket.  Under
 *       that bucket's lock, if the slot (or table word) still names the block, it is copied and the
 *       name changed by one store, as in any write.  A block that nothing names stays: whether it is a
 *       leak or part of an operation in flight only an audit can tell (compact.c).
 *
 * Concurrency: one bucket's lock at a time; the new block is allocated before, the old one freed
 *       after it.
 */
#include "evacuate.h"

#include "alloc.h"
#include "repair.h"
#include "write.h"

/* ---- One block ---------------------------------------------------------------------------- */

static skv_slot *slot_that_names(const skv *store, uint64_t table, uint64_t a)
{
    skv_slot *slots = skv_slots(store, table);
    uint64_t capacity = skv_table_capacity(table);
    if (!slots)
        return NULL;
    uint64_t i = skv_home(skv_slot_tag(a), capacity);
    for (uint64_t steps = 0; steps < capacity; steps++) {
        uint64_t seen = skv_load(&slots[i].a);
        if (seen == a)
            return &slots[i];
        if (seen == SKV_EMPTY)
            return NULL;
        if (++i == capacity)
            i = 0;
    }
    return NULL;
}

static enum skv_effort effort_of(enum skv_manner manner)
{
    return manner == SKV_INTO_GAPS ? SKV_FILL : SKV_SPREAD;
}

static void copy_block(skv *store, uint64_t to, uint64_t from, uint64_t size)
{
    skv_fence_release();        /* as in skv_write_record                                     */
    skv_write_racy(store->base + to, store->base + from, size);
}

static enum skv_move move_record(skv *store, uint64_t offset, uint64_t size, enum skv_manner manner, skv_wait *wait)
{
    const bool drop = manner == SKV_DROP;
    skv_head head;
    if (!skv_read_head(store, offset, &head))
        return SKV_NOT_NAMED;
    uint64_t bytes = skv_record_size(head.key_len, head.value_len, head.flags & SKV_REC_EXPIRY), to = 0;
    if (bytes > size)
        return SKV_NOT_NAMED;
#ifdef SKV_TSAN          /* the block may belong to an operation in flight that is writing it        */
    uint8_t copy[SKV_MAX_KEY];
    skv_copy_racy(copy, head.key, head.key_len);
    skv_key key = skv_hash_key(store, copy, head.key_len, head.flags & SKV_REC_BYTES_KEY);
#else
    skv_key key = skv_hash_key(store, head.key, head.key_len, head.flags & SKV_REC_BYTES_KEY);
#endif
    skv_bucket *bucket = skv_bucket_of(store, key.hash);
    uint64_t a = skv_slot_word(skv_tag_of(key.hash), offset);
    if (!slot_that_names(store, skv_load_acquire(&bucket->table), a))
        return SKV_NOT_NAMED;
    if (!drop && skv_alloc(store, SKV_RECORDS, bytes, effort_of(manner), wait, &to))
        return SKV_NO_TARGET;
    SKV_CRASH("evacuate.allocated");
    if (skv_lock_bucket(store, bucket, wait)) {
        skv_free(store, to);
        return SKV_NO_TARGET;
    }
    skv_slot *slot = slot_that_names(store, skv_load(&bucket->table), a);
    /* Until now the block may have been free, or have been written: only what the slot names under
     * the lock is the record.  Another one of the same key than was looked at stays where it is. */
    skv_head now;
    if (slot && (!skv_read_head(store, offset, &now) || now.value_len != head.value_len
                 || now.key_len != head.key_len || now.flags != head.flags))
        slot = NULL;
    if (slot && drop) {
        skv_remove_locked(store, bucket, slot, head.value_len);
    } else if (slot) {
        copy_block(store, to, offset, bytes);
        SKV_CRASH("evacuate.copied");
        skv_store_release(&slot->a, skv_slot_word(skv_slot_tag(a), to));        /* the commit */
        SKV_CRASH("evacuate.published");
    }
    if (slot)
        skv_bump_locked(bucket);
    skv_unlock(store, &bucket->lock);
    SKV_CRASH("evacuate.unlocked");
    skv_free(store, slot ? offset : to);
    return slot ? SKV_MOVED : SKV_NOT_NAMED;
}

static enum skv_move move_table(skv *store, uint64_t offset, enum skv_manner manner, skv_wait *wait)
{
    const skv_meta *meta = (const skv_meta *)(const void *)(store->base + offset);
    uint64_t number = skv_load(&meta->owner), to = 0;
    if (skv_load(&meta->kind) != SKV_META_TABLE || number >= store->bucket_count)
        return SKV_NOT_NAMED;
    skv_bucket *bucket = &store->buckets[number];
    uint64_t table = skv_load_acquire(&bucket->table), bytes = skv_table_bytes(skv_table_capacity(table));
    if (skv_table_offset(table) != offset)
        return SKV_NOT_NAMED;
    if (skv_alloc(store, SKV_TABLES, bytes, effort_of(manner), wait, &to))
        return SKV_NO_TARGET;
    if (skv_lock_bucket(store, bucket, wait)) {
        skv_free(store, to);
        return SKV_NO_TARGET;
    }
    bool same = skv_load(&bucket->table) == table;
    if (same) {
        copy_block(store, to, offset, bytes);
        skv_publish_table_locked(bucket, skv_table_word(skv_table_capacity(table), to));
        SKV_CRASH("evacuate.table_published");
        skv_bump_locked(bucket);
    }
    skv_unlock(store, &bucket->lock);
    skv_free(store, same ? offset : to);
    return same ? SKV_MOVED : SKV_NOT_NAMED;
}

enum skv_move skv_move_block(skv *store, enum skv_family family, uint64_t offset, uint64_t size, enum skv_manner manner, skv_wait *wait)
{
    uint32_t busy = skv_busy_enter(store, true);
    enum skv_move result = family == SKV_RECORDS ? move_record(store, offset, size, manner, wait)
                                                 : move_table(store, offset, manner, wait);
    skv_busy_exit(store, busy);
    return result;
}

/* ---- One page ------------------------------------------------------------------------------- */

typedef struct page_move {
    skv *store;
    enum skv_family family;
    enum skv_manner manner;
    skv_wait *wait;
    skv_evacuation *result;
} page_move;

static bool move_visited(void *context, uint64_t offset, uint32_t size)
{
    page_move *move = context;
    const bool drop = move->manner == SKV_DROP && move->family == SKV_RECORDS;
    switch (skv_move_block(move->store, move->family, offset, size, move->manner, move->wait)) {
    case SKV_MOVED:
        move->result->moved += !drop;
        move->result->dropped += drop;
        return true;
    case SKV_NOT_NAMED:
        move->result->stuck++;
        return true;
    default:
        return false;           /* without a target the rest cannot be moved either            */
    }
}

bool skv_evacuate_page(skv *store, uint32_t page, enum skv_manner manner, skv_evacuation *result, skv_wait *wait)
{
    if (!skv_page_close(store, page, wait))
        return false;
    SKV_CRASH("evacuate.closed");
    return skv_evacuate_closed_page(store, page, manner, result, wait);
}

bool skv_evacuate_closed_page(skv *store, uint32_t page, enum skv_manner manner, skv_evacuation *result, skv_wait *wait)
{
    uint64_t word = skv_load(&store->pages[page].word);
    page_move move = {store, (enum skv_family)skv_pw_family(word), manner, wait, result};
    skv_page_walk(store, page, skv_pw_class(word), move_visited, &move);
    bool freed = skv_page_release_if_empty(store, page, true, wait);
    if (!freed)
        skv_page_reopen(store, page);
    return freed;
}

/* ---- Choosing --------------------------------------------------------------------------------- */

typedef struct class_room {
    uint64_t free_blocks;       /* in all open pages of the class                             */
    uint32_t best, best_used;   /* page with the fewest blocks in use, + 1; 0 = none          */
} class_room;

static bool is_skipped(uint32_t page, const uint32_t *skip, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (skip[i] == page)
            return true;
    return false;
}

static bool is_open(uint64_t word)
{
    return skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) == 0 && skv_pw_class(word) < SKV_CLASSES
           && skv_pw_family(word) < SKV_FAMILIES;
}

static uint64_t block_bytes(uint32_t cls)
{
    return cls == SKV_UNIT_CLASS ? 1u << SKV_UNIT_SHIFT : skv_class_size(cls);
}

bool skv_sparsest_page(const skv *store, bool drop, const uint32_t *skip, uint32_t skip_count, uint32_t *page)
{
    class_room rooms[SKV_FAMILIES][SKV_CLASSES] = {0};
    uint32_t end = skv_committed_pages(store);
    for (uint32_t p = 0; p < end; p++) {
        uint64_t word = skv_load(&store->pages[p].word);
        if (!is_open(word) || is_skipped(p, skip, skip_count))
            continue;
        class_room *room = &rooms[skv_pw_family(word)][skv_pw_class(word)];
        uint32_t used = skv_page_used(store, p, skv_pw_class(word));
        room->free_blocks += skv_class_blocks(skv_pw_class(word)) - used;
        if (room->best == 0 || used < room->best_used) {
            room->best = p + 1;
            room->best_used = used;
        }
    }
    uint64_t least = UINT64_MAX;
    for (uint32_t family = 0; family < SKV_FAMILIES; family++) {
        for (uint32_t cls = 0; cls < SKV_CLASSES; cls++) {
            const class_room *room = &rooms[family][cls];
            uint64_t cost = room->best_used * block_bytes(cls), own_free = skv_class_blocks(cls) - room->best_used;
            bool fits = drop ? family == SKV_RECORDS : room->free_blocks - own_free >= room->best_used;
            if (room->best && fits && cost < least) {
                least = cost;
                *page = room->best - 1;
            }
        }
    }
    return least != UINT64_MAX;
}

/* ---- Windows, for runs --------------------------------------------------------------------------- */

#define IMPOSSIBLE UINT64_MAX

/* The head of the run that `page` lies in. */
static uint32_t head_of(const skv *store, uint32_t page)
{
    uint64_t word = skv_load(&store->pages[page].word);
    uint32_t distance = skv_pw_state(word) == SKV_PAGE_TAIL ? skv_pw_run(word) : 0;
    return distance <= page ? page - distance : page;
}

static uint64_t page_cost(const skv *store, uint32_t page, bool tables)
{
    uint64_t word = skv_load(&store->pages[page].word);
    if (skv_pw_state(word) == SKV_PAGE_FREE)
        return 0;
    if (skv_pw_state(word) == SKV_PAGE_RUN || skv_pw_state(word) == SKV_PAGE_TAIL)
        return skv_pw_family(skv_load(&store->pages[head_of(store, page)].word)) == SKV_RECORDS ? SKV_PAGE_SIZE : IMPOSSIBLE;
    if (!is_open(word))
        return IMPOSSIBLE;
    if (!tables && skv_pw_family(word) == SKV_TABLES)
        return IMPOSSIBLE;
    return skv_page_used_bytes(store, page, skv_pw_class(word)) + 1;
}

/* Start of the cheapest window of `pages` pages, or `end`. */
static uint32_t cheapest_window(const skv *store, uint32_t pages, bool tables, uint32_t end)
{
    uint64_t sum = 0, least = IMPOSSIBLE;
    uint32_t blocked = 0, best = end;
    for (uint32_t p = 0; p < end; p++) {
        uint64_t in = page_cost(store, p, tables);
        blocked += in == IMPOSSIBLE;
        sum += in == IMPOSSIBLE ? 0 : in;
        if (p >= pages) {
            uint64_t out = page_cost(store, p - pages, tables);
            blocked -= out == IMPOSSIBLE && blocked;
            sum -= out == IMPOSSIBLE || out > sum ? 0 : out;
        }
        if (p + 1 >= pages && !blocked && sum < least) {
            least = sum;
            best = p + 1 - pages;
        }
    }
    return best;
}

static bool empty_page(skv *store, uint32_t page, bool drop, skv_wait *wait)
{
    uint64_t word = skv_load(&store->pages[page].word);
    skv_evacuation result = {0};
    switch (skv_pw_state(word)) {
    case SKV_PAGE_FREE:
        return true;
    case SKV_PAGE_RUN:
    case SKV_PAGE_TAIL: {
        uint32_t head = head_of(store, page);
        word = skv_load(&store->pages[head].word);
        uint64_t size = (uint64_t)skv_pw_run(word) << SKV_PAGE_SHIFT;
        if (skv_pw_state(word) != SKV_PAGE_RUN || skv_pw_family(word) != SKV_RECORDS)
            return false;
        if (skv_move_block(store, SKV_RECORDS, skv_page_start(store, head), size, drop ? SKV_DROP : SKV_ANYWHERE, wait)
            != SKV_MOVED)
            return false;
        skv_count(store, SKV_EVICTED, drop, true);
        return true;
    }
    default: {
        bool empty = skv_evacuate_page(store, page, drop ? SKV_DROP : SKV_ANYWHERE, &result, wait);
        skv_count(store, SKV_EVICTED, result.dropped, true);
        return empty;
    }
    }
}

/* Tables cannot be dropped, and need somewhere to go: the place of the fewest records outside the window. */
static bool drop_a_page_outside(skv *store, uint32_t start, uint32_t pages, skv_wait *wait)
{
    uint32_t best = UINT32_MAX, least = UINT32_MAX;
    for (uint32_t p = 0; p < skv_committed_pages(store); p++) {
        uint64_t word = skv_load(&store->pages[p].word);
        if ((p >= start && p < start + pages) || !is_open(word) || skv_pw_family(word) != SKV_RECORDS)
            continue;
        uint32_t used = skv_page_used(store, p, skv_pw_class(word));
        if (used < least) {
            least = used;
            best = p;
        }
    }
    return best != UINT32_MAX && empty_page(store, best, true, wait);
}

bool skv_evacuate_window(skv *store, uint32_t pages, bool drop, skv_wait *wait)
{
    /* Tables cannot be dropped, and perhaps there is nowhere to move them: better other windows. */
    uint32_t end = skv_committed_pages(store), start = cheapest_window(store, pages, false, end);
    if (start >= end)
        start = cheapest_window(store, pages, true, end);
    if (start >= end)
        return false;
    /* What is free in the window stays hidden meanwhile, or the blocks of one of its pages would
     * go into another. */
    bool all = true;
    for (uint32_t p = start; p < start + pages; p++)
        skv_page_hide(store, p);
    for (uint32_t p = start; p < start + pages && all; p++) {
        all = empty_page(store, p, drop, wait)
              || (drop && drop_a_page_outside(store, start, pages, wait) && empty_page(store, p, drop, wait));
        skv_page_hide(store, p);
    }
    for (uint32_t p = start; p < start + pages; p++)
        skv_page_refresh_kind(store, p);
    return all;
}
