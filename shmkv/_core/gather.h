/* gather.h: pages made free by moving the blocks of sparse ones into the gaps of others. */
#ifndef SKV_GATHER_H
#define SKV_GATHER_H

#include "pages.h"

/* What is free in a range of pages.  Guesses: they change while they are counted. */
typedef struct skv_slack {
    uint64_t bytes;             /* in free pages and in gaps: no more can be gained           */
    uint64_t pages;             /* free, or free once blocks are gathered                     */
} skv_slack;
skv_slack skv_find_slack(const skv *store, uint32_t low, uint32_t high);
#define SKV_WORTH_PART 64u

/* The page that costs least to empty, given the gaps of its class elsewhere; false = none. */
bool skv_sparsest_page(const skv *store, uint32_t *page);
/* Empties up to `most` sparse pages into gaps; how many are free now.  Pages that somebody has closed take no part. */
uint32_t skv_gather(skv *store, uint32_t most, skv_wait *wait);

/* Looks at one segment only, another one each time, and leaves it as it is unless a 64th of its pages can be gained. */
uint32_t skv_gather_where_worth(skv *store, uint32_t most, skv_wait *wait);

/* Searches look at so many pages at a time, so that the time of one does not grow with the store. */
#define SKV_SEGMENT_PAGES 8192u

#endif
