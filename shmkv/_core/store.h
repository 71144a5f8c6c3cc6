/* store.h: the engine's whole surface, for the binding and for the C tests.
 *
 * What: open a region that lies in memory, read and write items in it.
 * How:  reads are `static inline` in read.h and never wait; writes are in store.c (one key) and
 *       batch.c (many); sizes, growth and housekeeping in pages.c, compact.c, sweep.c.
 *
 * Concurrency: every function may be called by any number of threads of any number of
 * processes at once, unless it says otherwise.  None calls Python.  A function that takes a
 * `skv_wait` and would have to wait longer than a short spin returns SKV_BUSY when
 * `wait->block` is false, with nothing changed; with `block` true it waits at most one slice
 * (20 ms) at a time and also returns SKV_BUSY after it, holding nothing, so that the caller
 * can handle signals and call again.  It returns SKV_TIMEOUT once `timeout_ns` have passed
 * since it first slept: a call that need not sleep asks for no time.
 */
#ifndef SKV_STORE_H
#define SKV_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "status.h"

typedef struct skv skv;         /* one region in one process; engine.h has its inside        */

/* ---- Waiting -------------------------------------------------------------------------- */

typedef struct skv_wait {
    bool     block;             /* false: the caller holds the GIL                            */
    bool     shared;            /* true: the GIL is not held, count with atomic adds          */
    bool     stable;            /* a durable store: return when the change is on stable storage */
    uint64_t timeout_ns;        /* for all calls with this wait together; 0 = none            */
    uint64_t deadline_ns;       /* CLOCK_MONOTONIC; 0 = set by the first call that sleeps     */
    uint32_t blamed_slot;       /* out, with SKV_TIMEOUT: process slot of the lock's holder, or SKV_NO_PROC */
} skv_wait;

/* ---- The outside world, given to the engine (os.c gives the real one) ------------------ */

typedef struct skv_os {
    void *context;
    /* Allocates and populates [offset, offset + len) of the region: SKV_OK, SKV_NO_SPACE, SKV_CGROUP_FULL, SKV_OS_ERROR. */
    skv_status (*commit)(void *context, uint64_t offset, uint64_t len);
    /* Gives the memory of [offset, offset + len) back; only while `alone` holds. */
    void (*punch)(void *context, uint64_t offset, uint64_t len);
    /* Asks for huge pages in [offset, offset + len), multiples of 2 MiB; may be NULL, may do nothing. */
    void (*gather)(void *context, uint64_t offset, uint64_t len);
    /* True, and held until `release_alone`, if no other process is attached, read-only ones included. */
    bool (*acquire_alone)(void *context);
    void (*release_alone)(void *context);
    uint64_t (*now_ms)(void *context);                  /* CLOCK_BOOTTIME                     */
    uint64_t (*wall_ms)(void *context);                 /* CLOCK_REALTIME                     */
    /* This process, for its row of the process table: see skv_proc. */
    void (*identify)(void *context, uint32_t *pid, uint64_t *start_time, uint64_t *pid_namespace);
    void (*futex_wait)(void *context, _Atomic uint32_t *word, uint32_t expected, uint32_t timeout_ms);
    void (*futex_wake)(void *context, _Atomic uint32_t *word);
    void (*futex_wake_all)(void *context, _Atomic uint32_t *word);
    void (*pause)(void *context);                            /* for some 50 us                     */
    /* Takes and keeps the liveness byte of `slot`: false if its process lives (or that is not known). */
    bool (*claim_dead)(void *context, uint32_t slot);
    void (*release_dead)(void *context, uint32_t slot);
    /* Does the process of `slot` live?  True also if that is not known.  NULL: all do. */
    bool (*lives)(void *context, uint32_t slot);
    /* Registers: takes the liveness byte of `slot` for this process's life. */
    bool (*claim_own)(void *context, uint32_t slot);
} skv_os;

/* ---- Life of a region ------------------------------------------------------------------ */

typedef struct skv_params {
    uint64_t size;              /* bytes, >= SKV_MIN_SIZE                                     */
    uint16_t flags;             /* enum skv_store_flag                                        */
    uint32_t mode, uid;
    uint8_t  uuid[16], boot_id[16], log_uuid[16];
    uint64_t hash_seed, created_boot_ms, created_wall_ms, time_namespace;
} skv_params;

