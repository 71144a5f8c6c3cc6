/* check_pages.c: one page descriptor: I8 (who allocates where), and the runs.  See check.c.
 *
 * Concurrency: skv_inspect_page is called under pages_lock or beside writers.  Words change in one
 *       step each, bitmaps too; only a run is many words, so runs are judged while nobody holds
 *       pages_lock, or under it.  Kinds and hints are not judged: wrong ones cost time, no data.
 */
#include "check.h"

#include <inttypes.h>

#include "pages.h"

typedef struct page_look {
    const skv *store;
    uint32_t page;
    uint64_t word;
    bool locked;                /* pages_lock is held by this thread                          */
    bool runs;                  /* runs stand still                                           */
    skv_findings *found;
    skv_tally *tally;
} page_look;

/* ---- Blocks by offset --------------------------------------------------------------------- */

/* Bytes of the block that starts at unit `at`.  Whether one does start there is not asked: what is
 * named must also have the hash of its slot, or the header of its table, which a block's middle has not. */
static uint64_t unit_bytes(const skv_page *page, uint32_t at)
{
    uint32_t n = skv_load(&page->lengths[at]);
    return n <= SKV_PAGE_UNITS - at ? (uint64_t)n << SKV_UNIT_SHIFT : 0;
}

const char *skv_extent_at(const skv *store, uint64_t offset, skv_extent *extent)
{
    if (offset % SKV_UNIT || !skv_in_pages(store, offset, SKV_UNIT))
        return "lies outside the committed pages";
    uint32_t page = skv_page_of(store, offset), within = (uint32_t)(offset - skv_page_start(store, page));
    uint64_t word = skv_load_acquire(&store->pages[page].word);
    uint32_t state = skv_pw_state(word), cls = skv_pw_class(word);
    extent->family = skv_pw_family(word);
    if (state == SKV_PAGE_RUN)
        extent->bytes = (uint64_t)skv_pw_run(word) << SKV_PAGE_SHIFT;
    else if (state != SKV_PAGE_BLOCKS || cls >= SKV_CLASSES)
        return "lies in a page without blocks";
    else if (cls == SKV_UNIT_CLASS)
        extent->bytes = unit_bytes(&store->pages[page], within >> SKV_UNIT_SHIFT);
    else
        extent->bytes = skv_class_size(cls);
    uint64_t step = state == SKV_PAGE_RUN ? SKV_PAGE_SIZE : cls == SKV_UNIT_CLASS ? 1u << SKV_UNIT_SHIFT : extent->bytes;
    if (within % step)
        return "is not where a block starts";
    if (!skv_block_in_use(store, offset))
        return "is a block that is not in use";
    return skv_in_pages(store, offset, extent->bytes) ? NULL : "reaches beyond the committed pages";
}

/* ---- Bitmaps -------------------------------------------------------------------------------- */

/* Bits of bitmap word `w` that stand for no block. */
static uint64_t bits_beyond(uint32_t blocks, uint32_t w)
{
    uint32_t from = w * 64;
    if (from >= blocks)
        return ~UINT64_C(0);
    return blocks - from >= 64 ? 0 : ~((UINT64_C(1) << (blocks - from)) - 1);
}

static void inspect_bitmap(page_look *look, uint32_t blocks)
{
    const skv_page *page = &look->store->pages[look->page];
    for (uint32_t w = 0; w < SKV_BITMAP_WORDS; w++) {
        uint64_t beyond = skv_load(&page->bitmap[w]) & bits_beyond(blocks, w);
        if (beyond) {
            skv_finding_add(look->found, "I8",
                            "page %" PRIu32 ": bitmap word %" PRIu32 " has bits beyond its %" PRIu32
                            " blocks: 0x%" PRIx64, look->page, w, blocks, beyond);
            return;
        }
    }
}

/* ---- Runs ------------------------------------------------------------------------------------ */

static void inspect_run(page_look *look)
{
    uint32_t n = skv_pw_run(look->word), end = skv_committed_pages(look->store);
    if (look->word != skv_pw_make(SKV_PAGE_RUN, skv_pw_family(look->word), 0, 0, n) || skv_pw_family(look->word) >= SKV_FAMILIES)
        skv_finding_add(look->found, "I8", "page %" PRIu32 ": no run has the descriptor 0x%016" PRIx64, look->page,
                        look->word);
    inspect_bitmap(look, 0);
    look->tally->blocks_used++;
    if (n < 1 || n > end - look->page) {
        skv_finding_add(look->found, "I8", "page %" PRIu32 ": a run of %" PRIu32 " pages does not fit", look->page, n);
        return;
    }
    for (uint32_t i = 1; look->runs && i < n; i++) {
        uint64_t tail = skv_load_acquire(&look->store->pages[look->page + i].word);
        if (tail != skv_pw_make(SKV_PAGE_TAIL, 0, 0, 0, i)) {
            skv_finding_add(look->found, "I8",
                            "page %" PRIu32 " is number %" PRIu32 " of the run at page %" PRIu32
                            ", but says 0x%016" PRIx64, look->page + i, i, look->page, tail);
            return;
        }
    }
}

