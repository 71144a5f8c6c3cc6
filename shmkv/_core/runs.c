/* runs.c: free pages in a row, for what is larger than a page.  See runs.h.
 *
 * States: the head's word is the commit; tails and kinds follow from it, and a takeover of pages_lock derives
 * them anew.
 */
#include "runs.h"

#define FREE_SLICES    10u      /* of 20 ms that freeing a run waits for pages_lock           */

/* First fit: `n` free pages in a row below `end`, or `end`. */
static uint32_t find_free_run(const skv *store, uint32_t n, uint32_t end)
{
    for (uint32_t page = skv_find_kind(store, SKV_KIND_FREE, 0, end); page < end;) {
        uint32_t length = 0;
        while (length < n && page + length < end && skv_load(&store->pages[page + length].word) == 0
               && skv_load(&store->kinds[page + length]) == SKV_KIND_FREE)      /* not hidden         */
            length++;
        if (length == n)
            return page;
        page = skv_find_kind(store, SKV_KIND_FREE, page + length + 1, end);
    }
    return end;
}

bool skv_gap_below(const skv *store, uint32_t page, uint32_t n)
{
    return find_free_run(store, n, skv_committed_pages(store)) < page;
}

skv_status skv_take_run(skv *store, enum skv_family family, uint32_t n, skv_wait *wait, uint64_t *offset)
{
    skv_status status = skv_lock_pages(store, wait);
    if (status)
        return status;
    uint32_t end = skv_committed_pages(store), page = find_free_run(store, n, end);
    if (page < end) {
        SKV_CRASH("run.found");
        atomic_fetch_add_explicit(&store->pages[page].generation, 1, memory_order_relaxed);
        skv_page_set_word(store, page, skv_pw_make(SKV_PAGE_RUN, family, 0, 0, n));
        SKV_CRASH("run.taken");
        skv_store(&store->kinds[page], SKV_KIND_RUN);
        for (uint32_t i = 1; i < n; i++) {
            skv_page_set_word(store, page + i, skv_pw_make(SKV_PAGE_TAIL, 0, 0, 0, i));
            skv_store(&store->kinds[page + i], SKV_KIND_RUN);
        }
        *offset = skv_page_start(store, page);
    }
    skv_unlock_pages(store);
    return page < end ? SKV_OK : SKV_FULL;
}

/* Free pages at the end of the committed ones count towards a run that growth completes. */
uint32_t skv_pages_to_grow(const skv *store, uint32_t n)
{
    uint32_t end = skv_committed_pages(store), tail = 0;
    while (tail < n && tail < end && skv_load(&store->pages[end - 1 - tail].word) == 0)
        tail++;
    return n - tail;
}

/* Tails first: until the head's word says free, takeover would restore them from it. */
void skv_free_run(skv *store, uint32_t page, uint64_t word)
{
    skv_wait wait = {.block = true, .shared = true};
    skv_status status = SKV_BUSY;
    for (uint32_t slice = 0; slice < FREE_SLICES && status == SKV_BUSY; slice++)
        status = skv_lock_pages(store, &wait);
    if (status) {       /* behind a stopped holder it stays, named by nobody: for an audit     */
        atomic_fetch_add_explicit(&store->header->deaths, 1, memory_order_relaxed);
        return;
    }
    if (skv_load(&store->pages[page].word) == word && skv_pw_run(word) <= store->page_count - page) {
        for (uint32_t i = 1; i < skv_pw_run(word); i++) {
            skv_page_set_word(store, page + i, 0);
            skv_store(&store->kinds[page + i], SKV_KIND_FREE);
        }
        SKV_CRASH("run.tails_freed");
        skv_page_set_free(store, page);
    }
    skv_unlock_pages(store);
}
