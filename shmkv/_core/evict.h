/* evict.h: dropping items to make room, in stores that may. */
#ifndef SKV_EVICT_H
#define SKV_EVICT_H

#include "engine.h"

/* Drops about `bytes` of items, those first that nobody reads; how many items.  What was written while the last tenth of the
 * store's size was written stays, unless there is nothing else. */
uint64_t skv_evict_some(skv *store, uint64_t bytes);

#endif
