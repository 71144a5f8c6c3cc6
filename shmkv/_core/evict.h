/* evict.h: dropping items to make room, in stores that may. */
#ifndef SKV_EVICT_H
#define SKV_EVICT_H

#include "engine.h"

/* Drops about `bytes` of items, those first that nobody reads; *items: how many.  What was written while the last tenth of
 * the store's size was written stays, unless there is nothing else.  An error is the log's, of a durable store: what could
 * not be written there stays. */
skv_status skv_evict_some(skv *store, uint64_t bytes, skv_wait *wait, uint64_t *items);

#endif
