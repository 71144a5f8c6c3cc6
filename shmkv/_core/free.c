/* free.c: blocks and runs given back.  See alloc.h. */
#include "alloc.h"
#include "runs.h"

#define AHEAD_WORD  16u         /* blocks ahead of the one that is freed                      */
#define AHEAD_BITS  8u

/* After a block of an unowned page was freed: `left` is what its bitmap word holds now. */
static void note_freed(skv *store, uint32_t page, uint64_t word, uint64_t left)
{
    uint8_t kind = skv_load(&store->kinds[page]), room = skv_kind_with_room(word);
    if (left == 0 && skv_page_is_empty(store, page, skv_pw_class(word))) {
        skv_wait now = {.block = false};
        if (skv_page_release_if_empty(store, page, false, &now))
            return;
    }
    if (kind == room || kind == SKV_KIND_TAKEN)
        return;
    /* One word stands for the page: its density is what an unbiased sample would be. */
    bool roomy = skv_popcount(left) <= 52;
    skv_store(&store->kinds[page], roomy ? room : skv_kind_with_some(word));
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
        skv_free_run(store, page, word);
        return;
    }
    if (skv_unlikely(skv_pw_state(word) != SKV_PAGE_BLOCKS || skv_pw_class(word) >= SKV_CLASSES))
        return;                 /* only in a damaged region: check() tells                    */
    uint32_t within = (uint32_t)(offset - skv_page_start(store, page));
    if (skv_pw_class(word) == SKV_UNIT_CLASS) {
        uint32_t unit = within >> SKV_UNIT_SHIFT;
        uint64_t mask = skv_unit_mask(unit, skv_unit_length(desc, unit));
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
