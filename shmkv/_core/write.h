/* write.h: what all writers share: one write from lock to unlock, records, tables.
 *
 * Concurrency: functions with _locked need the bucket's lock; the others must be called with no
 * bucket's lock held, because they allocate.
 */
#ifndef SKV_WRITE_H
#define SKV_WRITE_H

#include "alloc.h"
#include "lock.h"
#include "read.h"

/* ---- Records and tables ---- */

typedef struct skv_new_record {
    const skv_key *key;
    const void *value;
    uint64_t value_len;
    uint8_t  type;
    uint64_t expires_ms;        /* 0 = none, and no room for one                              */
    uint64_t version;
} skv_new_record;

void skv_write_record(skv *store, uint64_t offset, const skv_new_record *record);
/* Allocates and fills a record; its version is set when it is published. */
skv_status skv_prepare_record(skv *store, const skv_item *item, enum skv_effort effort, skv_wait *wait, uint64_t *offset);
/* The same for many: `record` of each; those that have one after a failure are the caller's to free. */
skv_status skv_prepare_records(skv *store, skv_item *const *items, uint32_t count, skv_wait *wait);
bool skv_item_fits(const skv *store, const skv_item *item);

skv_status skv_prepare_table(skv *store, uint64_t bucket, uint64_t capacity, enum skv_effort effort, skv_wait *wait, uint64_t *offset);
/* Moves all slots into the empty table at `new_table` and publishes it; bumps.  The old one is the caller's to free.
 * False, with nothing changed, if they do not fit (a damaged count). */
bool skv_replace_table_locked(skv *store, skv_bucket *bucket, uint64_t new_table, uint64_t capacity);
/* 0 = `more` new keys fit; else the capacity of the table that should replace this one.  A guess without the lock. */
uint64_t skv_wanted_capacity(const skv *store, const skv_bucket *bucket, uint64_t more);

/* After a write failed for want of room and gave everything back, `tries` times before: may it succeed now?  Audits, where
 * the dead may have left something. */
bool skv_is_worth_another_try(skv *store, skv_status status, uint32_t tries, skv_wait *wait);

/* ---- Steps under the lock ---- */

/* Comes after every commit; release: pairs with skv_find.  A block that the commit gave up may be
 * freed only after it (I3). */
static inline void skv_bump_locked(skv_bucket *bucket)
{
    skv_store_release(&bucket->seq, skv_load(&bucket->seq) + 1);
}

/* Word B of an item that stays: what is read often stays warm when it is written, and what is proven stays so (where
 * B has a hash bit there, it is the same in both). */
static inline void skv_store_b_locked(skv_slot *slot, uint64_t b)
{
    uint64_t stays = skv_load(&slot->b) & (UINT64_C(3) << SKV_CLOCK_SHIFT | SKV_B_PROVEN);
    skv_store(&slot->b, b | stays);
}

/* Takes a live slot's item out (the record is the caller's to free, after a bump). */
void skv_remove_locked(skv *store, skv_bucket *bucket, skv_slot *slot, uint32_t value_len);
skv_status skv_lock_bucket(skv *store, skv_bucket *bucket, skv_wait *wait);

/* ---- One write ---- */

#define SKV_FREED_AT_ONCE 12u   /* deleted record, old table, and what a sweep finds          */

typedef struct skv_write {
    skv           *store;
    const skv_key *key;
    skv_wait      *wait;
    skv_bucket    *bucket;
    uint64_t       record;      /* prepared, not yet published; 0 = none                      */
    uint64_t       table;       /* spare table, 0 = none                                      */
    uint64_t       capacity;    /* of the spare table                                         */
    uint64_t       replaced;    /* block of the record that was overwritten, 0 = none         */
    struct skv_frame *frame;    /* of a durable store: the change, for the log (logged.h); NULL = in memory only */
    uint64_t       generation;  /* of its intent                                              */
    uint64_t       position;    /* in the log, behind it                                      */
    uint32_t       freed_count;
    uint64_t       freed[SKV_FREED_AT_ONCE];
} skv_write;

/* What an operation does under the lock: SKV_OK = done and bumped; SKV_NEEDS_TABLE; SKV_AGAIN. */
typedef skv_status (*skv_locked_step)(skv_write *write, const skv_hit *hit, void *context);

/* The caller is in an operation (skv_busy_enter) from before the first to after the last of these. */
void skv_write_begin(skv_write *write, skv *store, const skv_key *key, skv_wait *wait);
skv_status skv_write_run(skv_write *write, skv_locked_step step, void *context);
void skv_write_end(skv_write *write);

#endif
