/* pages.h: pages of blocks, and their descriptors: where records, tables and intents lie.
 *
 * What: an allocator of blocks of 32 bytes to 64 KiB, and of runs of pages beyond.
 *       Sizes up to 128 go in steps of 16, then 8 to a doubling up to 8 KiB (waste < 12.5 %),
 *       then in units of 1 KiB inside a page, then in whole pages.
 * How:  a page holds blocks of one family (records, or tables and intents) and one class, a
 *       bit each.  A process leases pages and allocates in them with one atomic OR; anybody
 *       frees with one atomic AND.  Bitmaps instead of free lists: an audit can rebuild them,
 *       and there is no ABA.  Pages without an owner are shared: who holds pages_lock may
 *       allocate in them, which is what small stores and late-comers do, so that a crowd of
 *       idle processes can never keep more than a sixteenth of the store to itself.
 *       alloc.h is what others call; lease.h, runs.h and grow.h are its parts.
 *
 * Concurrency: a descriptor's word changes under pages_lock, except that an owner gives its own page up.
 *       Nothing here knows what a block contains; `table.h` knows nothing of pages.
 */
#ifndef SKV_PAGES_H
#define SKV_PAGES_H

#include "engine.h"

enum skv_family { SKV_RECORDS = 0, SKV_TABLES = 1 };

#define SKV_UNIT_CLASS      (SKV_CLASSES - 1)
#define SKV_MAX_CLASS_SIZE  8192u                       /* of records                         */
#define SKV_MAX_CLASS_TABLE 512u

/* ---- Sizes ---- */

/* Tables of 1 KiB and more all come from pages of units: as a store fills, its tables leave one
 * size for the next, and pages of one size each would stay behind, sparse (9 bytes an entry,
 * measured; with shared pages of units: 2). */
static inline uint32_t skv_class_of(enum skv_family family, uint64_t size)
{
    if (size > (family == SKV_TABLES ? SKV_MAX_CLASS_TABLE : SKV_MAX_CLASS_SIZE))
        return SKV_UNIT_CLASS;
    if (size <= 128)
        return size <= 32 ? 0 : (uint32_t)((size + 15) / 16) - 2;
    uint32_t x = (uint32_t)size - 1;
    uint32_t top = 31 - (uint32_t)__builtin_clz(x);
    return 7 + (top - 7) * 8 + ((x >> (top - 3)) & 7);
}

/* Not for the unit class. */
static inline uint32_t skv_class_size(uint32_t cls)
{
    if (cls < 7)
        return 32 + 16 * cls;
    uint32_t base = 128u << ((cls - 7) / 8);
    return base + (base >> 3) * ((cls - 7) % 8 + 1);
}

static inline uint32_t skv_class_blocks(uint32_t cls)
{
    return cls == SKV_UNIT_CLASS ? SKV_PAGE_UNITS : SKV_PAGE_SIZE / skv_class_size(cls);
}

/* ---- Descriptor words ---- */

static inline uint32_t skv_pw_state(uint64_t w)  { return (uint32_t)(w & SKV_PW_STATE_MASK); }
static inline uint32_t skv_pw_family(uint64_t w) { return (uint32_t)(w >> SKV_PW_FAMILY_SHIFT) & SKV_PW_FAMILY_MASK; }
static inline uint32_t skv_pw_owner(uint64_t w)  { return (uint32_t)(w >> SKV_PW_OWNER_SHIFT) & SKV_PW_OWNER_MASK; }
static inline uint32_t skv_pw_class(uint64_t w)  { return (uint32_t)(w >> SKV_PW_CLASS_SHIFT) & SKV_PW_CLASS_MASK; }
static inline uint32_t skv_pw_run(uint64_t w)    { return (uint32_t)(w >> SKV_PW_RUN_SHIFT); }
static inline bool skv_pw_evacuating(uint64_t w) { return (w & SKV_PW_EVAC) != 0; }

/* A page of blocks that nobody owns or has closed. */
static inline bool skv_pw_is_open(uint64_t w)
{
    return skv_pw_state(w) == SKV_PAGE_BLOCKS && skv_pw_owner(w) == 0 && skv_pw_class(w) < SKV_CLASSES
           && skv_pw_family(w) < SKV_FAMILIES;
}

static inline uint64_t skv_pw_make(uint32_t state, uint32_t family, uint32_t cls, uint32_t owner, uint32_t run)
{
    return state | (uint64_t)family << SKV_PW_FAMILY_SHIFT | (uint64_t)cls << SKV_PW_CLASS_SHIFT
           | (uint64_t)owner << SKV_PW_OWNER_SHIFT | (uint64_t)run << SKV_PW_RUN_SHIFT;
}

static inline uint64_t skv_pw_with_owner(uint64_t w, uint32_t owner)
{
    w &= ~((uint64_t)SKV_PW_OWNER_MASK << SKV_PW_OWNER_SHIFT) & ~SKV_PW_EVAC;
    return w | (uint64_t)owner << SKV_PW_OWNER_SHIFT;
}

/* ---- Pages by number ---- */

