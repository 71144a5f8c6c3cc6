/* grow.c: memory from the system and back to it.  See grow.h. */
#include "grow.h"

#include "lock.h"
#include "pages.h"

static skv_status commit_range(skv *store, uint64_t offset, uint64_t len)
{
    const uint64_t mask = 4095;
    uint64_t start = offset & ~mask, end = (offset + len + mask) & ~mask;
    if (end > store->size)
        end = store->size;
    return store->os.commit(store->os.context, start, end - start);
}

/* ---- Growth of the region ---------------------------------------------------------------- */

/* How many pages the region grows by: at least `pages`; in a large store up to a multiple of 2 MiB,
 * so that each step can become huge pages. */
static uint32_t growth(const skv *store, uint32_t from, uint32_t pages)
{
    uint64_t step = pages > SKV_GROW_STEP_PAGES ? pages : SKV_GROW_STEP_PAGES;
    if (store->size >= SKV_HUGE_FROM) {
        uint64_t start = skv_page_start(store, from);
        uint64_t end = (start + ((uint64_t)pages << SKV_PAGE_SHIFT) + SKV_HUGE_PAGE - 1) & ~(SKV_HUGE_PAGE - 1);
        step = (end - start) >> SKV_PAGE_SHIFT;
    }
    return step > store->page_count - from ? store->page_count - from : (uint32_t)step;
}

/* The first pages share their 2 MiB with the end of the fixed areas, in small pages until now. */
static void join_first_huge_page(skv *store)
{
    if (store->size >= SKV_HUGE_FROM && store->os.gather)
        store->os.gather(store->os.context, store->pages_offset & ~(SKV_HUGE_PAGE - 1), SKV_HUGE_PAGE);
}

/* Descriptors first: a page whose descriptor is not memory must never be below the mark. */
static skv_status grow_locked(skv *store, uint32_t from, uint32_t pages)
{
    uint32_t step = growth(store, from, pages);
    uint64_t descriptors = store->fixed.descriptors_offset + from * (uint64_t)sizeof(skv_page);
    SKV_CRASH("grow.locked");
    skv_status status = commit_range(store, descriptors, step * (uint64_t)sizeof(skv_page));
    if (status)
        return status;
    SKV_CRASH("grow.descriptors");
    status = commit_range(store, skv_page_start(store, from), (uint64_t)step << SKV_PAGE_SHIFT);
    if (status)
        return status;
    SKV_CRASH("grow.pages");
    if (from == 0)
        join_first_huge_page(store);
    skv_store_release(&store->header->committed_pages, from + step);
    SKV_CRASH("grow.published");
    return SKV_OK;
}

skv_status skv_grow(skv *store, uint32_t pages, skv_wait *wait)
{
    uint32_t before = skv_committed_pages(store);
    if (before >= store->page_count)
        return SKV_FULL;
    if (!wait->block)
        return SKV_BUSY;        /* half a millisecond of system calls: not under the GIL      */
    skv_status status = skv_lock(store, &store->header->grow_lock, wait, NULL, NULL);
    if (status)
        return status;
    uint32_t now = skv_committed_pages(store);
    if (now == before)          /* else another process grew it while this one waited          */
        status = grow_locked(store, now, pages);
    skv_unlock(store, &store->header->grow_lock);
    return status;
}

/* ---- Free pages whose memory the system has ----------------------------------------------- */

uint32_t skv_mark_free_pages(skv *store, skv_wait *wait)
{
    uint32_t end = skv_committed_pages(store), marked = 0;
    if (skv_lock_pages(store, wait))
        return 0;
    for (uint32_t page = 0; page < end; page++) {
        if (skv_load(&store->pages[page].word) != 0)
            continue;
        skv_page_set_word(store, page, skv_pw_make(SKV_PAGE_PUNCHED, 0, 0, 0, 0));
        skv_store(&store->kinds[page], SKV_KIND_PUNCHED);
        SKV_CRASH("punch.marked");
        marked++;
    }
    skv_unlock_pages(store);
    return marked;
}

static bool is_marked(const skv *store, uint32_t page)
{
    return skv_pw_state(skv_load(&store->pages[page].word)) == SKV_PAGE_PUNCHED;
}

bool skv_punch_marked_pages(skv *store, skv_wait *wait)
{
    uint32_t end = skv_committed_pages(store);
    if (skv_lock_pages(store, wait))
        return false;
    for (uint32_t page = 0, n; page < end; page += n) {
        for (n = 0; page + n < end && is_marked(store, page + n); n++)
            continue;
        if (n == 0) {
            n = 1;
            continue;
        }
        store->os.punch(store->os.context, skv_page_start(store, page), (uint64_t)n << SKV_PAGE_SHIFT);
        SKV_CRASH("punch.done");
    }
    skv_unlock_pages(store);
    return true;
}

/* The kind is a hint: a page that is in use by now must not be taken for one that was given back. */
static uint32_t find_punched_page(skv *store, uint32_t end)
{
    for (uint32_t page = skv_find_kind(store, SKV_KIND_PUNCHED, 0, end); page < end;
         page = skv_find_kind(store, SKV_KIND_PUNCHED, page + 1, end)) {
        if (skv_pw_state(skv_load(&store->pages[page].word)) == SKV_PAGE_PUNCHED)
            return page;
        skv_page_refresh_kind(store, page);
    }
    return end;
}

/* Gets the memory of one page back that compact() gave to the system. */
static skv_status unpunch_one(skv *store, skv_wait *wait)
{
    uint32_t end = skv_committed_pages(store);
    if (skv_find_kind(store, SKV_KIND_PUNCHED, 0, end) >= end)
        return SKV_FULL;
    if (!wait->block)
        return SKV_BUSY;
    skv_status status = skv_lock_pages(store, wait);
    if (status)
        return status;
    uint32_t page = find_punched_page(store, end);
    if (page < end)             /* else somebody was first: there may be a free page now       */
        status = commit_range(store, skv_page_start(store, page), SKV_PAGE_SIZE);
    if (page < end && status == SKV_OK) {
        skv_page_set_free(store, page);
    }
    skv_unlock_pages(store);
    return status;
}

skv_status skv_unpunch(skv *store, uint32_t n, skv_wait *wait)
{
    skv_status status = unpunch_one(store, wait);
    for (uint32_t i = 1; i < n && status == SKV_OK; i++)
        if (unpunch_one(store, wait))
            break;
    return status;
}
