/* pages.c: leases, blocks and runs.  See pages.h; making room when nothing is free is room.c.
 *
 * Concurrency: descriptors' words change under pages_lock, except that an owner gives its own
 * page up.  Bitmaps: bits are set by the page's owner under lease_lock, or under pages_lock in
 * a page without owner (I8); bits are cleared by anybody.
 */
#include "pages.h"

#include "lock.h"
#include "procs.h"
#include "room.h"

#define ALLOC_ROUNDS   64u      /* rounds of make room and try again before giving up         */
#define FREE_SLICES    10u      /* of 20 ms that freeing a run waits for pages_lock           */
#define NO_PAGE        UINT32_MAX
#define LONG_BLOCK     16384u   /* bytes; most tables are shorter                             */
#define ROOMY_TRIES    16u      /* pages of units that may lack a gap of the size             */

static uint32_t popcount(uint64_t x)
{
    return (uint32_t)__builtin_popcountll(x);
}

/* ---- What a page holds ---------------------------------------------------------------- */

/* Valid bits of bitmap word `w` in a page of `blocks` blocks. */
static inline uint64_t word_mask(uint32_t blocks, uint32_t w)
{
    uint32_t left = blocks - w * 64;
    return left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
}

static inline uint32_t bitmap_words(uint32_t blocks)
{
    return (blocks + 63) / 64;
}

uint32_t skv_page_used(const skv *store, uint32_t page, uint32_t cls)
{
    const skv_page *desc = &store->pages[page];
    if (skv_unlikely(cls >= SKV_CLASSES))
        return UINT32_MAX;      /* only in a damaged region: never empty, never with room     */
    if (cls == SKV_UNIT_CLASS)
        return popcount(skv_load(&desc->bitmap[0]));
    uint32_t used = 0;
    for (uint32_t w = 0; w < bitmap_words(skv_class_blocks(cls)); w++)
        used += popcount(skv_load(&desc->bitmap[w]));
    return used;
}

uint64_t skv_page_used_bytes(const skv *store, uint32_t page, uint32_t cls)
{
    uint64_t size = cls == SKV_UNIT_CLASS ? 1u << SKV_UNIT_SHIFT : skv_class_size(cls);
    return skv_page_used(store, page, cls) * size;
}

/* Units of the block that starts at unit `at`, bounded by the page. */
static uint32_t unit_length(const skv_page *desc, uint32_t at)
{
    uint32_t n = skv_load(&desc->lengths[at]);
    return n == 0 || n > SKV_PAGE_UNITS - at ? 1 : n;
}

static uint64_t unit_mask(uint32_t at, uint32_t n)
{
    return (n == 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1) << at;
}

static bool walk_units(const skv *store, uint32_t page, skv_block_visit visit, void *context)
{
    const skv_page *desc = &store->pages[page];
    uint64_t start = skv_page_start(store, page), word = skv_load_acquire(&desc->bitmap[0]);
    for (uint32_t i = 0, n; i < SKV_PAGE_UNITS; i += n) {
        n = word >> i & 1 ? unit_length(desc, i) : 1;
        if ((word >> i & 1) && !visit(context, start + ((uint64_t)i << SKV_UNIT_SHIFT), n << SKV_UNIT_SHIFT))
            return false;
    }
    return true;
}

bool skv_page_walk(const skv *store, uint32_t page, uint32_t cls, skv_block_visit visit, void *context)
{
    if (skv_unlikely(cls >= SKV_CLASSES))
        return true;            /* only in a damaged region                                   */
    uint64_t start = skv_page_start(store, page);
    const skv_page *desc = &store->pages[page];
    if (cls == SKV_UNIT_CLASS)
        return walk_units(store, page, visit, context);
    uint32_t size = skv_class_size(cls), blocks = skv_class_blocks(cls);
    for (uint32_t w = 0; w < bitmap_words(blocks); w++) {
        uint64_t word = skv_load(&desc->bitmap[w]) & word_mask(blocks, w);
        for (; word; word &= word - 1) {
            uint64_t block = w * 64 + (uint32_t)__builtin_ctzll(word);
            if (!visit(context, start + block * size, size))
                return false;
        }
    }
    return true;
}

