/* room.c: see room.h.  From cheap to dear: what is free for the asking, what lies where it is not needed, what may go.
 *
 * Room that is free may lie in pages of other sizes, or not in a row: then blocks are moved (gather.c, window.c).  A
 * store that evicts does so only if there is too little of it, and that is its normal life: so small items
 * are evicted at once, which makes room in pages of their own size, and gaps are looked for now and then.
 */
#include "room.h"

#include "evict.h"
#include "gather.h"
#include "lease.h"
#include "procs.h"
#include "shrink.h"
#include "spare.h"
#include "window.h"

#define EVICT_BYTES       (UINT64_C(32) << 10)  /* at a time: the price of a visit, shared     */
#define GATHER_PAGES      4u    /* at a time, for the same reason                             */
#define SHRINK_TRIES      16u   /* pages gathered for smaller tables, in one call             */
#define SHRINK_PART       32u   /* of an evicting store's tables, looked at at a time,        */
#define SHRINK_LEAST      4096u /* or so many: microseconds                                   */
#define TIDY_PART         64u   /* an evicting store looks for gaps whenever it has evicted a 64th of its size, */
#define TIDY_LEAST        (UINT64_C(64) << 10)  /* and so many bytes                          */

static uint32_t pages_for(uint64_t size)
{
    return (uint32_t)((size + SKV_PAGE_SIZE - 1) >> SKV_PAGE_SHIFT);
}

/* What others left, and what this process keeps to itself. */
static void collect(skv *store, skv_wait *wait)
{
    uint32_t slots = 0;
    uint64_t dropped = 0;
    skv_reclaim_dead(store, &slots);
    skv_sweep_expired(store, store->bucket_count, &dropped, wait);
    skv_spares_free(store);     /* each keeps its page from being emptied                     */
    skv_leases_return(store);
    /* Smaller tables need room before they make some. */
    for (uint32_t tries = 0; tries < SHRINK_TRIES; tries++)
        if (skv_shrink_tables(store, 0, store->bucket_count, NULL, wait) != SKV_FULL || !skv_gather(store, 1, wait))
            break;
    skv_leases_return(store);
}

static bool move_blocks(skv *store, uint64_t size, skv_wait *wait)
{
    skv_spares_free(store);
    skv_leases_return(store);
    if (size > SKV_PAGE_SIZE)
        return skv_empty_window(store, pages_for(size), wait);
    return skv_gather(store, GATHER_PAGES, wait) > 0;
}

/* ---- Stores that evict ---------------------------------------------------------------------- */

static uint64_t bytes_to_evict(const skv *store, uint64_t size)
{
    uint64_t goal = store->size / 64 < EVICT_BYTES ? store->size / 64 : EVICT_BYTES;
    uint64_t bytes = size > SKV_PAGE_SIZE ? size : size * 2;
    return bytes > goal ? bytes : goal;
}

/* True: some were too large. */
static bool shrink_some_tables(skv *store, skv_wait *wait)
{
    uint64_t count = store->bucket_count / SHRINK_PART, shrunk = 0;
    if (count < SHRINK_LEAST)
        count = store->bucket_count < SHRINK_LEAST ? store->bucket_count : SHRINK_LEAST;
    uint64_t hand = atomic_fetch_add_explicit(&store->shrink_hand, count, memory_order_relaxed);
    if (skv_shrink_tables(store, hand, count, &shrunk, wait) == SKV_FULL && shrunk == 0 && skv_gather(store, 1, wait))
        skv_shrink_tables(store, hand, count, &shrunk, wait);
    return shrunk > 0;
}

/* Now and then: are there tables that are too large, and gaps that nobody uses? */
static bool tidy(skv *store, uint64_t size, skv_wait *wait)
{
    uint64_t left = skv_load(&store->tidy_in), bytes = bytes_to_evict(store, size);
    if (left > bytes) {
        skv_store(&store->tidy_in, left - bytes);
        return false;
    }
    skv_leases_return(store);
    if (shrink_some_tables(store, wait) || skv_gather_where_worth(store, GATHER_PAGES, wait))
        return true;
    skv_store(&store->tidy_in, store->size / TIDY_PART + TIDY_LEAST);
    return false;
}

/* A run of pages takes the room of many items, of whatever sizes: each time, it is worth a look. */
static bool move_for_run(skv *store, uint64_t size, skv_wait *wait)
{
    skv_spares_free(store);
    skv_leases_return(store);
    return shrink_some_tables(store, wait) || skv_empty_window_nearby(store, pages_for(size), wait);
}

static skv_status make_room_evicting(skv *store, uint64_t size, uint32_t round, skv_wait *wait)
{
    uint64_t evicted;
    bool moved = size > SKV_PAGE_SIZE ? move_for_run(store, size, wait)
                 : round == 0         ? tidy(store, size, wait)
                                      : move_blocks(store, size, wait);
    if (moved)
        return SKV_OK;
    skv_status status = skv_evict_some(store, bytes_to_evict(store, size), wait, &evicted);
    if (evicted || status)
        return evicted ? SKV_OK : status;
    collect(store, wait);
    return move_blocks(store, size, wait) ? SKV_OK : SKV_FULL;
}

skv_status skv_make_room(skv *store, uint64_t size, uint32_t round, skv_wait *wait)
{
    if (!wait->block)
        return SKV_BUSY;        /* milliseconds: not under the GIL                            */
    if (store->evict)
        return make_room_evicting(store, size, round, wait);
    if (round == 0) {
        collect(store, wait);
        return SKV_OK;
    }
    return move_blocks(store, size, wait) ? SKV_OK : SKV_FULL;
}
