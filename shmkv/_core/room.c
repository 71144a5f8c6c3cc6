/* room.c: see room.h.  From cheap to dear: what is free for the asking, what others left, what may go.
 *
 * Evicting stores drop cold items first: that is their normal life, and the pages that they come from
 * serve the next item of the same class.  Only when that does not help (the freed blocks are of
 * another class) whole pages are emptied.
 */
#include "room.h"

#include "compact.h"
#include "evacuate.h"
#include "lease.h"
#include "procs.h"
#include "spare.h"
#include "sweep.h"

#define EVICT_ROUNDS      6u
#define EVICT_BYTES       (UINT64_C(32) << 10)  /* at a time: the price of a visit, shared     */
#define MAX_STUCK         8u

static uint32_t pages_for(uint64_t size)
{
    return (uint32_t)((size + SKV_PAGE_SIZE - 1) >> SKV_PAGE_SHIFT);
}

static skv_status evict_items(skv *store, uint64_t size)
{
    uint64_t goal = store->size / 64 < EVICT_BYTES ? store->size / 64 : EVICT_BYTES;
    return skv_evict_some(store, size * 2 > goal ? size * 2 : goal) ? SKV_OK : SKV_FULL;
}

/* Moves the sparsest page's blocks into the gaps of others of its class, or drops them. */
static skv_status empty_one_page(skv *store, bool drop, skv_wait *wait)
{
    uint32_t stuck[MAX_STUCK], count = 0, page;
    while (count < MAX_STUCK && skv_sparsest_page(store, drop, stuck, count, &page)) {
        skv_evacuation result = {0};
        if (skv_evacuate_page(store, page, drop ? SKV_DROP : SKV_INTO_GAPS, &result, wait)) {
            if (result.dropped)
                skv_count(store, SKV_EVICTED, result.dropped, true);
            return SKV_OK;
        }
        stuck[count++] = page;
    }
    return SKV_FULL;
}

static skv_status empty_pages(skv *store, uint64_t size, bool drop, skv_wait *wait)
{
    if (size > SKV_PAGE_SIZE)
        return skv_evacuate_window(store, pages_for(size), drop, wait) ? SKV_OK : SKV_FULL;
    return empty_one_page(store, drop, wait);
}

static skv_status collect(skv *store, skv_wait *wait)
{
    uint32_t slots = 0;
    uint64_t dropped = 0;
    skv_reclaim_dead(store, &slots);
    skv_sweep_expired(store, store->bucket_count, &dropped, wait);
    skv_shrink_tables(store, wait);
    skv_leases_return(store);
    return SKV_OK;
}

skv_status skv_make_room(skv *store, uint64_t size, uint32_t round, skv_wait *wait)
{
    if (!wait->block)
        return SKV_BUSY;        /* milliseconds: not under the GIL                            */
    if (store->evict && round < EVICT_ROUNDS && size <= SKV_PAGE_SIZE)
        return evict_items(store, size) == SKV_OK ? SKV_OK : collect(store, wait);
    skv_spares_free(store);     /* each keeps its page from being emptied                     */
    if (round == 0)
        return collect(store, wait);
    if (empty_pages(store, size, false, wait) == SKV_OK)
        return SKV_OK;
    return store->evict ? empty_pages(store, size, true, wait) : SKV_FULL;
}
