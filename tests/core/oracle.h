/* oracle.h: what a store may answer, whoever was killed when.
 *
 * What: a track is the history of one subject (a key, a group of keys that are written together, a counter), of which
 *       the last steps are kept.  Steps are numbered from 1; step n of a subject is the same whoever makes it: whether
 *       it removes or writes, and with which length, follows from the subject's number and n.  The value holds n.
 * How:  whoever makes a step notes it before the call (`begun`) and after it (`done`), in memory that outlives it.  So
 *       who reads the floor `done`, then the store, then the ceiling `begun`, has to find a step from floor to ceiling:
 *       none older, for that was replaced by a call that had returned; none newer, for nobody had begun to write it.
 *
 * Concurrency: one lane at a time makes the steps of a subject; anybody may judge.
 */
#ifndef SKV_TEST_ORACLE_H
#define SKV_TEST_ORACLE_H

#include "storm.h"

typedef struct track {
    _Atomic uint64_t done;      /* last step that is known to have taken effect; 0 = none yet  */
    _Atomic uint64_t begun;     /* last step that was begun                                    */
} track;

/* Does step `n` of the subject remove it?  One in five does; before the first step there is nothing. */
static inline bool removes(uint64_t subject, uint64_t n)
{
    return n == 0 || mix64(subject * UINT64_C(0x9e3779b97f4a7c15) + n) % 5 == 0;
}

/* What is seen after step n: n, or 0 = absent. */
static inline uint64_t effect(uint64_t subject, uint64_t n)
{
    return removes(subject, n) ? 0 : n;
}

static inline bool absent_between(uint64_t subject, uint64_t floor, uint64_t ceiling)
{
    for (uint64_t n = floor; n <= ceiling; n++)
        if (removes(subject, n))
            return true;
    return false;
}

/* Judges a read; `lossy`: what was there may have been evicted. */
static inline void judge_read(uint64_t subject, uint64_t floor, uint64_t seen, const track *t, bool lossy)
{
    uint64_t ceiling = atomic_load(&t->begun);
    bool fine = seen >= floor && seen <= ceiling && !removes(subject, seen);
    if (seen == 0)
        fine = lossy || absent_between(subject, floor, ceiling);
    REQUIRE(fine, "key %" PRIu64 ": read step %" PRIu64 " while %" PRIu64 " was done before and %" PRIu64 " begun",
            subject, seen, floor, ceiling);
}

static inline uint64_t begin_step(track *t)
{
    uint64_t n = atomic_load(&t->begun) + 1;
    atomic_store(&t->begun, n);
    return n;
}

/* After a death, when nobody else makes steps: the step in flight has happened or it has not, and stays so. */
static inline void settle(track *t, uint64_t subject, uint64_t seen, bool lossy, const char *when)
{
    uint64_t done = atomic_load(&t->done), begun = atomic_load(&t->begun);
    REQUIRE(seen == effect(subject, done) || seen == effect(subject, begun) || (lossy && seen == 0),
            "key %" PRIu64 " %s: holds step %" PRIu64 ", %" PRIu64 " was acknowledged, %" PRIu64 " begun", subject,
            when, seen, done, begun);
    if (seen == 0 || seen == begun)
        atomic_store(&t->done, lossy || removes(subject, begun) || seen == begun ? begun : done);
}

/* ---- Counters that many lanes add to ---------------------------------------------------------- */

typedef struct toll {           /* of one lane                                                 */
    track additions;
    _Atomic uint64_t doubtful;  /* additions that a kill interrupted                           */
} toll;

static inline void settle_toll(toll *t)
{
    uint64_t done = atomic_load(&t->additions.done), begun = atomic_load(&t->additions.begun);
    atomic_fetch_add(&t->doubtful, begun - done);
    atomic_store(&t->additions.begun, done);
}

static inline uint64_t least_toll(const toll *t) { return atomic_load(&t->additions.done); }
static inline uint64_t most_toll(const toll *t) { return atomic_load(&t->additions.begun) + atomic_load(&t->doubtful); }

#endif