bool skv_block_in_use(const skv *store, uint64_t offset)
{
    uint32_t page = skv_page_of(store, offset);
    uint64_t word = skv_load_acquire(&store->pages[page].word);
    uint32_t within = (uint32_t)(offset - skv_page_start(store, page)), cls = skv_pw_class(word);
    if (skv_pw_state(word) == SKV_PAGE_RUN)
        return within == 0;
    if (skv_pw_state(word) != SKV_PAGE_BLOCKS || cls >= SKV_CLASSES)
        return false;
    if (cls == SKV_UNIT_CLASS)
        return within % (1u << SKV_UNIT_SHIFT) == 0
               && (skv_load(&store->pages[page].bitmap[0]) >> (within >> SKV_UNIT_SHIFT) & 1);
    uint32_t size = skv_class_size(cls), block = within / size;
    return within % size == 0 && block < skv_class_blocks(cls)
           && (skv_load(&store->pages[page].bitmap[block / 64]) >> (block % 64) & 1);
}

uint32_t skv_class_of_block(const skv *store, enum skv_family family, uint64_t offset)
{
    if (!skv_in_pages(store, offset, SKV_UNIT))
        return SKV_CLASSES;
    uint64_t word = skv_load(&store->pages[skv_page_of(store, offset)].word);
    uint32_t cls = skv_pw_class(word), within = (uint32_t)(offset - store->pages_offset) % SKV_PAGE_SIZE;
    if (skv_pw_state(word) != SKV_PAGE_BLOCKS || skv_pw_family(word) != family || cls >= SKV_UNIT_CLASS
        || within % skv_class_size(cls) || within / skv_class_size(cls) >= skv_class_blocks(cls))
        return SKV_CLASSES;
    return cls;
}

/* ---- Kinds: the searchable summary ------------------------------------------------------ */

static inline uint8_t kind_with_room(uint64_t word)
{
    return (uint8_t)(SKV_KIND_ROOM + skv_pw_family(word) * SKV_CLASSES + skv_pw_class(word));
}

static inline uint8_t kind_with_some(uint64_t word)
{
    return (uint8_t)(SKV_KIND_SOME + skv_pw_family(word) * SKV_CLASSES + skv_pw_class(word));
}

static uint8_t kind_of(const skv *store, uint32_t page)
{
    uint64_t word = skv_load_acquire(&store->pages[page].word);
    switch (skv_pw_state(word)) {
    case SKV_PAGE_FREE:
        return SKV_KIND_FREE;
    case SKV_PAGE_PUNCHED:
        return SKV_KIND_PUNCHED;
    case SKV_PAGE_BLOCKS:
        break;
    default:
        return SKV_KIND_RUN;
    }
    if (skv_pw_owner(word) || skv_pw_class(word) >= SKV_CLASSES || skv_pw_family(word) >= SKV_FAMILIES)
        return SKV_KIND_TAKEN;
    uint32_t blocks = skv_class_blocks(skv_pw_class(word)), used = skv_page_used(store, page, skv_pw_class(word));
    if (used >= blocks)
        return SKV_KIND_FULL;
    return (blocks - used) * 8 >= blocks ? kind_with_room(word) : kind_with_some(word);
}

void skv_page_refresh_kind(skv *store, uint32_t page)
{
    skv_store(&store->kinds[page], kind_of(store, page));
}

static void set_word(skv *store, uint32_t page, uint64_t word)
{
    skv_store_release(&store->pages[page].word, word);
}

