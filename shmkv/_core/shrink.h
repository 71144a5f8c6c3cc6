/* shrink.h: smaller tables for buckets that have lost most of their items. */
#ifndef SKV_SHRINK_H
#define SKV_SHRINK_H

#include "engine.h"

/* Looks at `count` buckets from `first` on, round the end; the caller may be in an operation.  `*shrunk` (may be NULL):
 * how many tables were replaced.  SKV_FULL: for some there was no room for the smaller table; another error ends the walk. */
skv_status skv_shrink_tables(skv *store, uint64_t first, uint64_t count, uint64_t *shrunk, skv_wait *wait);

#endif
