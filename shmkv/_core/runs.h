/* runs.h: free pages in a row, for what is larger than a page. */
#ifndef SKV_RUNS_H
#define SKV_RUNS_H

#include "pages.h"

/* The first `n` free pages in a row; SKV_FULL if there are none. */
skv_status skv_take_run(skv *store, enum skv_family family, uint32_t n, skv_wait *wait, uint64_t *offset);
/* The run whose head's word was `word`.  Behind a stopped holder of pages_lock it stays, for an audit. */
void skv_free_run(skv *store, uint32_t page, uint64_t word);
/* Are there `n` free pages in a row that begin before `page`? */
bool skv_gap_below(const skv *store, uint32_t page, uint32_t n);
/* By how many pages the region has to grow for a run of `n` at its end. */
uint32_t skv_pages_to_grow(const skv *store, uint32_t n);

#endif
