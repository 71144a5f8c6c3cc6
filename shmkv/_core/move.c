/* move.c: see move.h. */
#include "move.h"

#include "read.h"

/* The next item may evict this one, so its version is set at once.  Nobody reads: no order is needed. */
static void keep_version(skv *to, const skv_key *key, uint64_t version)
{
    skv_hit hit;
    skv_probe(to, skv_load(&skv_bucket_of(to, key->hash)->table), key, &hit);
    if (hit.slot)
        skv_store((_Atomic uint64_t *)(void *)(to->base + skv_slot_offset(hit.a) + offsetof(skv_record, version)), version);
}

static skv_status move_item(skv *to, const uint8_t *bytes, const skv_copied *copied)
{
    skv_item item = {
        .key = skv_hash_key(to, bytes + copied->key_at, copied->key_len, copied->is_bytes),
        .value = bytes + copied->value_at,
        .value_len = copied->value_len,
        .type = copied->type,
        .expires_ms = copied->expires_ms,
    };
    skv_status status;
    do {
        skv_wait wait = {.block = true, .shared = true};
        status = skv_put(to, &item, SKV_PUT_ANY, 0, &wait);
    } while (status == SKV_BUSY);
    if (status == SKV_OK)
        keep_version(to, &item.key, copied->version);
    return status;
}

static skv_status move_bucket(skv *from, skv *to, uint64_t bucket, skv_copies *copies)
{
    skv_status status = skv_copy_bucket(from, bucket, true, NULL, NULL, copies);
    for (size_t i = 0; status == SKV_OK && i < copies->count; i++)
        status = move_item(to, copies->bytes, &copies->items[i]);
    return status;
}

static uint64_t highest_seq(const skv *store)
{
    uint64_t highest = 0;
    for (uint64_t i = 0; i < store->bucket_count; i++) {
        uint64_t seq = skv_load(&store->buckets[i].seq);
        highest = seq > highest ? seq : highest;
    }
    return highest;
}

static void go_on_counting(const skv *from, skv *to)
{
    uint64_t ours = highest_seq(to), theirs = highest_seq(from);
    for (uint64_t i = 0; i < to->bucket_count; i++)
        skv_store_release(&to->buckets[i].seq, ours > theirs ? ours : theirs);
    for (uint32_t i = 0; i < SKV_COUNTERS; i++) {
        uint64_t sum = 0;
        for (uint32_t slot = 0; slot < SKV_PROCS; slot++)
            sum += skv_load(&from->procs[slot].counters[i]) + skv_load(&from->procs[slot].shared_counters[i]);
        skv_store(&to->proc->counters[i], 0);           /* the puts of this move              */
        skv_store(&to->proc->shared_counters[i], sum);
    }
}

skv_status skv_move_items(skv *from, skv *to)
{
    skv_copies copies = {0};
    skv_status status = SKV_OK;
    for (uint64_t bucket = 0; status == SKV_OK && bucket < from->bucket_count; bucket++)
        status = move_bucket(from, to, bucket, &copies);
    skv_free_items(&copies);
    if (status == SKV_OK)
        go_on_counting(from, to);
    return status;
}
