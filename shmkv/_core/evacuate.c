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
    if (skv_alloc(store, SKV_RECORDS, bytes, effort_of(manner), wait, &to))
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
    if (slot) {
        copy_block(store, to, offset, bytes);
        SKV_CRASH("evacuate.copied");
        skv_store_release(&slot->a, skv_slot_word(skv_slot_tag(a), to));        /* the commit */
        SKV_CRASH("evacuate.published");
        skv_bump_locked(bucket);
    }
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
    switch (skv_move_block(move->store, move->family, offset, size, move->manner, move->wait)) {
    case SKV_MOVED:
        move->result->moved++;
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

bool skv_empty_closed_page(skv *store, uint32_t page, enum skv_manner manner, skv_evacuation *result, skv_wait *wait)
{
    uint64_t word = skv_load(&store->pages[page].word);
    page_move move = {store, (enum skv_family)skv_pw_family(word), manner, wait, result};
    skv_page_walk(store, page, skv_pw_class(word), move_visited, &move);
    return skv_page_release_if_empty(store, page, true, wait);
}

bool skv_evacuate_closed_page(skv *store, uint32_t page, enum skv_manner manner, skv_evacuation *result, skv_wait *wait)
{
    bool freed = skv_empty_closed_page(store, page, manner, result, wait);
    if (!freed)
        skv_page_reopen(store, page);
    return freed;
}