/* Fills `fixed` (checksum included) for a store of these parameters; no memory is touched. */
skv_status skv_plan(const skv_params *params, skv_fixed *fixed);
/* Bytes from the start that skv_format writes: they must be committed (allocated, zeroed). */
uint64_t skv_fixed_areas_size(const skv_fixed *fixed);
/* Lays a store out in zeroed, committed memory.  Idempotent: a creator that died is repeated. Publishes READY last. */
void skv_format(void *base, const skv_fixed *fixed);
/* Are these header bytes those of a store that this engine can use?  SKV_OK, SKV_CORRUPT, SKV_VERSION. */
skv_status skv_check_fixed(const skv_fixed *fixed, uint64_t mapped_size);
/* Opens a formatted region of `fixed->size` bytes at `base`.  `fixed` is copied: nothing immutable is ever read from the region again. */
skv_status skv_open(void *base, const skv_fixed *fixed, bool read_only, const skv_os *os, skv **out);
/* Registers this process if it is not yet (SKV_OK at once if it is).  Every write does it by itself. */
skv_status skv_register(skv *store);
/* Gives back leases and the process slot, frees `store`.  No other thread may be inside. */
void skv_close(skv *store);
/* In a forked child: forget slot, leases and local locks of the parent.  Called by os.c's pthread_atfork handler. */
void skv_after_fork(skv *store);
/* False once its memory was taken away by somebody who shortened or emptied the object: nothing in it counts. */
bool skv_is_whole(const skv *store);
const skv_fixed *skv_fixed_of(const skv *store);
/* For tests: this process sees `now_ms` instead of the clock; 0 = the clock again. */
void skv_set_clock(skv *store, uint64_t now_ms);
/* For tests: what a durable store takes for the time of day. */
void skv_set_wall_clock(skv *store, uint64_t now_ms);
uint64_t skv_now_ms(const skv *store);

/* ---- Keys ------------------------------------------------------------------------------ */

typedef struct skv_key {
    const void *data;
    uint32_t len;               /* <= SKV_MAX_KEY                                             */
    bool     is_bytes;          /* "a" and b"a" are two keys                                  */
    uint64_t hash;              /* from skv_hash_key                                          */
} skv_key;

/* read.h has the inline skv_hash_key(store, data, len, is_bytes). */

/* ---- Reading (inline in read.h) --------------------------------------------------------- */

/* What a lookup found: valid to use only after skv_validate says so, and bounded before. */
typedef struct skv_view {
    const uint8_t *value;       /* inside the region                                          */
    uint32_t value_len;
    uint8_t  type;
    uint64_t version;
    uint64_t expires_ms;        /* 0 = never                                                  */
    /* private: what skv_validate compares */
    const skv_bucket *bucket;
    const skv_record *record;   /* NULL = a miss                                              */
    uint64_t seq, status;
    const _Atomic uint64_t *status_word;
    bool doom_counts;           /* a committed removal: doomed slots are empty                */
    const skv_slot *slot;       /* NULL = a miss, or an intent's answer                       */
    uint64_t a;                 /* what its word A held                                       */
    _Atomic uint64_t *slot_b;   /* NULL = no clock bits to set                                */
    uint64_t b;                 /* what it held before the validation                         */
} skv_view;

/* ---- Writing --------------------------------------------------------------------------- */

/* SKV_PUT_SAME: that version, and still with `expires_ms` of the item: a touch leaves the version as it is. */
enum skv_put_condition { SKV_PUT_ANY, SKV_PUT_ABSENT, SKV_PUT_PRESENT, SKV_PUT_VERSION, SKV_PUT_SAME };

typedef struct skv_item {
    skv_key  key;
    const void *value;          /* value_len bytes                                            */
    uint64_t value_len;
    uint8_t  type;
    uint64_t expires_ms;        /* absolute, boot time; 0 = never                             */
    bool     tell;              /* skv_put fills the next two, at the cost of a look at the clock */
    bool     replaced;          /* out: a live item was there before                          */
    uint64_t version;           /* out: of the item now                                       */
    /* private to the engine */
    uint64_t record;            /* offset in bytes of the prepared record, 0 = none           */
} skv_item;

skv_status skv_put(skv *store, skv_item *item, enum skv_put_condition condition, uint64_t version, skv_wait *wait);
/* The puts of items[0], items[1], ... in order, each of its own; *done = how many were made, in every case. */
skv_status skv_put_each(skv *store, skv_item *const *items, uint32_t count, skv_wait *wait, uint32_t *done);
/* SKV_MISSING if there was none; with `version` != 0 only that version, else SKV_CONDITION. */
skv_status skv_delete(skv *store, const skv_key *key, uint64_t version, skv_wait *wait);
/* delta may be any; `create_value` is stored (with `expires_ms`) where the key is missing; *result is the new value. */
skv_status skv_incr(skv *store, const skv_key *key, int64_t delta, int64_t create_value, uint64_t expires_ms, int64_t *result, skv_wait *wait);
/* expires_ms 0 = persist.  SKV_MISSING; *had_expiry (may be NULL): the item had an expiry before. */
skv_status skv_touch(skv *store, const skv_key *key, uint64_t expires_ms, bool *had_expiry, skv_wait *wait);

