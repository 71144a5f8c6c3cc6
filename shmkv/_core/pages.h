/* pages.h: blocks, pages and runs: where records, tables and intents lie.
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
 *
 * Concurrency: skv_alloc and skv_free must not be called with a bucket's lock held (I9).
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

/* Blocks (or units) in use. */
uint32_t skv_page_used(const skv *store, uint32_t page, uint32_t cls);
/* Bytes in use of a page in state BLOCKS. */
uint64_t skv_page_used_bytes(const skv *store, uint32_t page, uint32_t cls);

/* Class of the block in use at `offset`; SKV_CLASSES if none of this family is there, or one that is not of a class. */
uint32_t skv_class_of_block(const skv *store, enum skv_family family, uint64_t offset);

/* Calls `visit` for each block in use of a page (state BLOCKS): its offset and size. */
typedef bool (*skv_block_visit)(void *context, uint64_t offset, uint32_t size);
bool skv_page_walk(const skv *store, uint32_t page, uint32_t cls, skv_block_visit visit, void *context);
/* Offset of the block in use that contains `offset`'s bit; false if none is in use there. */
bool skv_block_in_use(const skv *store, uint64_t offset);

/* ---- Blocks ---- */

/* How hard skv_alloc tries: FILL takes only what is free in pages of the class (or, for a run, among
 * free pages); SPREAD also takes free pages; MOVE also grows the region, evicts and evacuates. */
enum skv_effort { SKV_FILL, SKV_SPREAD, SKV_MOVE };

skv_status skv_alloc(skv *store, enum skv_family family, uint64_t size, enum skv_effort effort, skv_wait *wait, uint64_t *offset);
/* Up to `count` blocks of one size without a lock, from the page that this process leases; how many. */
uint32_t skv_alloc_leased(skv *store, enum skv_family family, uint64_t size, uint32_t count, uint64_t *offsets);
/* In one given page (the caller owns it); false when it is full. */
bool skv_alloc_in_page(skv *store, uint32_t page, uint32_t cls, uint64_t size, uint32_t *word, uint64_t *offset);
void skv_free(skv *store, uint64_t offset);
/* The same for many, cache misses overlapped. */
void skv_free_many(skv *store, const uint64_t *offsets, uint32_t count);

/* ---- Housekeeping ---- */

skv_status skv_grow(skv *store, uint32_t pages, skv_wait *wait);
/* Derives kinds, tails and hints anew from the descriptors.  pages_lock is held. */
void skv_repair_pages(skv *store, void *unused);
/* Takes every page from a dead process slot. */
void skv_pages_disown(skv *store, uint32_t slot);
/* Gives this process's leases back. */
void skv_leases_return(skv *store);
/* Are there `n` free pages in a row that begin before `page`? */
bool skv_gap_below(const skv *store, uint32_t page, uint32_t n);
/* Marks free pages, so that they are committed before their next use (the caller is alone); how many. */
uint32_t skv_mark_free_pages(skv *store, skv_wait *wait);
/* Gives the memory of all marked pages back to the system.  Killed in between, it is given back by the next one. */
bool skv_punch_marked_pages(skv *store, skv_wait *wait);
/* Hides a free page from searches for one, or shows it again (what it is does not change). */
void skv_page_hide(skv *store, uint32_t page);
/* Frees a page if nothing in it is in use: one without owner, or, `closed`, one that the caller has closed
 * (nobody else may free that, not even another thread of this process). */
bool skv_page_release_if_empty(skv *store, uint32_t page, bool closed, skv_wait *wait);
/* Marks an unowned page so that nobody allocates in it, or gives it back. */
bool skv_page_close(skv *store, uint32_t page, skv_wait *wait);
void skv_page_reopen(skv *store, uint32_t page);
void skv_page_refresh_kind(skv *store, uint32_t page);

#endif
