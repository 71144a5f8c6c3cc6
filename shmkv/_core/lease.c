/* lease.c: blocks of one page, the page that a process leases, and the search for the next one.  See lease.h.
 *
 * Concurrency: bits are set by the page's owner under lease_lock, or under pages_lock in a page without
 * owner (I8); bits are cleared by anybody.
 */
#include "lease.h"

#include "lock.h"

#define NO_PAGE        UINT32_MAX
#define LONG_BLOCK     16384u   /* bytes; most tables are shorter                             */
#define ROOMY_TRIES    16u      /* pages of units that may lack a gap of the size             */

/* ---- Blocks in one page ----------------------------------------------------------------- */

/* The lowest run of `n` clear bits, or SKV_PAGE_UNITS. */
static uint32_t find_units(uint64_t word, uint32_t n)
{
    uint64_t fits = ~word;
    uint32_t have = 1;          /* bit i of `fits`: the `have` bits from i on are clear       */
    while (have < n) {
        uint32_t step = n - have < have ? n - have : have;
        fits &= fits >> step;
        have += step;
    }
    return fits ? (uint32_t)__builtin_ctzll(fits) : SKV_PAGE_UNITS;
}

/* Only who may allocate here sets bits, so the bits that were clear stay clear until we set them. */
static bool alloc_units(skv *store, uint32_t page, uint64_t size, uint64_t *offset)
{
    skv_page *desc = &store->pages[page];
    uint32_t n = (uint32_t)((size + (1u << SKV_UNIT_SHIFT) - 1) >> SKV_UNIT_SHIFT);
    uint32_t at = find_units(skv_load(&desc->bitmap[0]), n);
    if (at >= SKV_PAGE_UNITS)
        return false;
    skv_store(&desc->lengths[at], (uint8_t)n);
    atomic_fetch_or_explicit(&desc->bitmap[0], skv_unit_mask(at, n), memory_order_acq_rel);
    *offset = skv_page_start(store, page) + ((uint64_t)at << SKV_UNIT_SHIFT);
    return true;
}

/* The block that is allocated next, so that its lines have come when it is written: the next lock
 * would wait for those stores. */
static void prefetch_next(const skv *store, uint32_t page, uint32_t cls, uint32_t w, uint64_t clear)
{
    if (!clear)
        return;
    uint64_t block = w * 64 + (uint32_t)__builtin_ctzll(clear);
    const uint8_t *at = store->base + skv_page_start(store, page) + block * skv_class_size(cls);
    __builtin_prefetch(at, 1);
    __builtin_prefetch(at + 63, 1);
}

/* Sets the lowest `most` bits at most of `clear`, and says which. */
static uint64_t take_bits(_Atomic uint64_t *bits, uint64_t clear, uint32_t most)
{
    uint64_t taken = clear;
    if (most == 1)
        taken = clear & -clear;
    for (uint32_t n = skv_popcount(taken); n > most; n--)
        taken ^= UINT64_C(1) << (63 - (uint32_t)__builtin_clzll(taken));
    /* Acquire: pairs with the release in skv_free, so that what the last holder of a block did is over before
     * its bytes are written again. */
    atomic_fetch_or_explicit(bits, taken, memory_order_acquire);
    return taken;
}

/* Up to `count` blocks; *word is where to go on. */
static uint32_t alloc_in_page(skv *store, uint32_t page, uint32_t cls, uint32_t count, uint32_t *word, uint64_t *offsets)
{
    const uint32_t blocks = skv_class_blocks(cls), words = skv_bitmap_words(blocks), size = skv_class_size(cls);
    uint32_t done = 0;
    for (uint32_t w = *word; w < words; w++) {
        _Atomic uint64_t *bits = &store->pages[page].bitmap[w];
        uint64_t clear = ~skv_load(bits) & skv_bitmap_mask(blocks, w);
        if (!clear)
            continue;
        uint64_t taken = take_bits(bits, clear, count - done);
        for (uint64_t left = taken; left; left &= left - 1)
            offsets[done++] = skv_page_start(store, page) + (uint64_t)(w * 64 + (uint32_t)__builtin_ctzll(left)) * size;
        if (done == count) {
            *word = w;
            prefetch_next(store, page, cls, w, clear & ~taken);
            return done;
        }
    }
    *word = 0;
    return done;
}

