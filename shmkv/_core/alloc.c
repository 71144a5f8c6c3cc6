/* alloc.c: where a block or a run comes from, in which order.  See alloc.h. */
#include "alloc.h"

#include "grow.h"
#include "kept.h"
#include "lease.h"
#include "room.h"
#include "runs.h"
#include "slide.h"

#define ALLOC_ROUNDS   64u      /* rounds of make room and try again before giving up         */

static bool worth_making_room(skv_status status)
{
    return status == SKV_FULL || status == SKV_NO_SPACE || status == SKV_CGROUP_FULL;
}

/* Before the region grows, or takes memory back from the system, where it still can. */
static bool returned_by_the_dead(skv *store, const skv_wait *wait)
{
    if (!wait->block)
        return false;           /* a system call for each: not under the GIL, and asked again without it */
    uint32_t end = skv_committed_pages(store);
    bool may_grow = end < store->page_count || skv_find_kind(store, SKV_KIND_PUNCHED, 0, end) < end;
    return may_grow && skv_kept_return_of_dead(store);
}

/* *reason: why the region could not grow, for whoever gives up in the end.  Growth that others use up at once is none. */
static skv_status grow_for(skv *store, uint32_t pages, skv_wait *wait, skv_status *reason)
{
    skv_status status = skv_grow(store, pages, wait);
    if (status)
        *reason = status;
    return status;
}

/* For who moves blocks. */
static skv_status fill_block(skv *store, enum skv_family family, uint64_t size, enum skv_search search, skv_wait *wait, uint64_t *offset)
{
    skv_status status = SKV_OK;
    for (uint32_t round = 0; round < ALLOC_ROUNDS * SKV_GROW_STEP_PAGES && status == SKV_OK; round++) {
        *offset = 0;
        if (skv_alloc_leased(store, family, size, 1, offset))
            return SKV_OK;
        status = skv_refill(store, family, size, search, wait, offset);
        if (status == SKV_OK && *offset)
            return SKV_OK;
    }
    return status ? status : SKV_FULL;
}

static skv_status alloc_block(skv *store, enum skv_family family, uint64_t size, skv_wait *wait, uint64_t *offset)
{
    skv_status status = SKV_OK, reason = SKV_FULL;
    for (uint32_t round = 0; round < ALLOC_ROUNDS * SKV_GROW_STEP_PAGES; round++) {
        *offset = 0;
        if (skv_alloc_leased(store, family, size, 1, offset))
            return SKV_OK;
        status = skv_refill(store, family, size, SKV_SEARCH_ROOMY_OR_FREE, wait, offset);
        if (worth_making_room(status) && returned_by_the_dead(store, wait))
            continue;
        if (worth_making_room(status))
            status = skv_unpunch(store, 1, wait);
        if (worth_making_room(status))
            status = grow_for(store, 1, wait, &reason);
        if (worth_making_room(status))
            status = skv_refill(store, family, size, SKV_SEARCH_ANY, wait, offset);
        if (worth_making_room(status) && round < ALLOC_ROUNDS)
            status = skv_make_room(store, size, round, wait);
        if (status)
            return worth_making_room(status) ? reason : status;
        if (*offset)
            return SKV_OK;
    }
    return reason;
}

/* What is left is committed too, though it is too little: its pages may be part of a window, or take what lies in one. */
static skv_status grow_for_run(skv *store, uint32_t n, skv_wait *wait, skv_status *reason)
{
    uint32_t grow = skv_pages_to_grow(store, n), left = store->page_count - skv_committed_pages(store);
    if (grow == 0)
        return SKV_OK;          /* a run at the end has become free since it was looked for    */
    return left ? grow_for(store, grow < left ? grow : left, wait, reason) : SKV_FULL;
}

static skv_status alloc_run(skv *store, enum skv_family family, uint64_t size, skv_wait *wait, uint64_t *offset)
{
    uint64_t n = (size + SKV_PAGE_SIZE - 1) >> SKV_PAGE_SHIFT;
    if (n > store->page_count)
        return SKV_FULL;
    skv_status reason = SKV_FULL;
    for (uint32_t round = 0; round < ALLOC_ROUNDS; round++) {
        /* Later on, that might move blocks into the very pages that making room has just emptied. */
        skv_status status = round == 0 ? skv_join_gaps(store, (uint32_t)n, wait) : SKV_OK;
        if (status == SKV_OK)
            status = skv_take_run(store, family, (uint32_t)n, wait, offset);
        if (status != SKV_FULL)
            return status;
        if (returned_by_the_dead(store, wait))
            continue;
        status = grow_for_run(store, (uint32_t)n, wait, &reason);
        if (worth_making_room(status))
            status = skv_unpunch(store, (uint32_t)n, wait);
        if (worth_making_room(status))
            status = skv_make_room(store, size, round, wait);
        if (status)
            return worth_making_room(status) ? reason : status;
    }
    return reason;
}

static skv_status alloc_any(skv *store, enum skv_family family, uint64_t size, enum skv_effort effort, skv_wait *wait, uint64_t *offset)
{
    if (skv_unlikely(size > SKV_PAGE_SIZE)) {
        if (effort != SKV_MOVE)
            return skv_take_run(store, family, (uint32_t)((size + SKV_PAGE_SIZE - 1) >> SKV_PAGE_SHIFT), wait, offset);
        return alloc_run(store, family, size, wait, offset);
    }
    if (skv_unlikely(effort != SKV_MOVE))
        return fill_block(store, family, size, effort == SKV_FILL ? SKV_SEARCH_FILL : SKV_SEARCH_ANY, wait, offset);
    return alloc_block(store, family, size, wait, offset);
}

skv_status skv_alloc(skv *store, enum skv_family family, uint64_t size, enum skv_effort effort, skv_wait *wait, uint64_t *offset)
{
    *offset = 0;
    skv_status status = alloc_any(store, family, size, effort, wait, offset);
    assert(status || *offset);  /* or the region's header would be written over                */
    return status;
}
