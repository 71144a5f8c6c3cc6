/* storm.h: what the test programs with many processes share: fair clocks, and snapshots of several keys.
 *
 * How:  the time for which a process could run and no processor was free (/proc/self/schedstat) is the machine's, not
 *       the store's: a watch takes it off.
 *
 * Concurrency: one thread of a process has a watch; snapshots may be taken by any.
 */
#ifndef SKV_TEST_STORM_H
#define SKV_TEST_STORM_H

#include "util.h"

static inline void note_longest(_Atomic uint64_t *longest, uint64_t ns)
{
    uint64_t seen = atomic_load(longest);
    while (ns > seen && !atomic_compare_exchange_weak(longest, &seen, ns))
        continue;
}

/* Nanoseconds for which this process was ready to run, and did not. */
static inline uint64_t queue_ns(void)
{
    static int fd = -1;
    static pid_t owner;
    char text[80];
    if (owner != getpid()) {            /* /proc/self is who opened it                         */
        fd = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
        owner = getpid();
    }
    ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    const char *second = strchr(text, ' ');
    return second ? strtoull(second, NULL, 10) : 0;
}

/* The time of one operation, without what the machine took.  The file is read now and then only. */
typedef struct watch {
    uint64_t start, looked_at, queue;
    uint64_t suspicious_ns;             /* shorter times are believed as they are; 0 = 10 ms   */
    _Atomic uint64_t *longest_queue_ns; /* where the longest wait for a processor is noted     */
} watch;

static inline void watch_start(watch *w)
{
    w->start = skv_os_monotonic_ns();
    if (w->start - w->looked_at > 5000000) {
        w->looked_at = w->start;
        w->queue = queue_ns();
        w->start = skv_os_monotonic_ns();
    }
}

static inline uint64_t watch_stop(watch *w)
{
    uint64_t took = skv_os_monotonic_ns() - w->start;
    if (took < (w->suspicious_ns ? w->suspicious_ns : 10000000))
        return took;
    uint64_t queued = queue_ns() - w->queue;
    if (w->longest_queue_ns)
        note_longest(w->longest_queue_ns, queued);
    return took > queued ? took - queued : 0;
}

/* ---- Snapshots ------------------------------------------------------------------------------ */

#define SNAPSHOT_KEYS 16u

/* Called between the steps of a snapshot, where readers pass no crash points. */
UNUSED static void (*snapshot_pause)(void);

static inline void between_steps(void)
{
    if (snapshot_pause)
        snapshot_pause();
}

/* Copies of the keys ids[0], ids[1], ... as they were at one instant, taken as get_many does. */
static inline void snapshot(skv *s, const uint64_t *ids, uint32_t count, found *copies)
{
    key_text texts[SNAPSHOT_KEYS];
    skv_key keys[SNAPSHOT_KEYS];
    skv_view views[SNAPSHOT_KEYS];
    REQUIRE(count <= SNAPSHOT_KEYS, "%u keys", count);
    for (uint32_t i = 0; i < count; i++)
        keys[i] = key_for(s, ids[i], &texts[i]);
    for (uint32_t tries = 0;; tries++) {
        skv_frozen *frozen = tries > SKV_READ_TRIES ? skv_freeze(s, keys, count) : NULL;
        bool good = true;
        skv_find_many(s, keys, views, count);
        between_steps();
        for (uint32_t i = 0; i < count && good; i++)
            good = copy_view(&views[i], &copies[i]);
        between_steps();
        good = good && skv_validate_many(s, keys, views, count);
        skv_thaw(s, frozen);
        if (good)
            break;
        REQUIRE(tries < 1000000, "a snapshot is overtaken for ever");
        skv_relax(s, &views[0], tries);
    }
    for (uint32_t i = 0; i < count; i++)
        copies[i].there = copies[i].there && !skv_is_expired(s, copies[i].expires_ms);
}

#endif
