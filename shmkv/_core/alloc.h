/* alloc.h: blocks of any size: what records, tables and intents are allocated with.
 *
 * Concurrency: neither must be called with a bucket's lock held (I9).
 */
#ifndef SKV_ALLOC_H
#define SKV_ALLOC_H

#include "pages.h"

/* How hard skv_alloc tries: FILL takes only what is free in pages of the class (or, for a run, among
 * free pages); SPREAD also takes free pages; MOVE also grows the region, evicts and evacuates. */
enum skv_effort { SKV_FILL, SKV_SPREAD, SKV_MOVE };

skv_status skv_alloc(skv *store, enum skv_family family, uint64_t size, enum skv_effort effort, skv_wait *wait, uint64_t *offset);
void skv_free(skv *store, uint64_t offset);
/* The same for many, cache misses overlapped. */
void skv_free_many(skv *store, const uint64_t *offsets, uint32_t count);

#endif