static void inspect_tail(page_look *look)
{
    uint32_t back = skv_pw_run(look->word);
    inspect_bitmap(look, 0);
    if (!look->runs)
        return;
    uint64_t head = back <= look->page ? skv_load_acquire(&look->store->pages[look->page - back].word) : 0;
    if (back == 0 || skv_pw_state(head) != SKV_PAGE_RUN || skv_pw_run(head) <= back)
        skv_finding_add(look->found, "I8",
                        "page %" PRIu32 " says that it is number %" PRIu32 " of a run, but there is none", look->page,
                        back);
}

/* ---- Pages of blocks ------------------------------------------------------------------------- */

static void inspect_owner(page_look *look)
{
    uint32_t owner = skv_pw_owner(look->word);
    if (owner > SKV_PROCS || (owner == 0 && skv_pw_evacuating(look->word)))
        skv_finding_add(look->found, "I8", "page %" PRIu32 ": owner %" PRIu32 " is none (word 0x%016" PRIx64 ")",
                        look->page, owner, look->word);
    else if (owner && skv_load_acquire(&look->store->procs[owner - 1].state) != SKV_PROC_USED)
        skv_finding_add(look->found, "I7", "page %" PRIu32 " is owned by process slot %" PRIu32 ", which is free",
                        look->page, owner - 1);
}

/* Each block of a page of units lies within the page, in units in use.  Behind the lengths nothing is set. */
static bool inspect_units(page_look *look)
{
    const skv_page *page = &look->store->pages[look->page];
    uint64_t bits = skv_load_acquire(&page->bitmap[0]);
    for (uint32_t i = 0, n; i < SKV_PAGE_UNITS; i += n) {
        n = 1;
        if (!(bits >> i & 1))
            continue;
        n = skv_load(&page->lengths[i]);
        uint64_t mask = n >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;
        look->tally->blocks_used++;
        if (n == 0 || n > SKV_PAGE_UNITS - i || (bits >> i & mask) != mask) {
            skv_finding_add(look->found, "I8",
                            "page %" PRIu32 ": the block at unit %" PRIu32 " says that it has %" PRIu32
                            " units, in use are 0x%016" PRIx64, look->page, i, n, bits);
            break;
        }
    }
    for (uint32_t w = 1 + SKV_PAGE_UNITS / 8; w < SKV_BITMAP_WORDS; w++)
        if (skv_load(&page->bitmap[w]))
            skv_finding_add(look->found, "I8", "page %" PRIu32 " has units only, but bitmap word %" PRIu32 " is not 0",
                            look->page, w);
    /* Under pages_lock blocks may be freed, which changes no length. */
    return look->locked || skv_load_acquire(&page->bitmap[0]) == bits;
}

static bool inspect_blocks(page_look *look)
{
    uint32_t family = skv_pw_family(look->word), cls = skv_pw_class(look->word);
    uint64_t plain = skv_pw_make(SKV_PAGE_BLOCKS, family, cls, 0, 0);
    if (family >= SKV_FAMILIES || cls >= SKV_CLASSES || skv_pw_with_owner(look->word, 0) != plain) {
        skv_finding_add(look->found, "I8", "page %" PRIu32 ": no page of blocks has the descriptor 0x%016" PRIx64,
                        look->page, look->word);
        return true;
    }
    inspect_owner(look);
    if (cls == SKV_UNIT_CLASS)
        return inspect_units(look);
    inspect_bitmap(look, skv_class_blocks(cls));
    look->tally->blocks_used += skv_page_used(look->store, look->page, cls);
    return true;
}

/* ---- All pages ---------------------------------------------------------------------------------- */

static void inspect_unused(page_look *look)
{
    uint32_t state = skv_pw_state(look->word);
    if (look->word != state)
        skv_finding_add(look->found, "I8", "page %" PRIu32 " is not in use, but its descriptor says 0x%016" PRIx64,
                        look->page, look->word);
    inspect_bitmap(look, 0);
}

static bool inspect_by_state(page_look *look)
{
    bool steady = true;
    uint32_t state = skv_pw_state(look->word);
    if (state == SKV_PAGE_FREE || state == SKV_PAGE_PUNCHED)
        inspect_unused(look);
    else if (state == SKV_PAGE_BLOCKS)
        steady = inspect_blocks(look);
    else if (state == SKV_PAGE_RUN)
        inspect_run(look);
    else if (state == SKV_PAGE_TAIL)
        inspect_tail(look);
    else
        skv_finding_add(look->found, "I8", "page %" PRIu32 " has the state %" PRIu32, look->page, state);
    look->tally->pages_used += state != SKV_PAGE_FREE && state != SKV_PAGE_PUNCHED;
    return steady;
}

bool skv_inspect_page(skv_checker *check, uint64_t number, enum skv_look how, skv_findings *found, skv_tally *tally)
{
    const skv *store = check->store;
    const _Atomic uint32_t *lock = &store->header->pages_lock;
    const bool locked = how == SKV_LOOK_LOCKED, quiet = skv_load_acquire(lock) == 0;
    page_look look = {.store = store, .page = (uint32_t)number, .locked = locked, .runs = locked || quiet, .found = found,
                      .tally = tally, .word = skv_load_acquire(&store->pages[number].word)};
    bool steady = inspect_by_state(&look);
    skv_fence_acquire();
    return locked || (steady && skv_load_acquire(&store->pages[number].word) == look.word && quiet == (skv_load_acquire(lock) == 0));
}
