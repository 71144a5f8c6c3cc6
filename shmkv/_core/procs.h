/* procs.h: the process table: registration, counters, operations in flight.
 *
 * Concurrency: a row belongs to the process that holds its liveness byte.  A row is given to
 * another process only after a sweep found no lock, intent or page of the dead one (I7).
 */
#ifndef SKV_PROCS_H
#define SKV_PROCS_H

#include "engine.h"

static inline bool skv_is_registered(const skv *store)
{
    return skv_load_acquire(&store->slot) != SKV_NO_PROC;
}

/* `shared`: the caller does not hold the GIL, so another thread may add at the same time. */
static inline void skv_count(skv *store, enum skv_counter which, uint64_t n, bool shared)
{
    skv_proc *proc = store->proc;
    if (shared)
        atomic_fetch_add_explicit(&proc->shared_counters[which], n, memory_order_relaxed);
    else
        skv_store(&proc->counters[which], skv_load(&proc->counters[which]) + n);
}

/* Announces an operation that may hold blocks which no slot names yet.  An audit first moves
 * the epoch on and then waits for the count of the old parity to drain; reading the epoch again
 * after the add makes sure that it waits for us.  (After McKenney's SRCU.) */
#define SKV_BUSY_SHARED 2u      /* beside the parity, in what skv_busy_enter returns          */

static inline void skv_busy_exit(skv *store, uint32_t entered)
{
    skv_proc *proc = store->proc;
    if (entered & SKV_BUSY_SHARED)
        atomic_fetch_sub_explicit(&proc->busy[entered & 1], 1, memory_order_release);
    else
        skv_store_release(&proc->alone[entered & 1], 0);
}

/* Without `shared`, as in skv_count: then the caller is in no other operation, and leaves with a plain store. */
static inline uint32_t skv_busy_enter(skv *store, bool shared)
{
    skv_proc *proc = store->proc;
    for (;;) {
        uint64_t epoch = skv_load_acquire(&store->header->epoch);
        uint32_t entered = (uint32_t)(epoch & 1) | (shared ? SKV_BUSY_SHARED : 0);
        if (shared) {
            atomic_fetch_add_explicit(&proc->busy[entered & 1], 1, memory_order_seq_cst);
        } else {
            uint32_t inside = atomic_exchange_explicit(&proc->alone[entered & 1], 1, memory_order_seq_cst);
            assert(!inside);
            (void)inside;
        }
        if (skv_likely(atomic_load_explicit(&store->header->epoch, memory_order_seq_cst) == epoch))
            return entered;
        skv_busy_exit(store, entered);
    }
}

/* A row in use whose process has not ended, as far as is known. */
static inline bool skv_is_living(const skv *store, uint32_t slot)
{
    if (skv_load_acquire(&store->procs[slot].state) != SKV_PROC_USED)       /* pairs with registration */
        return false;
    return slot == skv_load(&store->slot) || !store->os.lives || store->os.lives(store->os.context, slot);
}

/* True when every operation of a live process that had begun before the call has ended; waits at
 * most `timeout_ms`.  The caller holds compact_lock and is in no operation itself. */
bool skv_grace_period(skv *store, uint32_t timeout_ms);

#endif