void skv_repair_pages(skv *store, void *unused)
{
    (void)unused;
    uint32_t end = skv_committed_pages(store), leased = 0;
    for (uint32_t page = 0; page < end;) {
        uint64_t word = skv_load_acquire(&store->pages[page].word);
        uint32_t length = 1;
        if (skv_pw_state(word) == SKV_PAGE_RUN && skv_pw_run(word) <= end - page && skv_pw_run(word) > 0) {
            length = skv_pw_run(word);
            for (uint32_t i = 1; i < length; i++) {
                set_word(store, page + i, skv_pw_make(SKV_PAGE_TAIL, 0, 0, 0, i));
                skv_store(&store->kinds[page + i], SKV_KIND_RUN);
            }
        } else if (skv_pw_state(word) == SKV_PAGE_TAIL) {
            set_word(store, page, 0);           /* no head covers it: its run was given up    */
        }
        leased += skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) && !skv_pw_evacuating(word);
        skv_page_refresh_kind(store, page);
        page += length;
    }
    skv_store(&store->header->leased_pages, leased);
    skv_store(&store->header->free_hand, 0);
}

static skv_status lock_pages(skv *store, skv_wait *wait)
{
    return skv_lock(store, &store->header->pages_lock, wait, skv_repair_pages, NULL);
}

static void unlock_pages(skv *store)
{
    skv_unlock(store, &store->header->pages_lock);
}

/* The first page of `kind` at or after `from`, before `end`; `end` if there is none. */
static uint32_t find_kind(const skv *store, uint8_t kind, uint32_t from, uint32_t end)
{
    if (from >= end)
        return end;
#ifdef SKV_TSAN
    for (uint32_t page = from; page < end; page++)
        if (skv_load(&store->kinds[page]) == kind)
            return page;
    return end;
#else
    /* Bytes change under memchr; any answer is checked against the descriptor. */
    const uint8_t *kinds = (const uint8_t *)store->kinds;
    const uint8_t *hit = memchr(kinds + from, kind, end - from);
    return hit ? (uint32_t)(hit - kinds) : end;
#endif
}

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
    atomic_fetch_or_explicit(&desc->bitmap[0], unit_mask(at, n), memory_order_acq_rel);
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
    for (uint32_t n = popcount(taken); n > most; n--)
        taken ^= UINT64_C(1) << (63 - (uint32_t)__builtin_clzll(taken));
    /* Acquire: pairs with the release in skv_free, so that what the last holder of a block did is over before
     * its bytes are written again. */
    atomic_fetch_or_explicit(bits, taken, memory_order_acquire);
    return taken;
}

