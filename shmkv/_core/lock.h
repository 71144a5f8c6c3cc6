/* lock.h: 4-byte locks in the region that name their holder and survive its death.
 *
 * What: a futex word, 0 or {process slot + 1, thread tag, recovering, waiters} (layout.h).
 * How:  free -> held by one CAS.  Who has to wait spins, then sleeps in slices of 20 ms, and
 *       asks before each slice whether the holder is dead; if so it takes the dead slot's
 *       liveness byte, moves the word to its own name with one CAS, repairs what the lock
 *       guards, and only then gives the byte back, so that the slot cannot be registered anew
 *       between question and CAS (model-checked: docs/decisions.md).
 *
 * Concurrency: a thread holds either bucket locks (taken by ascending index) or one of
 * pages_lock, grow_lock, compact_lock; never both kinds (invariant I9).  Nothing is allocated
 * and no Python is called under any of them (I10).
 */
#ifndef SKV_LOCK_H
#define SKV_LOCK_H

#include <stdlib.h>

#include "engine.h"

/* Puts right what the lock guards, after its holder died.  The lock is held by the caller. */
typedef void (*skv_repair)(skv *store, void *guarded);

uint32_t skv_thread_tag(void);
skv_status skv_lock_slow(skv *store, _Atomic uint32_t *lock, skv_wait *wait, skv_repair repair, void *guarded);

/* The slot that our locks name; SKV_NO_PROC while there is none: then none may be taken. */
static inline uint32_t skv_lock_slot(skv *store)
{
    uint32_t slot = skv_load(&store->slot);
    return skv_unlikely(slot == SKV_NO_PROC) ? store->adopting : slot;
}

static inline uint32_t skv_lock_name(skv *store)
{
#ifdef SKV_CRASH_POINTS         /* nobody could take the lock from who dies with it: a caller forgot skv_register */
    if (skv_lock_slot(store) == SKV_NO_PROC)
        abort();
#endif
    return (skv_lock_slot(store) + 1) | skv_thread_tag() << SKV_LOCK_TAG_SHIFT;
}

static inline bool skv_lock_held(const _Atomic uint32_t *lock)
{
    return skv_load(lock) != 0;
}

static inline bool skv_trylock(skv *store, _Atomic uint32_t *lock)
{
    uint32_t expected = 0;
    return atomic_compare_exchange_strong_explicit(lock, &expected, skv_lock_name(store),
                                                   memory_order_acquire, memory_order_relaxed);
}

static inline skv_status skv_lock(skv *store, _Atomic uint32_t *lock, skv_wait *wait, skv_repair repair, void *guarded)
{
    if (skv_likely(skv_trylock(store, lock)))
        return SKV_OK;
    return skv_lock_slow(store, lock, wait, repair, guarded);
}

static inline void skv_unlock(skv *store, _Atomic uint32_t *lock)
{
    uint32_t old = atomic_exchange_explicit(lock, 0, memory_order_release);
    if (skv_unlikely(old & SKV_LOCK_WAITERS))
        store->os.futex_wake(store->os.context, lock);
}

/* This process's turn at its one status word (batch_mutex), which the caller unlocks.  Another thread may have it for as
 * long as that one waits for a lock of the region: so this wait ends with lock_timeout too. */
skv_status skv_turn_take(skv *store, skv_wait *wait);

/* Locks among the threads of one process, for a few instructions: a mutex costs two calls and two atomic
 * operations. */
void skv_lock_local_slow(_Atomic uint32_t *lock);

static inline void skv_lock_local(_Atomic uint32_t *lock)
{
    if (skv_unlikely(atomic_exchange_explicit(lock, 1, memory_order_acquire)))
        skv_lock_local_slow(lock);
}

static inline void skv_unlock_local(_Atomic uint32_t *lock)
{
    skv_store_release(lock, 0);
}

/* If `lock` is held by a dead process: take it over, repair, unlock.  True if it was. */
bool skv_lock_repair_if_dead(skv *store, _Atomic uint32_t *lock, skv_repair repair, void *guarded);
/* The same for a dead slot whose liveness byte the caller already holds. */
bool skv_lock_take_from(skv *store, _Atomic uint32_t *lock, uint32_t dead_slot, skv_repair repair, void *guarded);

#endif
