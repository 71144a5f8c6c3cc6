/* procs.c: registration, reclaim of dead rows, grace periods.  See procs.h. */
#include "procs.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

#include "journal.h"
#include "kept.h"
#include "lock.h"
#include "pages.h"
#include "repair.h"
#include "spare.h"

/* The spare block of the dead process that had the row before goes back in an operation of ours, as an audit waits for
 * it; and before another thread may keep one, as a row names one only. */
static void free_inherited_spare(skv *store)
{
    uint32_t busy = skv_busy_enter(store, true);
    skv_spare_free(store, store->proc);
    skv_busy_exit(store, busy);
}

/* A batch generation is never reused within a row, whatever process has it. */
static void start_row(skv *store, uint32_t slot)
{
    skv_proc *proc = &store->procs[slot];
    store->adopting = slot;     /* for the locks that are needed before the row is published  */
    atomic_fetch_add_explicit(&proc->generation, 1, memory_order_relaxed);
    uint32_t pid;
    uint64_t start_time, pid_namespace;
    store->os.identify(store->os.context, &pid, &start_time, &pid_namespace);
    skv_store(&proc->pid, pid);
    skv_store(&proc->start_time, start_time);
    skv_store(&proc->pid_namespace, pid_namespace);
    skv_store(&proc->busy[0], 0);
    skv_store(&proc->busy[1], 0);
    skv_store(&proc->alone[0], 0);
    skv_store(&proc->alone[1], 0);
    SKV_CRASH("register.filled");
    skv_store_release(&proc->state, SKV_PROC_USED);
    store->proc = proc;
    free_inherited_spare(store);
    SKV_CRASH("register.inherited");
    skv_store_release(&store->slot, slot);
    store->adopting = SKV_NO_PROC;
}

static bool sweep_dead(skv *store, uint32_t slot);

/* *refused: there was a free row, but it could not be claimed. */
static bool take_free_row(skv *store, bool *refused)
{
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++) {
        skv_proc *proc = &store->procs[slot];
        if (skv_load_acquire(&proc->state) != SKV_PROC_FREE)
            continue;
        *refused = !store->os.claim_own(store->os.context, slot);
        if (*refused)
            continue;
        if (skv_load_acquire(&proc->state) == SKV_PROC_FREE) {
            SKV_CRASH("register.claimed");
            start_row(store, slot);
            return true;
        }
        /* Somebody had it, registered and died in between: the byte is ours, the row is not
         * swept.  claim_own of the next slot gives this byte back. */
    }
    return false;
}

/* The table is full: a dead row becomes ours before it is swept, so that the locks that are taken over
 * for its repair name somebody whose death can be told. */
static bool adopt_dead_row(skv *store)
{
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++) {
        if (!store->os.claim_own(store->os.context, slot))
            continue;
        store->adopting = slot;
        bool clean = skv_load_acquire(&store->procs[slot].state) == SKV_PROC_FREE || sweep_dead(store, slot);
        if (clean)
            start_row(store, slot);
        store->adopting = SKV_NO_PROC;
        if (clean)
            return true;
    }
    return false;
}

static skv_status register_locked(skv *store)
{
    if (skv_is_registered(store))
        return SKV_OK;
    bool refused = false;
    if (take_free_row(store, &refused))
        return SKV_OK;
    int error = errno;
    if (adopt_dead_row(store))
        return SKV_OK;
    /* Not the table is full, but this process lacks a descriptor or a mapping: errno tells. */
    errno = error;
    if (refused && (error == EACCES || error == EPERM || error == ENOENT))
        return SKV_FORKED;      /* had it been able to open the object, it would have a row   */
    return refused ? SKV_OS_ERROR : SKV_NO_SLOT;
}

skv_status skv_register(skv *store)
{
    if (store->read_only)
        return SKV_READ_ONLY;
    if (skv_likely(skv_is_registered(store)))
        return SKV_OK;
    pthread_mutex_lock(&store->register_mutex);
    bool is_new = !skv_is_registered(store);
    skv_status status = register_locked(store);
    pthread_mutex_unlock(&store->register_mutex);
    if (is_new && status == SKV_OK)     /* workers come and go: what those before kept is enough for those after */
        skv_kept_return_of_dead(store);
    return status;
}

static void free_lock_of_dead(skv *store, _Atomic uint32_t *lock, uint32_t slot, skv_repair repair)
{
    if (skv_lock_take_from(store, lock, slot, repair, NULL))
        skv_unlock(store, lock);
}