/* Up to `count` blocks; *word is where to go on. */
static uint32_t alloc_in_page(skv *store, uint32_t page, uint32_t cls, uint32_t count, uint32_t *word, uint64_t *offsets)
{
    const uint32_t blocks = skv_class_blocks(cls), words = bitmap_words(blocks), size = skv_class_size(cls);
    uint32_t done = 0;
    for (uint32_t w = *word; w < words; w++) {
        _Atomic uint64_t *bits = &store->pages[page].bitmap[w];
        uint64_t clear = ~skv_load(bits) & word_mask(blocks, w);
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

static bool is_empty(const skv *store, uint32_t page, uint32_t cls)
{
    return skv_page_used(store, page, cls) == 0;
}

/* ---- Leases ----------------------------------------------------------------------------- */

static void give_page_up(skv *store, uint32_t page)
{
    uint64_t word = skv_load(&store->pages[page].word);
    set_word(store, page, skv_pw_with_owner(word, 0));
    atomic_fetch_sub_explicit(&store->header->leased_pages, 1, memory_order_relaxed);
    skv_page_refresh_kind(store, page);
}

/* The fast path of every allocation.  No page of units is leased. */
static uint32_t alloc_leased(skv *store, uint32_t family, uint32_t cls, uint32_t count, uint64_t *offsets)
{
    skv_lease *lease = &store->leases[family][cls];
    uint32_t exhausted = 0, done = 0;
    if (cls == SKV_UNIT_CLASS)
        return 0;
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
        give_page_up(store, exhausted - 1);
    return done;
}

uint32_t skv_alloc_leased(skv *store, enum skv_family family, uint64_t size, uint32_t count, uint64_t *offsets)
{
    return size > SKV_PAGE_SIZE ? 0 : alloc_leased(store, family, skv_class_of(family, size), count, offsets);
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
            give_page_up(store, page - 1);
            skv_wait now = {.block = false};
            if (is_empty(store, page - 1, cls))
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
        give_page_up(store, page);
}

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

/* A page of the class that has room, low <= page < high, or SKV_NO_PAGE. */
static uint32_t find_open_page(skv *store, uint8_t kind, uint32_t family, uint32_t cls, uint32_t low, uint32_t high)
{
    for (uint32_t page = find_kind(store, kind, low, high); page < high; page = find_kind(store, kind, page + 1, high))
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
    for (uint32_t page = find_kind(store, SKV_KIND_FREE, hand, end); page < end;
         page = find_kind(store, SKV_KIND_FREE, page + 1, end)) {
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
    set_word(store, page, skv_pw_make(SKV_PAGE_BLOCKS, family, cls, owner, 0));
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

/* Which pages a search may take. */
enum search { SEARCH_ROOMY_OR_FREE, SEARCH_ANY, SEARCH_FILL };

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
        skv_store(&store->kinds[page], cls == SKV_UNIT_CLASS ? kind_with_some(word) : SKV_KIND_FULL);
    }
    return false;
}

static bool try_free_page(skv *store, uint32_t family, uint32_t cls, uint64_t size, uint64_t *offset)
{
    uint32_t end = skv_committed_pages(store), page = find_free_page(store, end);
    return page < end && use_page_locked(store, page, family, cls, size, offset);
}

/* SKV_OK with *offset 0 = a lease was installed, try it; SKV_FULL = no page. */
static skv_status refill(skv *store, uint32_t family, uint32_t cls, uint64_t size, enum search search, skv_wait *wait, uint64_t *offset)
{
    skv_status status = lock_pages(store, wait);
    if (status)
        return status;
    const uint8_t room = (uint8_t)(SKV_KIND_ROOM + family * SKV_CLASSES + cls);
    const uint8_t some = (uint8_t)(SKV_KIND_SOME + family * SKV_CLASSES + cls);
    uint32_t tries = search == SEARCH_ROOMY_OR_FREE ? ROOMY_TRIES : store->page_count;
    bool done = try_open_pages(store, room, family, cls, size, tries, offset)
                || (search != SEARCH_FILL && try_free_page(store, family, cls, size, offset))
                || (search != SEARCH_ROOMY_OR_FREE && try_open_pages(store, some, family, cls, size, tries, offset));
    unlock_pages(store);
    return done ? SKV_OK : SKV_FULL;
}

/* ---- Growth of the region ---------------------------------------------------------------- */

static skv_status commit_range(skv *store, uint64_t offset, uint64_t len)
{
    const uint64_t mask = 4095;
    uint64_t start = offset & ~mask, end = (offset + len + mask) & ~mask;
    if (end > store->size)
        end = store->size;
    return store->os.commit(store->os.context, start, end - start);
}

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

/* The kind is a hint: a page that is in use by now must not be taken for one that was given back. */
static uint32_t find_punched_page(skv *store, uint32_t end)
{
    for (uint32_t page = find_kind(store, SKV_KIND_PUNCHED, 0, end); page < end;
         page = find_kind(store, SKV_KIND_PUNCHED, page + 1, end)) {
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
    if (find_kind(store, SKV_KIND_PUNCHED, 0, end) >= end)
        return SKV_FULL;
    if (!wait->block)
        return SKV_BUSY;
    skv_status status = lock_pages(store, wait);
    if (status)
        return status;
    uint32_t page = find_punched_page(store, end);
    if (page < end)             /* else somebody was first: there may be a free page now       */
        status = commit_range(store, skv_page_start(store, page), SKV_PAGE_SIZE);
    if (page < end && status == SKV_OK) {
        set_word(store, page, 0);
        skv_store(&store->kinds[page], SKV_KIND_FREE);
        if (skv_load(&store->header->free_hand) > page)
            skv_store(&store->header->free_hand, page);
    }
    unlock_pages(store);
    return status;
}

/* ---- Allocation --------------------------------------------------------------------------- */

static bool worth_making_room(skv_status status)
{
    return status == SKV_FULL || status == SKV_NO_SPACE || status == SKV_CGROUP_FULL;
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
static skv_status fill_block(skv *store, uint32_t family, uint64_t size, enum search search, skv_wait *wait, uint64_t *offset)
{
    uint32_t cls = skv_class_of((enum skv_family)family, size);
    skv_status status = SKV_OK;
    for (uint32_t round = 0; round < ALLOC_ROUNDS * SKV_GROW_STEP_PAGES && status == SKV_OK; round++) {
        *offset = 0;
        if (alloc_leased(store, family, cls, 1, offset))
            return SKV_OK;
        status = refill(store, family, cls, size, search, wait, offset);
        if (status == SKV_OK && *offset)
            return SKV_OK;
    }
    return status ? status : SKV_FULL;
}

static skv_status alloc_block(skv *store, uint32_t family, uint64_t size, skv_wait *wait, uint64_t *offset)
{
    uint32_t cls = skv_class_of((enum skv_family)family, size);
    skv_status status = SKV_OK, reason = SKV_FULL;
    for (uint32_t round = 0; round < ALLOC_ROUNDS * SKV_GROW_STEP_PAGES; round++) {
        *offset = 0;
        if (alloc_leased(store, family, cls, 1, offset))
            return SKV_OK;
        status = refill(store, family, cls, size, SEARCH_ROOMY_OR_FREE, wait, offset);
        if (worth_making_room(status))
            status = unpunch_one(store, wait);
        if (worth_making_room(status))
            status = grow_for(store, 1, wait, &reason);
        if (worth_making_room(status))
            status = refill(store, family, cls, size, SEARCH_ANY, wait, offset);
        if (worth_making_room(status) && round < ALLOC_ROUNDS)
            status = skv_make_room(store, size, round, wait);
        if (status)
            return worth_making_room(status) ? reason : status;
        if (*offset)
            return SKV_OK;
    }
    return reason;
}

/* ---- Runs ---------------------------------------------------------------------------------- */

/* First fit: `n` free pages in a row below `end`, or `end`. */
static uint32_t find_free_run(const skv *store, uint32_t n, uint32_t end)
{
    for (uint32_t page = find_kind(store, SKV_KIND_FREE, 0, end); page < end;) {
        uint32_t length = 0;
        while (length < n && page + length < end && skv_load(&store->pages[page + length].word) == 0
               && skv_load(&store->kinds[page + length]) == SKV_KIND_FREE)      /* not hidden         */
            length++;
        if (length == n)
            return page;
        page = find_kind(store, SKV_KIND_FREE, page + length + 1, end);
    }
    return end;
}

bool skv_gap_below(const skv *store, uint32_t page, uint32_t n)
{
    return find_free_run(store, n, skv_committed_pages(store)) < page;
}

/* The head's word is the commit; tails and kinds follow from it. */
static skv_status take_run(skv *store, uint32_t family, uint32_t n, skv_wait *wait, uint64_t *offset)
{
    skv_status status = lock_pages(store, wait);
    if (status)
        return status;
    uint32_t end = skv_committed_pages(store), page = find_free_run(store, n, end);
    if (page < end) {
        SKV_CRASH("run.found");
        atomic_fetch_add_explicit(&store->pages[page].generation, 1, memory_order_relaxed);
        set_word(store, page, skv_pw_make(SKV_PAGE_RUN, family, 0, 0, n));
        SKV_CRASH("run.taken");
        skv_store(&store->kinds[page], SKV_KIND_RUN);
        for (uint32_t i = 1; i < n; i++) {
            set_word(store, page + i, skv_pw_make(SKV_PAGE_TAIL, 0, 0, 0, i));
            skv_store(&store->kinds[page + i], SKV_KIND_RUN);
        }
        *offset = skv_page_start(store, page);
    }
    unlock_pages(store);
    return page < end ? SKV_OK : SKV_FULL;
}

/* Free pages at the end of the committed ones count towards a run that growth completes. */
static uint32_t pages_to_grow(const skv *store, uint32_t n)
{
    uint32_t end = skv_committed_pages(store), tail = 0;
    while (tail < n && tail < end && skv_load(&store->pages[end - 1 - tail].word) == 0)
        tail++;
    return n - tail;
}

/* Up to `n` pages, from the lowest on; SKV_OK if it was one at least. */
static skv_status unpunch_some(skv *store, uint32_t n, skv_wait *wait)
{
    skv_status status = unpunch_one(store, wait);
    for (uint32_t i = 1; i < n && status == SKV_OK; i++)
        if (unpunch_one(store, wait))
            break;
    return status;
}

static skv_status alloc_run(skv *store, uint32_t family, uint64_t size, skv_wait *wait, uint64_t *offset)
{
    uint64_t n = (size + SKV_PAGE_SIZE - 1) >> SKV_PAGE_SHIFT;
    if (n > store->page_count)
        return SKV_FULL;
    skv_status reason = SKV_FULL;
    for (uint32_t round = 0; round < ALLOC_ROUNDS; round++) {
        skv_status status = take_run(store, family, (uint32_t)n, wait, offset);
        if (status != SKV_FULL)
            return status;
        uint32_t grow = pages_to_grow(store, (uint32_t)n);
        if (grow <= store->page_count - skv_committed_pages(store))
            status = grow_for(store, grow, wait, &reason);
        if (worth_making_room(status))
            status = unpunch_some(store, (uint32_t)n, wait);
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
            return take_run(store, family, (uint32_t)((size + SKV_PAGE_SIZE - 1) >> SKV_PAGE_SHIFT), wait, offset);
        return alloc_run(store, family, size, wait, offset);
    }
    if (skv_unlikely(effort != SKV_MOVE))
        return fill_block(store, family, size, effort == SKV_FILL ? SEARCH_FILL : SEARCH_ANY, wait, offset);
    return alloc_block(store, family, size, wait, offset);
}

skv_status skv_alloc(skv *store, enum skv_family family, uint64_t size, enum skv_effort effort, skv_wait *wait, uint64_t *offset)
{
    *offset = 0;
    skv_status status = alloc_any(store, family, size, effort, wait, offset);
    assert(status || *offset);  /* or the region's header would be written over                */
    return status;
}

/* ---- Freeing ------------------------------------------------------------------------------- */

/* Tails first: until the head's word says free, takeover would restore them from it. */
static void free_run(skv *store, uint32_t page, uint64_t word)
{
    skv_wait wait = {.block = true, .shared = true};
    skv_status status = SKV_BUSY;
    for (uint32_t slice = 0; slice < FREE_SLICES && status == SKV_BUSY; slice++)
        status = lock_pages(store, &wait);
    if (status) {       /* behind a stopped holder it stays, named by nobody: for an audit     */
        atomic_fetch_add_explicit(&store->header->deaths, 1, memory_order_relaxed);
        return;
    }
    if (skv_load(&store->pages[page].word) == word && skv_pw_run(word) <= store->page_count - page) {
        for (uint32_t i = 1; i < skv_pw_run(word); i++) {
            set_word(store, page + i, 0);
            skv_store(&store->kinds[page + i], SKV_KIND_FREE);
        }
        SKV_CRASH("run.tails_freed");
        set_word(store, page, 0);
        skv_store(&store->kinds[page], SKV_KIND_FREE);
        if (skv_load(&store->header->free_hand) > page)
            skv_store(&store->header->free_hand, page);
    }
    unlock_pages(store);
}

static void free_page_locked(skv *store, uint32_t page)
{
    SKV_CRASH("page.emptied");
    skv_page *desc = &store->pages[page];
    for (uint32_t i = 0; i < SKV_PAGE_UNITS && skv_pw_class(skv_load(&desc->word)) == SKV_UNIT_CLASS; i++)
        skv_store(&desc->lengths[i], 0);        /* they lie where another class has bits      */
    set_word(store, page, 0);
    skv_store(&store->kinds[page], SKV_KIND_FREE);
    if (skv_load(&store->header->free_hand) > page)
        skv_store(&store->header->free_hand, page);
}

bool skv_page_release_if_empty(skv *store, uint32_t page, bool closed, skv_wait *wait)
{
    if (lock_pages(store, wait))
        return false;
    uint64_t word = skv_load(&store->pages[page].word);
    uint32_t owner = skv_pw_owner(word);
    bool mine = closed ? skv_pw_evacuating(word) && owner == skv_load(&store->slot) + 1 : owner == 0;
    bool freed = skv_pw_state(word) == SKV_PAGE_BLOCKS && mine && is_empty(store, page, skv_pw_class(word));
    if (freed)
        free_page_locked(store, page);
    unlock_pages(store);
    return freed;
}

/* After a block of an unowned page was freed: `left` is what its bitmap word holds now. */
static void note_freed(skv *store, uint32_t page, uint64_t word, uint64_t left)
{
    uint8_t kind = skv_load(&store->kinds[page]), room = kind_with_room(word);
    if (left == 0 && is_empty(store, page, skv_pw_class(word))) {
        skv_wait now = {.block = false};
        if (skv_page_release_if_empty(store, page, false, &now))
            return;
    }
    if (kind == room || kind == SKV_KIND_TAKEN)
        return;
    /* One word stands for the page: its density is what an unbiased sample would be. */
    bool roomy = popcount(left) <= 52;
    skv_store(&store->kinds[page], roomy ? room : kind_with_some(word));
    skv_fence_full();           /* who changes the word sets the kind after it: one of us sees it */
    if (skv_load(&store->pages[page].word) != word)
        skv_page_refresh_kind(store, page);
}

void skv_free(skv *store, uint64_t offset)
{
    if (offset == 0 || skv_unlikely(!skv_in_pages(store, offset, 1)))
        return;                 /* the latter only in a damaged region                        */
    uint32_t page = skv_page_of(store, offset);
    skv_page *desc = &store->pages[page];
    uint64_t word = skv_load_acquire(&desc->word), left;
    if (skv_pw_state(word) == SKV_PAGE_RUN) {
        free_run(store, page, word);
        return;
    }
    if (skv_unlikely(skv_pw_state(word) != SKV_PAGE_BLOCKS || skv_pw_class(word) >= SKV_CLASSES))
        return;                 /* only in a damaged region: check() tells                    */
    uint32_t within = (uint32_t)(offset - skv_page_start(store, page));
    if (skv_pw_class(word) == SKV_UNIT_CLASS) {
        uint32_t unit = within >> SKV_UNIT_SHIFT;
        uint64_t mask = unit_mask(unit, unit_length(desc, unit));
        left = atomic_fetch_and_explicit(&desc->bitmap[0], ~mask, memory_order_release) & ~mask;
    } else {
        uint32_t block = within / skv_class_size(skv_pw_class(word));
        uint64_t bit = UINT64_C(1) << (block % 64);
        /* Release: what we read or wrote in the block is over before it can be allocated. */
        left = atomic_fetch_and_explicit(&desc->bitmap[block / 64 % SKV_BITMAP_WORDS], ~bit, memory_order_release) & ~bit;
    }
    if (skv_pw_owner(word) == 0)
        note_freed(store, page, word, left);
}

#define AHEAD_WORD  16u         /* blocks ahead of the one that is freed                      */
#define AHEAD_BITS  8u

static void prefetch_bits(const skv *store, uint64_t offset)
{
    if (!skv_in_pages(store, offset, 1))
        return;
    const skv_page *desc = &store->pages[skv_page_of(store, offset)];
    uint32_t cls = skv_pw_class(skv_load(&desc->word));
    if (cls < SKV_UNIT_CLASS)
        __builtin_prefetch(&desc->bitmap[(offset - store->pages_offset) % SKV_PAGE_SIZE / skv_class_size(cls) / 64], 1);
}

void skv_free_many(skv *store, const uint64_t *offsets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (i + AHEAD_WORD < count)
            __builtin_prefetch(&store->pages[skv_page_of(store, offsets[i + AHEAD_WORD])]);
        if (i + AHEAD_BITS < count)
            prefetch_bits(store, offsets[i + AHEAD_BITS]);
        skv_free(store, offsets[i]);
    }
}

/* ---- Closing pages for evacuation ----------------------------------------------------------- */

void skv_page_hide(skv *store, uint32_t page)
{
    if (skv_load(&store->pages[page].word) == 0)
        skv_store(&store->kinds[page], SKV_KIND_TAKEN);
}

bool skv_page_close(skv *store, uint32_t page, skv_wait *wait)
{
    if (lock_pages(store, wait))
        return false;
    uint64_t word = skv_load(&store->pages[page].word);
    bool closed = skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) == 0;
    if (closed) {
        set_word(store, page, skv_pw_with_owner(word, skv_load(&store->slot) + 1) | SKV_PW_EVAC);
        skv_store(&store->kinds[page], SKV_KIND_TAKEN);
    }
    unlock_pages(store);
    return closed;
}

void skv_page_reopen(skv *store, uint32_t page)
{
    uint64_t word = skv_load(&store->pages[page].word);
    if (skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) == skv_load(&store->slot) + 1 && skv_pw_evacuating(word)) {
        set_word(store, page, skv_pw_with_owner(word, 0));
        skv_page_refresh_kind(store, page);
    }
}

void skv_pages_disown(skv *store, uint32_t slot)
{
    uint32_t end = skv_committed_pages(store);
    for (uint32_t page = 0; page < end; page++) {
        uint64_t word = skv_load(&store->pages[page].word);
        if (skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) == slot + 1)
            set_word(store, page, skv_pw_with_owner(word, 0));
    }
    /* Counts and kinds of a process that died between two steps are derived anew. */
    skv_wait wait = {.block = true, .shared = true};
    if (lock_pages(store, &wait) == SKV_OK) {
        skv_repair_pages(store, NULL);
        unlock_pages(store);
    }
}

uint32_t skv_mark_free_pages(skv *store, skv_wait *wait)
{
    uint32_t end = skv_committed_pages(store), marked = 0;
    if (lock_pages(store, wait))
        return 0;
    for (uint32_t page = 0; page < end; page++) {
        if (skv_load(&store->pages[page].word) != 0)
            continue;
        set_word(store, page, skv_pw_make(SKV_PAGE_PUNCHED, 0, 0, 0, 0));
        skv_store(&store->kinds[page], SKV_KIND_PUNCHED);
        SKV_CRASH("punch.marked");
        marked++;
    }
    unlock_pages(store);
    return marked;
}

static bool is_marked(const skv *store, uint32_t page)
{
    return skv_pw_state(skv_load(&store->pages[page].word)) == SKV_PAGE_PUNCHED;
}

bool skv_punch_marked_pages(skv *store, skv_wait *wait)
{
    uint32_t end = skv_committed_pages(store);
    if (lock_pages(store, wait))
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
    unlock_pages(store);
    return true;
}
