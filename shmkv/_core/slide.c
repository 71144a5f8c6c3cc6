/* slide.c: see slide.h.
 *
 * Why:  a run can only move into a gap of its own length.  Gaps between runs of one length that are shorter than they are
 *       would be lost until those runs go: no move joins them any more once the last long gap is taken.
 * How:  while there is one, what lies directly above the lowest gap moves down into it, and the gap rises until it has met
 *       others enough.  What is too long for the lowest gap moves into the long one first.
 *
 *       Killed in between: each move is one of evacuate.c, whole or not at all.
 *
 * Concurrency: any thread, with no lock held; gaps may be taken by others meanwhile.
 */
#include "slide.h"

#include "evacuate.h"

#define MOST_PAGES     32u      /* moved for one run, in its lengths                          */

typedef struct gap {
    uint32_t start, length;     /* 0 = none                                                   */
} gap;

static bool is_free(const skv *store, uint32_t page)
{
    return skv_load(&store->pages[page].word) == 0 && skv_load(&store->kinds[page]) == SKV_KIND_FREE;
}

/* The first gap at or after `from`; of a long one, `most` pages. */
static gap next_gap(const skv *store, uint32_t from, uint32_t most)
{
    uint32_t end = skv_committed_pages(store), start = skv_find_kind(store, SKV_KIND_FREE, from, end);
    while (start < end && !is_free(store, start))
        start = skv_find_kind(store, SKV_KIND_FREE, start + 1, end);
    gap found = {start, 0};
    while (found.length < most && start + found.length < end && is_free(store, start + found.length))
        found.length++;
    return found;
}

/* Exactly one gap of `n` pages, and as much again in shorter ones. */
static bool is_due(const skv *store, uint32_t n)
{
    uint32_t at = 0, length, longest = 0, sum = 0;
    do {
        gap found = next_gap(store, at, 2 * n);
        at = found.start + found.length;
        length = found.length;
        if (length >= n && (longest >= n || length >= 2 * n))
            return false;
        longest = length > longest ? length : longest;
        sum += length;
    } while (length);
    return longest >= n && sum >= 2 * n;
}

/* Moves what begins at `page`; by how many pages, 0 = not at all.  The lowest gap that is long enough takes it. */
static uint32_t move_down(skv *store, uint32_t page, skv_wait *wait)
{
    uint64_t word = skv_load(&store->pages[page].word);
    skv_evacuation result = {0};
    if (skv_pw_is_open(word))
        return skv_evacuate_page(store, page, SKV_ANYWHERE, &result, wait);
    if (skv_pw_state(word) != SKV_PAGE_RUN)
        return 0;
    enum skv_family family = (enum skv_family)skv_pw_family(word);
    uint64_t size = (uint64_t)skv_pw_run(word) << SKV_PAGE_SHIFT;
    bool moved = skv_move_block(store, family, skv_page_start(store, page), size, SKV_ANYWHERE, wait) == SKV_MOVED;
    return moved ? skv_pw_run(word) : 0;
}

skv_status skv_join_gaps(skv *store, uint32_t n, skv_wait *wait)
{
    if (skv_committed_pages(store) < store->page_count || !is_due(store, n))
        return SKV_OK;
    if (!wait->block)
        return SKV_BUSY;
    uint32_t from = 0;
    for (uint64_t moved = 0, step; moved < (uint64_t)n * MOST_PAGES; moved += step) {
        gap lowest = next_gap(store, from, 2 * n);
        uint32_t above = lowest.start + lowest.length;
        if (lowest.length == 0 || lowest.length >= 2 * n || above >= skv_committed_pages(store))
            break;
        step = move_down(store, above, wait);
        SKV_CRASH("slide.moved");
        if (step == 0) {
            from = above + 1;   /* it stays: go on above it                                   */
            step = 1;
        }
    }
    return SKV_OK;
}