/* Bytes that an item counts for in a batch of more than one, which has at most skv_max_value() of them. */
uint64_t skv_item_size(const skv_item *item);
/* All or none, seen by every reader at once.  Of two items with the same key the later wins.  Items are reordered. */
skv_status skv_put_many(skv *store, skv_item *items, uint32_t count, skv_wait *wait);
/* *removed: how many were there.  Uses only `key` of the items. */
skv_status skv_delete_many(skv *store, skv_item *items, uint32_t count, uint32_t *removed, skv_wait *wait);
skv_status skv_clear(skv *store, skv_wait *wait);
/* Largest single value, and largest sum of a batch, in bytes, that this store takes. */
uint64_t skv_max_value(const skv *store);

/* ---- Walking --------------------------------------------------------------------------- */

uint64_t skv_bucket_count(const skv *store);
/* Live items, expired ones not counted; exact per bucket. */
uint64_t skv_count_items(skv *store);
/* Copies every live item of one bucket that `filter` (may be NULL) accepts, each exactly once if it was
 * present throughout; consistent (one instant) per bucket unless values change all the time.  The caller
 * frees with skv_free_items.  `with_values` false: keys only, and the lengths of the values. */
typedef struct skv_copied {
    uint64_t version, expires_ms;
    uint32_t key_len, value_len;
    uint8_t  type;
    bool     is_bytes;
    size_t   key_at, value_at;  /* positions in `bytes`                                       */
} skv_copied;
typedef struct skv_copies {
    skv_copied *items;
    uint8_t    *bytes;
    size_t      count, items_room, bytes_used, bytes_room;
} skv_copies;
typedef bool (*skv_filter)(void *context, const uint8_t *key, uint32_t len, bool is_bytes);
skv_status skv_copy_bucket(skv *store, uint64_t bucket, bool with_values, skv_filter filter, void *context, skv_copies *out);
void skv_free_items(skv_copies *copies);        /* leaves it empty and usable again           */

/* ---- Housekeeping ---------------------------------------------------------------------- */

typedef struct skv_stats {
    uint64_t items, value_bytes;                /* exact per bucket                           */
    uint64_t counters[SKV_COUNTERS];            /* all processes, dead ones included          */
    uint64_t size, committed, used;             /* bytes; committed = allocated, used = fixed areas + pages in use */
    uint32_t processes;                         /* that live, of those that may write          */
    uint64_t buckets, table_bytes;
} skv_stats;
skv_status skv_get_stats(skv *store, skv_stats *out);

typedef struct skv_compact_report {
    uint64_t expired, leaks, moved, pages_freed;
    uint64_t bytes_to_return;   /* by skv_return_memory, 0 = another process is attached      */
    uint32_t slots_reclaimed;
} skv_compact_report;
skv_status skv_compact(skv *store, skv_compact_report *report, skv_wait *wait);
/* Gives back what skv_compact marked.  To be called when every read that another thread of this process had begun
 * before skv_compact returned has ended: it may still look at a page that is free by now. */
skv_status skv_return_memory(skv *store, skv_wait *wait);
/* Drops what has expired in up to `buckets` buckets from the sweep hand on; *dropped may be NULL. */
skv_status skv_sweep_expired(skv *store, uint64_t buckets, uint64_t *dropped, skv_wait *wait);
/* Repairs what dead processes left (locks, intents, leases) and frees their slots. */
skv_status skv_reclaim_dead(skv *store, uint32_t *slots);

/* Every invariant of docs/concurrency.md, walked.  `report` is called for each problem: which invariant
 * ("I2"), and a sentence.  Returns the number of problems.  Never changes data. */
typedef void (*skv_problem)(void *context, const char *invariant, const char *sentence);
typedef struct skv_check_result {
    uint64_t problems, items, tables, records, blocks_used, blocks_leaked, pages_used, dead_slots;
} skv_check_result;
uint64_t skv_check(skv *store, skv_problem report, void *context, skv_check_result *result);

/* ---- Crash points (compiled in with -DSKV_CRASH_POINTS, for tests/core) ----------------- */

#ifdef SKV_CRASH_POINTS
extern void (*skv_crash_hook)(const char *name);
#define SKV_CRASH(name) do { if (skv_crash_hook) skv_crash_hook(name); } while (0)
#else
#define SKV_CRASH(name) ((void)0)
#endif

#endif
