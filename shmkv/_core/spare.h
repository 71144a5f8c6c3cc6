/* spare.h: the block that an overwrite gave up, kept for the next put of its size class.
 *
 * Why:  a store whose values are overwritten again and again would free a block and allocate another
 *       each time: two atomic operations on bitmaps, and a block whose lines are in no cache.  The
 *       block that was just replaced is warm (its key was compared), and needs neither.
 * How:  one block for each process.  It stays marked as in use, and the process's row names it, so that
 *       an audit does not take it for a leak.  Whoever needs room may take it out of any row, and free it
 *       (skv_spares_free): who gets it out of the row by an exchange owns it.  While an audit runs
 *       (header.auditing), no block is kept or reused: then rows only ever lose their spare, inside an
 *       operation that frees it, and the audit may read a row at any moment of its walk.
 *
 *       Killed after the take, before the publication: the block leaks, as one that was allocated.
 *
 * Concurrency: only threads that hold the GIL (wait->shared is false) keep and take, so there is one at a
 *       time in a process.  The caller is in an operation (skv_busy_enter).
 */
#ifndef SKV_SPARE_H
#define SKV_SPARE_H

#include "alloc.h"
#include "procs.h"

/* A block for a record of `size` bytes, or 0.  What is in the row counts only if it is what was put there. */
static inline uint64_t skv_spare_take(skv *store, uint64_t size, const skv_wait *wait)
{
    uint64_t spare = store->spare;
    if (spare == 0 || wait->shared)
        return 0;
    store->spare = 0;
    /* Acquire: pairs with the release of skv_spare_keep. */
    if (skv_unlikely(atomic_exchange_explicit(&store->proc->spare, 0, memory_order_acq_rel) != spare))
        return 0;
    SKV_CRASH("spare.taken");
    if (skv_likely(store->spare_class == skv_class_of(SKV_RECORDS, size) && !skv_load(&store->header->auditing)))
        return spare;
    skv_free(store, spare);
    return 0;
}

/* Instead of skv_free, for a block that held a record and that nothing names any more. */
static inline void skv_spare_keep(skv *store, uint64_t offset, const skv_wait *wait)
{
    if (skv_likely(!wait->shared && !store->spare && !skv_load(&store->header->auditing))) {
        store->spare_class = skv_class_of_block(store, SKV_RECORDS, offset);
        if (skv_likely(store->spare_class < SKV_UNIT_CLASS)) {
            store->spare = offset;
            skv_store_release(&store->proc->spare, offset);
            SKV_CRASH("spare.kept");
            return;
        }
    }
    skv_free(store, offset);
}

/* Frees the spare block that a process's row names. */
static inline void skv_spare_free(skv *store, skv_proc *proc)
{
    if (skv_load(&proc->spare) == 0)
        return;
    uint64_t spare = atomic_exchange_explicit(&proc->spare, 0, memory_order_acq_rel);
    SKV_CRASH("spare.stolen");
    skv_free(store, spare);
}

static inline void skv_spares_free(skv *store)
{
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++)
        skv_spare_free(store, &store->procs[slot]);
}

#endif
