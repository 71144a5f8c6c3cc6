/* slide.h: short gaps joined, while there still is one that is long enough to move things through. */
#ifndef SKV_SLIDE_H
#define SKV_SLIDE_H

#include "pages.h"

/* Before a run of `n` pages is taken.  If only one gap is so long, and the others together make up for another, moves
 * what lies between gaps down.  SKV_BUSY: that is due, and `wait` does not allow it. */
skv_status skv_join_gaps(skv *store, uint32_t n, skv_wait *wait);

#endif