/* The row forgets it first: whoever dies in between leaves a leak, and not a block that is freed twice. */
static void free_spare_of_dead(skv *store, skv_proc *proc)
{
    if (!skv_is_registered(store))      /* about to adopt the row, and what it names with it: see start_row */
        return;
    uint32_t busy = skv_busy_enter(store, true);
    skv_spare_free(store, proc);
    skv_busy_exit(store, busy);
}

/* Walks all that a dead process may hold; the caller holds its liveness byte.  False: a bucket
 * still reads through its intent, behind the lock of another repairer; the row must stay. */
static bool sweep_dead(skv *store, uint32_t slot)
{
    skv_journal_repair_of(store, slot);
    if (!skv_journal_is_done_with(store, slot))
        return false;
    free_lock_of_dead(store, &store->header->pages_lock, slot, skv_repair_pages);
    free_lock_of_dead(store, &store->header->grow_lock, slot, NULL);
    free_lock_of_dead(store, &store->header->compact_lock, slot, skv_repair_compaction);
    bool clean = true;
    for (uint64_t i = 0; i < store->bucket_count; i++)
        clean &= skv_sweep_bucket_of_dead(store, &store->buckets[i], slot);
    if (!clean)
        return false;
    SKV_CRASH("reclaim.repaired");
    skv_pages_disown(store, slot);
    SKV_CRASH("reclaim.disowned");
    skv_proc *proc = &store->procs[slot];
    free_spare_of_dead(store, proc);
    /* Idle first: a batch in flight has an intent.  Its block is a leak now, found by the next audit. */
    skv_store_release(&proc->status, (skv_load(&proc->status) | 3) + 1);
    SKV_CRASH("reclaim.idle");
    skv_store(&proc->intent, 0);
    atomic_fetch_add_explicit(&store->header->deaths, 1, memory_order_relaxed);
    skv_store_release(&proc->state, SKV_PROC_FREE);
    return true;
}

static bool reclaim_row(skv *store, uint32_t slot)
{
    if (skv_load_acquire(&store->procs[slot].state) != SKV_PROC_USED)
        return false;
    /* The log's lock may have gone from this row to a repairer that is dead as well. */
    skv_journal_repair_if_dead(store);
    if (!store->os.claim_dead(store->os.context, slot))
        return false;
    bool done = skv_load_acquire(&store->procs[slot].state) == SKV_PROC_USED && sweep_dead(store, slot);
    store->os.release_dead(store->os.context, slot);
    return done;
}

/* Repairs take locks, and a lock must name its holder: so register first. */
skv_status skv_reclaim_dead(skv *store, uint32_t *slots)
{
    skv_status status = skv_register(store);
    if (status)
        return status;
    uint32_t total = 0, done;
    uint32_t mine = skv_load(&store->slot);
    do {        /* a dead repairer's row may have to go before the row that it was repairing   */
        done = 0;
        for (uint32_t slot = 0; slot < SKV_PROCS; slot++)
            if (slot != mine && reclaim_row(store, slot))
                done++;
        total += done;
    } while (done && total < SKV_PROCS);
    if (slots)
        *slots = total;
    return SKV_OK;
}

/* ---- Grace periods ---------------------------------------------------------------------------- */

/* A dead process is in no operation once what it held is repaired; not before, because its last commit may
 * lack the bump.  Both loads are seq_cst, as are the add and the load in skv_busy_enter: either they see our
 * epoch, or we see them. */
static bool row_drained(skv *store, uint32_t slot, uint32_t parity)
{
    skv_proc *proc = &store->procs[slot];
    if (atomic_load_explicit(&proc->state, memory_order_seq_cst) != SKV_PROC_USED
        || (atomic_load_explicit(&proc->busy[parity], memory_order_seq_cst) == 0
            && atomic_load_explicit(&proc->alone[parity], memory_order_seq_cst) == 0))
        return true;
    return slot != skv_load(&store->slot) && reclaim_row(store, slot);
}

static bool wait_for_parity(skv *store, uint64_t deadline)
{
    uint64_t old = atomic_fetch_add_explicit(&store->header->epoch, 1, memory_order_seq_cst);
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++) {
        while (!row_drained(store, slot, (uint32_t)(old & 1))) {
            if (skv_monotonic_ns() >= deadline)
                return false;
            const struct timespec nap = {0, 50000};
            nanosleep(&nap, NULL);
        }
    }
    return true;
}

/* Both parities: the grace period before this one may have ended in vain, or its caller may have died in it, and
 * then operations of its parity are still in flight. */
bool skv_grace_period(skv *store, uint32_t timeout_ms)
{
    uint64_t deadline = skv_monotonic_ns() + timeout_ms * UINT64_C(1000000);
    return wait_for_parity(store, deadline) && wait_for_parity(store, deadline);
}
