/* ghost.h: which keys an evicting store has dropped lately.
 *
 * Why:  an item that comes back soon after it was dropped unread is read now and then, though never in the time that new
 *       ones are given; without a memory of it a working set that is read in turns would never get in.  (After the ghost
 *       queue of S3-FIFO, Yang et al. 2023.)
 * How:  a slot that is not live has no use for its word B: it takes five fingerprints of 12 bits, the low bits of tags.
 *       A key's fingerprint lies in any such slot of the 32 that its home is among.  A fifth of the slots at the least are
 *       free, so about as many keys are remembered as there are items.  When an item takes such a slot its fingerprints move
 *       to others of the 32, where there is room; a new table takes them along.
 *
 *       All of it is hints.  A wrong one keeps an item longer than it deserves: one in a hundred.
 *
 * Concurrency: with the bucket's lock held.
 */
#ifndef SKV_GHOST_H
#define SKV_GHOST_H

#include "table.h"

void skv_ghost_add_locked(skv_slot *slots, uint64_t capacity, uint32_t tag);
/* Was this key dropped lately?  The slot `at` is about to hold it: what that remembers goes elsewhere. */
bool skv_ghost_recall_locked(skv_slot *slots, uint64_t capacity, uint32_t tag, uint64_t at);
/* Takes all along into a table that has just been filled. */
void skv_ghost_copy_locked(const skv_slot *from, uint64_t old_capacity, skv_slot *to, uint64_t capacity);

#endif
