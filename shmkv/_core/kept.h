/* kept.h: what a process keeps for its next call, and how it goes back: the pages that it leases, and
 * the block of spare.h.
 *
 * Why:  a process that ends without closing leaves them.  Its row may wait for long until somebody
 *       needs it, and 10,000 workers that each write once would make the store grow by all of them.
 * How:  whoever registers, and whoever is about to make the region grow, gives back what the dead
 *       keep.  That takes a look at the kinds of the pages and at the rows, and a question for each
 *       process that keeps something; the buckets, which may be many, wait for the reclaim of the row.
 *
 *       Killed in between: a spare block that was taken out of its row leaks, and a page that has lost
 *       its owner keeps the wrong kind until the caller's own row is reclaimed (skv_pages_disown).
 *
 * Concurrency: any thread that holds no lock and is in no operation.  Of each dead process the liveness
 *       byte is held meanwhile, so that its row is nobody else's.
 */
#ifndef SKV_KEPT_H
#define SKV_KEPT_H

#include "engine.h"

/* Of this process, which may go on and keep something again. */
void skv_kept_return(skv *store);

/* Of all processes that are known to be dead: true if there was something.  The caller is registered. */
bool skv_kept_return_of_dead(skv *store);

#endif
