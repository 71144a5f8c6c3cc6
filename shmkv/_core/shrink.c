/* shrink.c: see shrink.h.
 *
 * Why:  a table grows with its bucket's items, and nothing makes it smaller when they go: a delete must need no room.  So it
 *       is whoever needs room that shrinks tables.
 *
 * Concurrency: one bucket's lock at a time; the new table is allocated before, the old one freed after it.
 */
#include "shrink.h"

#include "procs.h"
#include "write.h"

/* The capacity that a bucket's table should have instead of `capacity`; that one where it is not far larger. */
static uint64_t smaller_capacity(uint64_t number, uint32_t items, uint64_t capacity)
{
    if (items == 0)
        return 0;
    if ((uint64_t)items * 7 >= capacity * 4)
        return capacity;        /* for no load limit is that half too large                   */
    uint64_t wanted = skv_capacity_for(number, items);
    return capacity > wanted * 3 / 2 ? wanted : capacity;
}

static void remove_table_locked(skv_bucket *bucket)
{
    skv_publish_table_locked(bucket, 0);
    skv_store(&bucket->tombstones, 0);
    skv_bump_locked(bucket);
}

/* Puts the table at `spare` in force, or none if that is 0; which block the caller has to free. */
static uint64_t replace_table_locked(skv *store, skv_bucket *bucket, uint64_t spare, uint64_t wanted)
{
    uint64_t old = skv_table_offset(skv_load(&bucket->table));
    if (spare)
        return skv_replace_table_locked(store, bucket, spare, wanted) ? old : spare;
    remove_table_locked(bucket);
    return old;
}

static skv_status shrink_bucket(skv *store, uint64_t number, uint64_t *shrunk, skv_wait *wait)
{
    skv_bucket *bucket = &store->buckets[number];
    uint64_t capacity = skv_table_capacity(skv_load_acquire(&bucket->table)), spare = 0;
    uint32_t items = skv_load(&bucket->count);
    /* A store that evicts remembers in the smallest table what went (ghost.h). */
    uint64_t wanted = smaller_capacity(number, items || !store->evict ? items : 1, capacity);
    if (wanted == capacity)
        return SKV_OK;
    skv_status status = wanted ? skv_prepare_table(store, number, wanted, SKV_SPREAD, wait, &spare) : SKV_OK;
    if (status == SKV_OK)
        status = skv_lock_bucket(store, bucket, wait);
    if (status == SKV_OK) {
        if (skv_load(&bucket->count) <= items && skv_table_capacity(skv_load(&bucket->table)) == capacity) {
            spare = replace_table_locked(store, bucket, spare, wanted);
            ++*shrunk;
        }
        skv_unlock(store, &bucket->lock);
    }
    skv_free(store, spare);
    return status;
}

skv_status skv_shrink_tables(skv *store, uint64_t first, uint64_t count, uint64_t *shrunk, skv_wait *wait)
{
    skv_status result = SKV_OK;
    uint64_t done = 0;
    for (uint64_t i = 0; i < count && (result == SKV_OK || result == SKV_FULL); i++) {
        uint32_t busy = skv_busy_enter(store, true);
        skv_status status = shrink_bucket(store, (first + i) & (store->bucket_count - 1), &done, wait);
        skv_busy_exit(store, busy);
        result = status ? status : result;
    }
    if (shrunk)
        *shrunk = done;
    return result;
}
