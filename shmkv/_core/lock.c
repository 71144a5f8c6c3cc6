/* lock.c: waiting for a lock, and taking it from a dead holder.  See lock.h. */
#include "lock.h"

#include <time.h>
#include <unistd.h>

#include "journal.h"
#include "procs.h"

#define SPINS         128u      /* about a microsecond, the length of a contended put         */
#define SLICE_MS      20u

uint64_t skv_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* The tag only helps a person who looks at a stuck lock; it takes no part in the protocol. */
uint32_t skv_thread_tag(void)
{
    static _Thread_local uint32_t tag;
    if (skv_unlikely(tag == 0))
        tag = (uint32_t)gettid() & SKV_LOCK_TAG_MASK;
    return tag;
}

static bool try_swap(_Atomic uint32_t *lock, uint32_t from, uint32_t to)
{
    return atomic_compare_exchange_strong_explicit(lock, &from, to, memory_order_acquire, memory_order_relaxed);
}

static bool spin_for(skv *store, _Atomic uint32_t *lock)
{
    for (uint32_t i = 0; i < SPINS; i++) {
        if (skv_load(lock) == 0 && skv_trylock(store, lock))
            return true;
        skv_pause();
    }
    return false;
}

/* Naps, because the holder may have lost the processor to this very thread. */
void skv_lock_local_slow(_Atomic uint32_t *lock)
{
    const struct timespec nap = {0, 50000};
    for (uint32_t tries = 1; skv_load(lock) || atomic_exchange_explicit(lock, 1, memory_order_acquire); tries++) {
        if (tries % SPINS)
            skv_pause();
        else
            nanosleep(&nap, NULL);
    }
}

/* By the wall clock, which may be set meanwhile: in slices. */
static bool take_turn_within(pthread_mutex_t *mutex, uint32_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return pthread_mutex_timedlock(mutex, &until) == 0;
}

skv_status skv_turn_take(skv *store, skv_wait *wait)
{
    if (pthread_mutex_trylock(&store->batch_mutex) == 0)
        return SKV_OK;
    if (!wait->block)
        return SKV_BUSY;
    if (wait->timeout_ns && !wait->deadline_ns)
        wait->deadline_ns = skv_monotonic_ns() + wait->timeout_ns;
    while (!take_turn_within(&store->batch_mutex, SLICE_MS))
        if (wait->deadline_ns && skv_monotonic_ns() >= wait->deadline_ns) {
            wait->blamed_slot = (skv_load(&store->header->log.lock) & SKV_LOCK_OWNER_MASK) - 1;
            return SKV_TIMEOUT;
        }
    return SKV_OK;
}

bool skv_lock_take_from(skv *store, _Atomic uint32_t *lock, uint32_t dead_slot, skv_repair repair, void *guarded)
{
    uint32_t word = skv_load(lock), mine;
    do {                        /* others may begin to wait meanwhile, which changes a bit of the word */
        if ((word & SKV_LOCK_OWNER_MASK) != dead_slot + 1)
            return false;
        mine = skv_lock_name(store) | SKV_LOCK_RECOVERING | (word & SKV_LOCK_WAITERS);
        SKV_CRASH("repair.seen");
    } while (!atomic_compare_exchange_weak_explicit(lock, &word, mine, memory_order_acquire, memory_order_relaxed));
    SKV_CRASH("repair.taken");
    if (repair)
        repair(store, guarded);
    atomic_fetch_and_explicit(lock, ~SKV_LOCK_RECOVERING, memory_order_relaxed);
    SKV_CRASH("repair.done");
    return true;
}

/* On success the lock is held and repaired. */
static bool take_if_dead(skv *store, _Atomic uint32_t *lock, uint32_t word, skv_repair repair, void *guarded)
{
    uint32_t owner = (word & SKV_LOCK_OWNER_MASK) - 1;
    if (owner >= SKV_PROCS || owner == skv_lock_slot(store) || skv_lock_slot(store) == SKV_NO_PROC)
        return false;
    /* What a dead process was writing to the log is decided before the buckets that it is about. */
    if (store->journal && lock != &store->header->log.lock)
        skv_journal_repair_if_dead(store);
    if (!store->os.claim_dead(store->os.context, owner))
        return false;
    bool taken = skv_lock_take_from(store, lock, owner, repair, guarded);
    store->os.release_dead(store->os.context, owner);
    return taken;
}

bool skv_lock_repair_if_dead(skv *store, _Atomic uint32_t *lock, skv_repair repair, void *guarded)
{
    uint32_t word = skv_load(lock);
    if (word == 0 || !take_if_dead(store, lock, word, repair, guarded))
        return false;
    skv_unlock(store, lock);
    return true;
}

/* Sleeps until the lock changes, a slice passes or the deadline comes. */
static void sleep_for(skv *store, _Atomic uint32_t *lock, uint32_t word, const skv_wait *wait, uint64_t now)
{
    uint32_t ms = SLICE_MS;
    if (wait->deadline_ns && wait->deadline_ns > now && (wait->deadline_ns - now) / 1000000 < ms)
        ms = (uint32_t)((wait->deadline_ns - now) / 1000000) + 1;
    store->os.futex_wait(store->os.context, lock, word, ms);
}

skv_status skv_lock_slow(skv *store, _Atomic uint32_t *lock, skv_wait *wait, skv_repair repair, void *guarded)
{
    if (spin_for(store, lock))
        return SKV_OK;
    if (!wait->block)
        return SKV_BUSY;
    skv_count(store, SKV_LOCK_WAITS, 1, wait->shared);
    uint64_t start = skv_monotonic_ns(), now = start;
    if (wait->timeout_ns && !wait->deadline_ns)
        wait->deadline_ns = start + wait->timeout_ns;
    uint32_t waited = 0;        /* whoever slept must leave the waiters bit: others may sleep too */
    for (;;) {
        uint32_t word = skv_load(lock);
        if (word == 0) {
            if (try_swap(lock, 0, skv_lock_name(store) | waited))
                return SKV_OK;
            continue;
        }
        if (take_if_dead(store, lock, word, repair, guarded))
            return SKV_OK;
        if (wait->deadline_ns && now >= wait->deadline_ns) {
            wait->blamed_slot = (word & SKV_LOCK_OWNER_MASK) - 1;
            return SKV_TIMEOUT;
        }
        if (now - start >= SLICE_MS * UINT64_C(1000000))
            return SKV_BUSY;
        if ((word & SKV_LOCK_WAITERS) || try_swap(lock, word, word | SKV_LOCK_WAITERS)) {
            sleep_for(store, lock, word | SKV_LOCK_WAITERS, wait, now);
            waited = SKV_LOCK_WAITERS;
        }
        now = skv_monotonic_ns();
    }
}