static inline uint32_t skv_page_of(const skv *store, uint64_t offset)
{
    return (uint32_t)((offset - store->pages_offset) >> SKV_PAGE_SHIFT);
}

static inline uint64_t skv_page_start(const skv *store, uint32_t page)
{
    return store->pages_offset + ((uint64_t)page << SKV_PAGE_SHIFT);
}

static inline uint32_t skv_committed_pages(const skv *store)
{
    uint64_t pages = skv_load_acquire(&store->header->committed_pages);
    return pages > store->page_count ? store->page_count : (uint32_t)pages;
}

/* ---- Bitmaps ---- */

static inline uint32_t skv_popcount(uint64_t x)
{
    return (uint32_t)__builtin_popcountll(x);
}

/* Valid bits of bitmap word `w` in a page of `blocks` blocks. */
static inline uint64_t skv_bitmap_mask(uint32_t blocks, uint32_t w)
{
    uint32_t left = blocks - w * 64;
    return left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
}

static inline uint32_t skv_bitmap_words(uint32_t blocks)
{
    return (blocks + 63) / 64;
}

/* Units of the block that starts at unit `at`, bounded by the page. */
static inline uint32_t skv_unit_length(const skv_page *desc, uint32_t at)
{
    uint32_t n = skv_load(&desc->lengths[at]);
    return n == 0 || n > SKV_PAGE_UNITS - at ? 1 : n;
}

static inline uint64_t skv_unit_mask(uint32_t at, uint32_t n)
{
    return (n == 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1) << at;
}

/* The most units in a row that are free. */
static inline uint32_t skv_longest_gap(uint64_t units)
{
    uint32_t longest = 0;
    for (uint64_t fits = ~units; fits; fits &= fits >> 1)
        longest++;
    return longest;
}

/* ---- What a page holds ---- */

/* Blocks (or units) in use. */
uint32_t skv_page_used(const skv *store, uint32_t page, uint32_t cls);
/* Bytes in use of a page in state BLOCKS. */
uint64_t skv_page_used_bytes(const skv *store, uint32_t page, uint32_t cls);

static inline bool skv_page_is_empty(const skv *store, uint32_t page, uint32_t cls)
{
    return skv_page_used(store, page, cls) == 0;
}

/* Class of the block in use at `offset`; SKV_CLASSES if none of this family is there, or one that is not of a class. */
uint32_t skv_class_of_block(const skv *store, enum skv_family family, uint64_t offset);

/* Calls `visit` for each block in use of a page (state BLOCKS): its offset and size. */
typedef bool (*skv_block_visit)(void *context, uint64_t offset, uint32_t size);
bool skv_page_walk(const skv *store, uint32_t page, uint32_t cls, skv_block_visit visit, void *context);
/* Offset of the block in use that contains `offset`'s bit; false if none is in use there. */
bool skv_block_in_use(const skv *store, uint64_t offset);

/* ---- Kinds: the searchable summary ---- */

static inline uint8_t skv_kind_with_room(uint64_t word)
{
    return (uint8_t)(SKV_KIND_ROOM + skv_pw_family(word) * SKV_CLASSES + skv_pw_class(word));
}

static inline uint8_t skv_kind_with_some(uint64_t word)
{
    return (uint8_t)(SKV_KIND_SOME + skv_pw_family(word) * SKV_CLASSES + skv_pw_class(word));
}

void skv_page_refresh_kind(skv *store, uint32_t page);
/* The first page of `kind` at or after `from`, before `end`; `end` if there is none.  A hint: ask the descriptor. */
uint32_t skv_find_kind(const skv *store, uint8_t kind, uint32_t from, uint32_t end);
/* Hides a free page from searches for one, or shows it again (what it is does not change). */
void skv_page_hide(skv *store, uint32_t page);

/* ---- Descriptors: under pages_lock ---- */

skv_status skv_lock_pages(skv *store, skv_wait *wait);
void skv_unlock_pages(skv *store);
/* Derives kinds, tails and hints anew from the descriptors.  pages_lock is held. */
void skv_repair_pages(skv *store, void *unused);

static inline void skv_page_set_word(skv *store, uint32_t page, uint64_t word)
{
    skv_store_release(&store->pages[page].word, word);
}

/* Free, with its kind and the hint where to look for such pages. */
void skv_page_set_free(skv *store, uint32_t page);

/* ---- Owners ---- */

/* By its owner, without the lock. */
void skv_page_give_up(skv *store, uint32_t page);
/* Takes every page from a dead process slot. */
void skv_pages_disown(skv *store, uint32_t slot);
/* Frees a page if nothing in it is in use: one without owner, or, `closed`, one that the caller has closed
 * (nobody else may free that, not even another thread of this process). */
bool skv_page_release_if_empty(skv *store, uint32_t page, bool closed, skv_wait *wait);
/* Marks an unowned page so that nobody allocates in it, or gives it back. */
bool skv_page_close(skv *store, uint32_t page, skv_wait *wait);
void skv_page_reopen(skv *store, uint32_t page);

#endif
