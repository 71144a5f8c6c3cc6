/* grow.h: memory that pages get from the system, and give back to it. */
#ifndef SKV_GROW_H
#define SKV_GROW_H

#include "engine.h"

/* The region grows by `pages` at least; SKV_FULL if it has its full size. */
skv_status skv_grow(skv *store, uint32_t pages, skv_wait *wait);

/* Marks free pages, so that they are committed before their next use (the caller is alone); how many. */
uint32_t skv_mark_free_pages(skv *store, skv_wait *wait);
/* Gives the memory of all marked pages back to the system.  Killed in between, it is given back by the next one. */
bool skv_punch_marked_pages(skv *store, skv_wait *wait);
/* Gets the memory of up to `n` such pages back, from the lowest on; SKV_OK if it was one at least, SKV_FULL if
 * there is none. */
skv_status skv_unpunch(skv *store, uint32_t n, skv_wait *wait);

#endif
