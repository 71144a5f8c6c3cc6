/* pages.c: what a page holds, what kind it is, and who may allocate in it.  See pages.h.
 *
 * Concurrency: descriptors' words change under pages_lock, except that an owner gives its own
 * page up.  Kinds are hints, from which a search begins; the descriptor decides.
 */
#include "pages.h"

#include "lock.h"

/* ---- What a page holds ---------------------------------------------------------------- */

uint32_t skv_page_used(const skv *store, uint32_t page, uint32_t cls)
{
    const skv_page *desc = &store->pages[page];
    if (skv_unlikely(cls >= SKV_CLASSES))
        return UINT32_MAX;      /* only in a damaged region: never empty, never with room     */
    if (cls == SKV_UNIT_CLASS)
        return skv_popcount(skv_load(&desc->bitmap[0]));
    uint32_t used = 0;
    for (uint32_t w = 0; w < skv_bitmap_words(skv_class_blocks(cls)); w++)
        used += skv_popcount(skv_load(&desc->bitmap[w]));
    return used;
}

uint64_t skv_page_used_bytes(const skv *store, uint32_t page, uint32_t cls)
{
    uint64_t size = cls == SKV_UNIT_CLASS ? 1u << SKV_UNIT_SHIFT : skv_class_size(cls);
    return skv_page_used(store, page, cls) * size;
}

static bool walk_units(const skv *store, uint32_t page, skv_block_visit visit, void *context)
{
    const skv_page *desc = &store->pages[page];
    uint64_t start = skv_page_start(store, page), word = skv_load_acquire(&desc->bitmap[0]);
    for (uint32_t i = 0, n; i < SKV_PAGE_UNITS; i += n) {
        n = word >> i & 1 ? skv_unit_length(desc, i) : 1;
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
    for (uint32_t w = 0; w < skv_bitmap_words(blocks); w++) {
        uint64_t word = skv_load(&desc->bitmap[w]) & skv_bitmap_mask(blocks, w);
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
    return (blocks - used) * 8 >= blocks ? skv_kind_with_room(word) : skv_kind_with_some(word);
}

void skv_page_refresh_kind(skv *store, uint32_t page)
{
    skv_store(&store->kinds[page], kind_of(store, page));
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
                skv_page_set_word(store, page + i, skv_pw_make(SKV_PAGE_TAIL, 0, 0, 0, i));
                skv_store(&store->kinds[page + i], SKV_KIND_RUN);
            }
        } else if (skv_pw_state(word) == SKV_PAGE_TAIL) {
            skv_page_set_word(store, page, 0);  /* no head covers it: its run was given up    */
        }
        leased += skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) && !skv_pw_evacuating(word);
        skv_page_refresh_kind(store, page);
        page += length;
    }
    skv_store(&store->header->leased_pages, leased);
    skv_store(&store->header->free_hand, 0);
}

skv_status skv_lock_pages(skv *store, skv_wait *wait)
{
    return skv_lock(store, &store->header->pages_lock, wait, skv_repair_pages, NULL);
}

void skv_unlock_pages(skv *store)
{
    skv_unlock(store, &store->header->pages_lock);
}

uint32_t skv_find_kind(const skv *store, uint8_t kind, uint32_t from, uint32_t end)
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

void skv_page_set_free(skv *store, uint32_t page)
{
    skv_page_set_word(store, page, 0);
    skv_store(&store->kinds[page], SKV_KIND_FREE);
    if (skv_load(&store->header->free_hand) > page)
        skv_store(&store->header->free_hand, page);
}

/* ---- Owners ------------------------------------------------------------------------------- */

void skv_page_give_up(skv *store, uint32_t page)
{
    uint64_t word = skv_load(&store->pages[page].word);
    skv_page_set_word(store, page, skv_pw_with_owner(word, 0));
    atomic_fetch_sub_explicit(&store->header->leased_pages, 1, memory_order_relaxed);
    skv_page_refresh_kind(store, page);
}

static void free_page_locked(skv *store, uint32_t page)
{
    SKV_CRASH("page.emptied");
    skv_page *desc = &store->pages[page];
    for (uint32_t i = 0; i < SKV_PAGE_UNITS && skv_pw_class(skv_load(&desc->word)) == SKV_UNIT_CLASS; i++)
        skv_store(&desc->lengths[i], 0);        /* they lie where another class has bits      */
    skv_page_set_free(store, page);
}

bool skv_page_release_if_empty(skv *store, uint32_t page, bool closed, skv_wait *wait)
{
    if (skv_lock_pages(store, wait))
        return false;
    uint64_t word = skv_load(&store->pages[page].word);
    uint32_t owner = skv_pw_owner(word);
    bool mine = closed ? skv_pw_evacuating(word) && owner == skv_load(&store->slot) + 1 : owner == 0;
    bool freed = skv_pw_state(word) == SKV_PAGE_BLOCKS && mine && skv_page_is_empty(store, page, skv_pw_class(word));
    if (freed)
        free_page_locked(store, page);
    skv_unlock_pages(store);
    return freed;
}

void skv_page_hide(skv *store, uint32_t page)
{
    if (skv_load(&store->pages[page].word) == 0)
        skv_store(&store->kinds[page], SKV_KIND_TAKEN);
}

bool skv_page_close(skv *store, uint32_t page, skv_wait *wait)
{
    if (skv_lock_pages(store, wait))
        return false;
    uint64_t word = skv_load(&store->pages[page].word);
    bool closed = skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) == 0;
    if (closed) {
        skv_page_set_word(store, page, skv_pw_with_owner(word, skv_load(&store->slot) + 1) | SKV_PW_EVAC);
        skv_store(&store->kinds[page], SKV_KIND_TAKEN);
    }
    skv_unlock_pages(store);
    return closed;
}

void skv_page_reopen(skv *store, uint32_t page)
{
    uint64_t word = skv_load(&store->pages[page].word);
    if (skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) == skv_load(&store->slot) + 1 && skv_pw_evacuating(word)) {
        skv_page_set_word(store, page, skv_pw_with_owner(word, 0));
        skv_page_refresh_kind(store, page);
    }
}

void skv_pages_disown(skv *store, uint32_t slot)
{
    uint32_t end = skv_committed_pages(store);
    for (uint32_t page = 0; page < end; page++) {
        uint64_t word = skv_load(&store->pages[page].word);
        if (skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) == slot + 1)
            skv_page_set_word(store, page, skv_pw_with_owner(word, 0));
    }
    /* Counts and kinds of a process that died between two steps are derived anew. */
    skv_wait wait = {.block = true, .shared = true};
    if (skv_lock_pages(store, &wait) == SKV_OK) {
        skv_repair_pages(store, NULL);
        skv_unlock_pages(store);
    }
}