bool skv_alloc_in_page(skv *store, uint32_t page, uint32_t cls, uint64_t size, uint32_t *word, uint64_t *offset)
{
    if (cls == SKV_UNIT_CLASS)
        return alloc_units(store, page, size, offset);
    return alloc_in_page(store, page, cls, 1, word, offset) == 1;
}

/* ---- Leases ----------------------------------------------------------------------------- */

/* The fast path of every allocation. */
uint32_t skv_alloc_leased(skv *store, enum skv_family family, uint64_t size, uint32_t count, uint64_t *offsets)
{
    uint32_t cls = skv_class_of(family, size), exhausted = 0, done = 0;
    if (cls == SKV_UNIT_CLASS)
        return 0;
    skv_lease *lease = &store->leases[family][cls];
    skv_lock_local(&store->lease_lock);
    if (lease->page) {
        done = alloc_in_page(store, lease->page - 1, cls, count, &lease->word, offsets);
        if (done < count) {
            exhausted = lease->page;
            lease->page = 0;
        }
    }
    skv_unlock_local(&store->lease_lock);
    if (exhausted)
        skv_page_give_up(store, exhausted - 1);
    return done;
}

void skv_leases_return(skv *store)
{
    for (uint32_t family = 0; family < SKV_FAMILIES; family++) {
        for (uint32_t cls = 0; cls < SKV_CLASSES; cls++) {
            skv_lock_local(&store->lease_lock);
            uint32_t page = store->leases[family][cls].page;
            store->leases[family][cls].page = 0;
            skv_unlock_local(&store->lease_lock);
            if (!page)
                continue;
            skv_page_give_up(store, page - 1);
            skv_wait now = {.block = false};
            if (skv_page_is_empty(store, page - 1, cls))
                skv_page_release_if_empty(store, page - 1, false, &now);
        }
    }
}

/* Another thread may have leased a page for the class meanwhile: then ours goes back. */
static void install_lease(skv *store, uint32_t family, uint32_t cls, uint32_t page)
{
    skv_lease *lease = &store->leases[family][cls];
    skv_lock_local(&store->lease_lock);
    bool mine = lease->page == 0;
    if (mine)
        *lease = (skv_lease){page + 1, 0};
    skv_unlock_local(&store->lease_lock);
    if (!mine)
        skv_page_give_up(store, page);
}

/* ---- The next page ------------------------------------------------------------------------ */

/* Does the descriptor say what its kind promised?  If not, mends the kind. */
static bool is_open_page(skv *store, uint32_t page, uint32_t family, uint32_t cls)
{
    uint64_t word = skv_load(&store->pages[page].word);
    bool fits = skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) == 0
                && skv_pw_family(word) == family && skv_pw_class(word) == cls;
    if (!fits)
        skv_page_refresh_kind(store, page);
    return fits;
}

/* A page of the class that has room, low <= page < high, or NO_PAGE. */
static uint32_t find_open_page(skv *store, uint8_t kind, uint32_t family, uint32_t cls, uint32_t low, uint32_t high)
{
    for (uint32_t page = skv_find_kind(store, kind, low, high); page < high; page = skv_find_kind(store, kind, page + 1, high))
        if (is_open_page(store, page, family, cls))
            return page;
    return NO_PAGE;
}

/* Where to go on looking for pages of a class. */
typedef struct page_search {
    skv *store;
    uint32_t family, cls, end, next;
    bool goes_round;
} page_search;

static page_search begin_search(skv *store, uint32_t family, uint32_t cls, uint64_t size)
{
    uint32_t end = skv_committed_pages(store), hand = skv_load(&store->header->page_hand[family][cls]);
    const bool is_long = size > LONG_BLOCK;
    return (page_search){store, family, cls, end, is_long || hand > end ? 0 : hand, !is_long};
}

static uint32_t next_open_page(page_search *search, uint8_t kind)
{
    uint32_t page = find_open_page(search->store, kind, search->family, search->cls, search->next, search->end);
    if (page == NO_PAGE && search->goes_round)
        page = find_open_page(search->store, kind, search->family, search->cls, 0, search->next);
    if (page == NO_PAGE)
        return NO_PAGE;
    search->next = page + 1;
    if (search->goes_round)
        skv_store(&search->store->header->page_hand[search->family][search->cls], page + 1);
    return page;
}

