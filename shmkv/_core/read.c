/* read.c: the parts of reading that are not on the hot path of one key.  See read.h. */
#include "read.h"

#include <sched.h>
#include <stdlib.h>

#include "lock.h"
#include "repair.h"

void skv_relax(skv *store, const skv_view *view, uint32_t tries)
{
    (void)view;
    if (!store->read_only)
        skv_count(store, SKV_RETRIES, 1, true);
    for (uint32_t i = 0; i < (tries < 8 ? 1u << tries : 256u); i++)
        skv_pause();
    if (tries >= SKV_READ_TRIES)
        sched_yield();
}

/* ---- Many keys: misses overlapped --------------------------------------------------------- */

#define GROUP 32u       /* keys whose cache misses are in flight together                     */

/* First slot whose tag fits: most likely the record of the key. */
static uint64_t guess_record(const skv *store, uint64_t table, uint32_t tag)
{
    const skv_slot *slots = skv_slots(store, table);
    uint64_t capacity = skv_table_capacity(table);
    if (!slots)
        return 0;
    uint64_t i = skv_home(tag, capacity);
    for (uint64_t steps = 0; steps < 16; steps++) {
        uint64_t a = skv_load(&slots[i].a);
        if (a == SKV_EMPTY)
            return 0;
        if (skv_slot_tag(a) == tag && skv_slot_is_live(a))
            return skv_slot_offset(a);
        if (++i == capacity)
            i = 0;
    }
    return 0;
}

void skv_prefetch_record(const skv *store, const skv_key *key)
{
    uint64_t table = skv_load_acquire(&skv_bucket_of(store, key->hash)->table);
    uint64_t offset = guess_record(store, table, skv_tag_of(key->hash));
    if (offset) {
        __builtin_prefetch(store->base + offset);
        __builtin_prefetch(store->base + offset + 63);
    }
}

void skv_prefetch_many(const skv *store, const skv_key *keys, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        __builtin_prefetch(skv_bucket_of(store, keys[i].hash));
    for (uint32_t i = 0; i < count; i++)
        skv_prefetch_slots(store, &keys[i]);
    for (uint32_t i = 0; i < count; i++)
        skv_prefetch_record(store, &keys[i]);
}

void skv_find_many(const skv *store, const skv_key *keys, skv_view *views, uint32_t count)
{
    for (uint32_t from = 0; from < count; from += GROUP) {
        uint32_t n = count - from < GROUP ? count - from : GROUP;
        skv_prefetch_many(store, keys + from, n);
        for (uint32_t i = from; i < from + n; i++)
            skv_find(store, &keys[i], &views[i]);
    }
}

static bool is_same(const skv *store, const skv_key *key, const skv_view *view)
{
    if (skv_likely(view->slot != NULL)) {
        if (skv_load_acquire(&view->slot->a) != view->a)
            return false;
        if (skv_unlikely(view->expires_ms != 0)
            && skv_load(skv_expiry_word(store, skv_slot_offset(view->a))) != view->expires_ms)
            return false;
        return skv_validate(view);
    }
    skv_view again;
    skv_find(store, key, &again);
    return again.record == view->record && again.seq == view->seq
           && (!again.record || again.expires_ms == view->expires_ms)
           && again.status_word == view->status_word && (!again.status_word || again.status == view->status)
           && skv_validate(&again);
}

/* All of the second collect lies after all of the first, and each key's counter is read after its
 * slot: unchanged, it also proves that what was copied of the record was whole. */
bool skv_validate_many(const skv *store, const skv_key *keys, const skv_view *views, uint32_t count)
{
    skv_fence_acquire();
    for (uint32_t i = 0; i < count; i++)
        if (!is_same(store, &keys[i], &views[i]))
            return false;
    return true;
}

/* ---- Freezing -------------------------------------------------------------------------------- */

struct skv_frozen {
    uint32_t count;
    skv_bucket *buckets[];      /* those whose lock was had                                   */
};

static int by_address(const void *a, const void *b)
{
    const skv_bucket *x = *(skv_bucket *const *)a, *y = *(skv_bucket *const *)b;
    return x < y ? -1 : x > y;
}

skv_frozen *skv_freeze(skv *store, const skv_key *keys, uint32_t count)
{
    if (store->read_only || skv_register(store))
        return NULL;
    skv_frozen *frozen = malloc(sizeof *frozen + count * sizeof(skv_bucket *));
    if (!frozen)
        return NULL;
    for (uint32_t i = 0; i < count; i++)
        frozen->buckets[i] = skv_bucket_of(store, keys[i].hash);
    qsort(frozen->buckets, count, sizeof(skv_bucket *), by_address);
    frozen->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        skv_bucket *bucket = frozen->buckets[i];
        bool again = frozen->count && frozen->buckets[frozen->count - 1] == bucket;
        if (!again && skv_trylock(store, &bucket->lock))
            frozen->buckets[frozen->count++] = bucket;
    }
    return frozen;
}

void skv_thaw(skv *store, skv_frozen *frozen)
{
    if (!frozen)
        return;
    for (uint32_t i = 0; i < frozen->count; i++)
        skv_unlock(store, &frozen->buckets[i]->lock);
    free(frozen);
}
