/* read.h: reading without waiting.
 *
 * How:  note the bucket's sequence counter, find the record, copy it, and look at the counter
 *       again (a seqlock after Lameter and Boehm, but without an odd state: writers bump it after
 *       each commit, so a stopped writer stalls nobody).  A block is freed only after the bump, so
 *       an unchanged counter proves that the copied bytes were the record's.  While a batch is
 *       being applied (txn set), a committed intent answers instead of the slots (overlay).
 *
 *       for (uint32_t tries = 0;; tries++) {
 *           skv_view v;
 *           skv_find(store, &key, &v);
 *           ... if v.record: copy v.value_len bytes at v.value (validate first if that is a lot)
 *           if (skv_validate(&v)) break;         // a miss is validated too
 *           skv_relax(store, &v, tries);
 *       }
 *
 * Concurrency: any number of threads and processes; nothing shared is written, except clock bits
 *       in evicting stores (skv_warm).
 */
#ifndef SKV_READ_H
#define SKV_READ_H

#include "intent.h"
#include "procs.h"
#include "table.h"

#define SKV_READ_TRIES 64u      /* after so many, skv_freeze                                  */

static inline skv_key skv_hash_key(const skv *store, const void *data, uint32_t len, bool is_bytes)
{
    /* "a" and b"a" are two keys, so they need not meet in one slot either. */
    uint64_t kind = is_bytes ? UINT64_C(0x9e3779b97f4a7c15) : 0;
    return (skv_key){data, len, is_bytes, skv_xxh3_64(data, len, store->seed) ^ kind};
}

static inline void skv_view_hit(const skv *store, skv_view *view, const skv_head *head, uint64_t a)
{
    view->record = (const skv_record *)(const void *)(store->base + skv_slot_offset(a));
    view->value = head->key + head->key_len;
    view->value_len = head->value_len;
    view->type = head->type;
    view->version = head->version;
    view->expires_ms = head->expires_ms;
}

SKV_HOT void skv_find(const skv *store, const skv_key *key, skv_view *view)
{
    skv_bucket *bucket = skv_bucket_of(store, key->hash);
    view->bucket = bucket;
    view->record = NULL;
    view->slot = NULL;
    view->status_word = NULL;
    view->doom_counts = false;
    view->slot_b = NULL;
    view->seq = skv_load_acquire(&bucket->seq);         /* pairs with the bump of a writer    */
    uint64_t table = skv_load_acquire(&bucket->table);
    uint64_t txn = skv_load_acquire(&bucket->txn);
    if (skv_unlikely(txn != 0) && skv_overlay_find(store, txn, key, view))
        return;
    skv_hit hit;
    skv_probe(store, table, key, &hit);
    if (!hit.slot)
        return;
    if (skv_unlikely(txn != 0) && view->doom_counts && (skv_load(&hit.slot->b) & SKV_B_DOOMED))
        return;
    skv_view_hit(store, view, &hit.head, hit.a);
    view->slot = hit.slot;
    view->a = hit.a;
    if (skv_unlikely(store->evict)) {
        view->slot_b = &hit.slot->b;
        view->b = skv_load(view->slot_b);
    }
}

static inline bool skv_validate(const skv_view *view)
{
    skv_fence_acquire();        /* pairs with the release fence before a block is written anew */
    return skv_load_acquire(&view->bucket->seq) == view->seq
           && (skv_likely(!view->status_word) || skv_load_acquire(view->status_word) == view->status);
}

static inline bool skv_is_expired(const skv *store, uint64_t expires_ms)
{
    return skv_unlikely(expires_ms != 0) && skv_now_ms(store) >= expires_ms;
}

/* After a hit in an evicting store: up at the first read, 0 -> 2 where the item is proven, and then by every second one, to
 * 3 at the most, where reads write nothing. */
void skv_warm_slot(_Atomic uint64_t *slot_b, uint64_t b);
static inline void skv_warm(skv *store, const skv_view *view)
{
    if (skv_unlikely(store->evict) && view->slot_b && !store->read_only)
        skv_warm_slot(view->slot_b, view->b);
}

/* Between two tries. */
void skv_relax(skv *store, const skv_view *view, uint32_t tries);

/* ---- Many keys: one snapshot ---- */

static inline void skv_prefetch_bucket(const skv *store, const skv_key *key)
{
    __builtin_prefetch(skv_bucket_of(store, key->hash), 1);
}

static inline void skv_prefetch_slots(const skv *store, const skv_key *key)
{
    uint64_t table = skv_load_acquire(&skv_bucket_of(store, key->hash)->table);
    /* A prefetch never faults, so the address needs no bounds. */
    uint64_t home = skv_home(skv_tag_of(key->hash), skv_table_capacity(table));
    const uint8_t *at = store->base + skv_table_offset(table) + (home + 1) * sizeof(skv_slot);
    __builtin_prefetch(at);
    __builtin_prefetch(at + 64);
}

/* The record of the first slot whose tag fits. */
void skv_prefetch_record(const skv *store, const skv_key *key);

/* Brings what finding these keys touches into the cache, misses overlapped; no more than some 32 keys. */
void skv_prefetch_many(const skv *store, const skv_key *keys, uint32_t count);
/* Finds all keys with their cache misses overlapped; validate each or all afterwards. */
void skv_find_many(const skv *store, const skv_key *keys, skv_view *views, uint32_t count);
/* The second half of a double collect: every slot (for a miss: the whole probe) is read again and
 * must give the same record, the same counter and the same expiry (Afek et al. 1993; model-checked, docs/decisions.md). */
bool skv_validate_many(const skv *store, const skv_key *keys, const skv_view *views, uint32_t count);

/* Try-locks the buckets of the keys and never waits for one: whoever holds the others is
 * either about to finish or, stopped or dead, changes nothing.  For readers that were
 * overtaken SKV_READ_TRIES times, and never for long. */
typedef struct skv_frozen skv_frozen;
skv_frozen *skv_freeze(skv *store, const skv_key *keys, uint32_t count);
void skv_thaw(skv *store, skv_frozen *frozen);

#endif
