/* engine.h: what the engine keeps in a process about one region (nothing of it is shared).
 *
 * Immutable after skv_open unless a field names its guard.  The sizes and offsets are copies
 * that were checked once: a region changed under us can give wrong values, never wrong bounds.
 */
#ifndef SKV_ENGINE_H
#define SKV_ENGINE_H

#include <pthread.h>

#include "atomics.h"
#include "scratch.h"
#include "store.h"

/* A page that this process allocates in, one for each family and class. */
typedef struct skv_lease {
    uint32_t page;              /* page number + 1, 0 = none; guarded by skv.lease_lock       */
    uint32_t word;              /* bitmap word to go on at                                    */
} skv_lease;

struct skv {
    uint8_t    *base;
    skv_header *header;
    skv_proc   *procs;
    skv_bucket *buckets;
    _Atomic uint8_t *kinds;
    skv_page   *pages;          /* descriptors; valid below header->committed_pages only      */
    uint64_t    pages_offset;
    uint32_t    page_count;
    uint32_t    lease_limit;    /* pages that all processes together may lease                */
    uint32_t    bucket_shift;   /* bucket = hash >> bucket_shift                              */
    uint64_t    bucket_count;
    uint64_t    seed;
    uint64_t    size;
    bool        read_only;
    bool        evict;
    uint32_t    age_shift;      /* an item's stamp counts 2^age_shift bytes: age.h            */
    _Atomic uint64_t written;   /* bytes of records that the header does not count yet        */
    skv_fixed   fixed;
    skv_os      os;

    _Atomic uint32_t slot;      /* process slot, SKV_NO_PROC until registered                 */
    uint32_t    adopting;       /* a row that is about to become ours; guarded by register_mutex */
    skv_proc   *proc;           /* its row, or `nobody` while there is none                   */
    skv_proc    nobody;         /* counts of a process without a row go here, and are lost    */
    _Atomic uint64_t fake_now;  /* tests only, 0 = the real clock                             */
    _Atomic uint64_t fake_wall; /* the same for the time of day                               */
    struct skv_journal *journal; /* journal.h; NULL = changes are in memory only              */

    pthread_mutex_t register_mutex;
    pthread_mutex_t batch_mutex;        /* one batch in flight per process                    */
    skv_scratch_kept scratch;           /* the arrays of a batch                              */
    _Atomic uint32_t lease_lock;        /* guards leases; held for a few instructions         */
    skv_lease   leases[SKV_FAMILIES][SKV_CLASSES];
    _Atomic uint32_t gather_hand;       /* segments in which gather.c and window.c looked last */
    _Atomic uint32_t window_hand;
    _Atomic uint64_t tidy_in;   /* of an evicting store: bytes to evict until room.c looks for gaps again */
    _Atomic uint64_t shrink_hand;       /* and the bucket where it goes on shrinking tables   */
    uint64_t    spare;          /* offset of the block of spare.h, 0 = none; guarded by the GIL */
    uint32_t    spare_class;
};

static inline skv_bucket *skv_bucket_of(const skv *store, uint64_t hash)
{
    return &store->buckets[hash >> store->bucket_shift];
}

static inline uint32_t skv_tag_of(uint64_t hash)
{
    return (uint32_t)hash & SKV_TAG_MASK;
}

/* Bytes from the region's start below which pages are allocated memory.  Acquire: pairs with
 * the release in skv_grow, so that descriptors of those pages are seen too. */
static inline uint64_t skv_committed_end(const skv *store)
{
    uint64_t pages = skv_load_acquire(&store->header->committed_pages);
    if (skv_unlikely(pages > store->page_count))
        pages = store->page_count;
    return store->pages_offset + (pages << SKV_PAGE_SHIFT);
}

/* Is [offset, offset + len) inside the committed pages? */
static inline bool skv_in_pages(const skv *store, uint64_t offset, uint64_t len)
{
    uint64_t end = skv_committed_end(store);
    return offset >= store->pages_offset && offset <= end && len <= end - offset;
}

uint64_t skv_monotonic_ns(void);

#endif