static uint32_t find_free_page(skv *store, uint32_t end)
{
    uint32_t hand = skv_load(&store->header->free_hand);
    for (uint32_t page = skv_find_kind(store, SKV_KIND_FREE, hand, end); page < end;
         page = skv_find_kind(store, SKV_KIND_FREE, page + 1, end)) {
        if (skv_load(&store->pages[page].word) == 0) {
            skv_store(&store->header->free_hand, page + 1);
            return page;
        }
        skv_page_refresh_kind(store, page);
    }
    skv_store(&store->header->free_hand, end);
    return end;
}

/* Turns the page into this process's lease, or, where leases are used up, takes one block in it. */
static bool use_page_locked(skv *store, uint32_t page, uint32_t family, uint32_t cls, uint64_t size, uint64_t *offset)
{
    /* A page of units may lack a gap of the next size: it is never kept by one process. */
    bool lease = cls != SKV_UNIT_CLASS && skv_load(&store->header->leased_pages) < store->lease_limit;
    uint32_t owner = lease ? skv_load(&store->slot) + 1 : 0;
    SKV_CRASH("page.found");
    skv_page_set_word(store, page, skv_pw_make(SKV_PAGE_BLOCKS, family, cls, owner, 0));
    SKV_CRASH("page.taken");
    if (lease) {
        atomic_fetch_add_explicit(&store->header->leased_pages, 1, memory_order_relaxed);
        skv_store(&store->kinds[page], SKV_KIND_TAKEN);
        *offset = 0;
        install_lease(store, family, cls, page);
        return true;
    }
    uint32_t word = 0;
    bool done = skv_alloc_in_page(store, page, cls, size, &word, offset);
    skv_page_refresh_kind(store, page);
    return done;
}

/* Takes a page, or a block in one, among the open pages of `kind`.  The class's hand goes round so that a page
 * rests, and gathers free blocks, before it is used again.  Long blocks of units, the intents of batches, look from
 * the lowest page on, and find the same gap each time: they would take a page's worth of room away from
 * tables wherever the hand is (81.7 against 77.0 bytes an entry after a load by put_many). */
static bool try_open_pages(skv *store, uint8_t kind, uint32_t family, uint32_t cls, uint64_t size, uint32_t tries, uint64_t *offset)
{
    page_search search = begin_search(store, family, cls, size);
    for (; tries > 0; tries--) {
        uint32_t page = next_open_page(&search, kind);
        if (page == NO_PAGE)
            return false;
        if (use_page_locked(store, page, family, cls, size, offset))
            return true;
        /* Of blocks none was left; of units perhaps only no gap of this size: the next block that is
         * freed there puts the page among those with room again. */
        uint64_t word = skv_load(&store->pages[page].word);
        skv_store(&store->kinds[page], cls == SKV_UNIT_CLASS ? skv_kind_with_some(word) : SKV_KIND_FULL);
    }
    return false;
}

static bool try_free_page(skv *store, uint32_t family, uint32_t cls, uint64_t size, uint64_t *offset)
{
    uint32_t end = skv_committed_pages(store), page = find_free_page(store, end);
    return page < end && use_page_locked(store, page, family, cls, size, offset);
}

skv_status skv_refill(skv *store, enum skv_family family, uint64_t size, enum skv_search search, skv_wait *wait, uint64_t *offset)
{
    uint32_t cls = skv_class_of(family, size);
    skv_status status = skv_lock_pages(store, wait);
    if (status)
        return status;
    const uint8_t room = (uint8_t)(SKV_KIND_ROOM + family * SKV_CLASSES + cls);
    const uint8_t some = (uint8_t)(SKV_KIND_SOME + family * SKV_CLASSES + cls);
    uint32_t tries = search == SKV_SEARCH_ROOMY_OR_FREE ? ROOMY_TRIES : store->page_count;
    bool done = try_open_pages(store, room, family, cls, size, tries, offset)
                || (search != SKV_SEARCH_FILL && try_free_page(store, family, cls, size, offset))
                || (search != SKV_SEARCH_ROOMY_OR_FREE && try_open_pages(store, some, family, cls, size, tries, offset));
    skv_unlock_pages(store);
    return done ? SKV_OK : SKV_FULL;
}
