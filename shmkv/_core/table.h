/* table.h: the open-addressing table of one bucket, and the records that its slots name.
 *
 * What: slots of 16 bytes, linear probing; the home position comes from the tag alone
 *       (home = tag * capacity / 2^24), so a rebuild never touches a record, and since homes
 *       rise with tags it runs through both tables in order.
 * How:  a slot is empty, a tombstone or live; word A commits.  Legal steps of A:
 *         empty -> live, tombstone -> live (insert); live -> live (overwrite, evacuation);
 *         live -> tombstone, or -> empty where the next slot is empty (delete).
 *       An entry never moves within its table; a table is replaced by one store of the
 *       bucket's table word.
 *
 * Concurrency: functions with _locked need the bucket's lock.  The others may race with a
 *       writer: every offset and length is bounded before it is used, and what they find counts
 *       only after skv_validate (read.h).
 */
#ifndef SKV_TABLE_H
#define SKV_TABLE_H

#include "engine.h"
#include "hash.h"

/* ---- Words ---- */

static inline uint64_t skv_table_word(uint64_t capacity, uint64_t offset)
{
    return capacity << SKV_OFFSET_BITS | offset / SKV_UNIT;
}
static inline uint64_t skv_table_capacity(uint64_t word) { return word >> SKV_OFFSET_BITS; }
static inline uint64_t skv_table_offset(uint64_t word) { return (word & SKV_OFFSET_MASK) * SKV_UNIT; }
static inline uint64_t skv_table_bytes(uint64_t capacity) { return (capacity + 1) * sizeof(skv_slot); }

static inline uint64_t skv_slot_word(uint32_t tag, uint64_t offset)
{
    return (uint64_t)tag << SKV_OFFSET_BITS | offset / SKV_UNIT;
}
static inline uint32_t skv_slot_tag(uint64_t a) { return (uint32_t)(a >> SKV_OFFSET_BITS); }
static inline uint64_t skv_slot_offset(uint64_t a) { return (a & SKV_OFFSET_MASK) * SKV_UNIT; }
static inline bool skv_slot_is_live(uint64_t a) { return (a & SKV_OFFSET_MASK) > SKV_TOMBSTONE; }

static inline uint64_t skv_b_clipped(uint64_t expires_ms)
{
    return expires_ms < SKV_MAX_EXPIRY ? expires_ms : SKV_MAX_EXPIRY;
}
static inline uint64_t skv_b_word(uint64_t hash, uint64_t expires_ms)
{
    return (hash >> SKV_TAG_BITS & SKV_B_HASH_MASK) << SKV_B_HASH_SHIFT | skv_b_clipped(expires_ms);
}
static inline uint64_t skv_b_expiry(uint64_t b) { return b & SKV_MAX_EXPIRY; }
static inline uint32_t skv_b_clock(uint64_t b) { return (uint32_t)(b >> SKV_CLOCK_SHIFT); }

static inline uint64_t skv_home(uint32_t tag, uint64_t capacity)
{
    return tag * capacity >> SKV_TAG_BITS;
}

/* ---- Tables ---- */

/* The slots of a table word, or NULL if there is no table (or, in a damaged region, none that
 * lies within the committed pages). */
static inline skv_slot *skv_slots(const skv *store, uint64_t word)
{
    uint64_t offset = skv_table_offset(word), capacity = skv_table_capacity(word);
    if (skv_unlikely(!skv_in_pages(store, offset, skv_table_bytes(capacity)) || capacity == 0))
        return NULL;
    return (skv_slot *)(void *)(store->base + offset) + 1;
}

/* ---- Records ---- */

static inline uint64_t skv_record_size(uint64_t key_len, uint64_t value_len, bool has_expiry)
{
    return sizeof(skv_record) + (has_expiry ? 8 : 0) + key_len + value_len;
}

/* A record's head, read once, bounded.  `key` points into the region. */
typedef struct skv_head {
    const uint8_t *key;
    uint32_t value_len;
    uint32_t key_len;
    uint64_t version;
    uint64_t expires_ms;
    uint8_t  type;
    uint8_t  flags;
} skv_head;

static inline _Atomic uint64_t *skv_expiry_word(const skv *store, uint64_t offset)
{
    return (_Atomic uint64_t *)(void *)(store->base + offset + sizeof(skv_record));
}

/* The same, with the end of the committed pages that the caller has looked up. */
SKV_HOT bool skv_read_head_below(const skv *store, uint64_t offset, uint64_t end, skv_head *head)
{
    if (skv_unlikely(offset < store->pages_offset || offset + sizeof(skv_record) + 8 > end))
        return false;
    const _Atomic uint64_t *words = (const _Atomic uint64_t *)(const void *)(store->base + offset);
    uint64_t first = skv_load(&words[0]);
    skv_record record;
    memcpy(&record, &first, sizeof first);
    const bool has_expiry = record.flags & SKV_REC_EXPIRY;
    head->value_len = record.value_len;
    head->key_len = record.key_len;
    head->type = record.type;
    head->flags = record.flags;
    head->version = skv_load(&words[1]);
    head->expires_ms = skv_unlikely(has_expiry) ? skv_load(&words[2]) : 0;
    head->key = store->base + offset + sizeof(skv_record) + (has_expiry ? 8 : 0);
    return skv_likely(skv_record_size(record.key_len, record.value_len, has_expiry) <= end - offset);
}

/* Reads the head at `offset`; false if the record does not lie within the committed pages.
 * The whole record is bounded, so that the caller may copy key and value. */
static inline bool skv_read_head(const skv *store, uint64_t offset, skv_head *head)
{
    return skv_read_head_below(store, offset, skv_committed_end(store), head);
}

SKV_HOT bool skv_bytes_equal(const uint8_t *a, const uint8_t *b, uint32_t len)
{
#ifdef SKV_TSAN
    const _Atomic uint8_t *racy = (const _Atomic uint8_t *)a;
    for (uint32_t i = 0; i < len; i++)
        if (skv_load(&racy[i]) != b[i])
            return false;
    return true;
#else
    if (len >= 8) {     /* keys are short: two overlapping words beat a call of memcmp        */
        uint64_t x, y;
        for (uint32_t i = 0; i + 8 <= len; i += 8) {
            memcpy(&x, a + i, 8);
            memcpy(&y, b + i, 8);
            if (x != y)
                return false;
        }
        memcpy(&x, a + len - 8, 8);
        memcpy(&y, b + len - 8, 8);
        return x == y;
    }
    return memcmp(a, b, len) == 0;
#endif
}

static inline bool skv_head_has_key(const skv_head *head, const skv_key *key)
{
    return head->key_len == key->len && !(head->flags & SKV_REC_BYTES_KEY) == !key->is_bytes
           && skv_bytes_equal(head->key, key->data, key->len);
}

/* ---- Probing ---- */

/* Brings the bitmap that freeing the block at `offset` will change into the cache. */
static inline void skv_prefetch_free(const skv *store, uint64_t offset)
{
    uint64_t within = (offset - store->pages_offset) & (SKV_PAGE_SIZE - 1);
    const skv_page *page = &store->pages[(offset - store->pages_offset) >> SKV_PAGE_SHIFT];
    __builtin_prefetch(page);
    /* Which word depends on the class; for the small blocks of a large store, about this one. */
    __builtin_prefetch(&page->bitmap[within >> 12], 1);
}

/* What a probe found for a key. */
typedef struct skv_hit {
    skv_slot *slot;             /* NULL = the key is not here                                 */
    uint64_t  a;
    skv_head  head;
} skv_hit;

/* `replacing` (a constant): also fetch what freeing the found record will change. */
SKV_HOT void skv_probe_for(const skv *store, uint64_t table, const skv_key *key, bool replacing, skv_hit *hit)
{
    hit->slot = NULL;
    const uint64_t end = skv_committed_end(store);
    const uint64_t offset = skv_table_offset(table), capacity = skv_table_capacity(table);
    if (skv_unlikely(capacity == 0 || offset < store->pages_offset || offset + skv_table_bytes(capacity) > end))
        return;
    skv_slot *slots = (skv_slot *)(void *)(store->base + offset) + 1;
    const uint32_t tag = skv_tag_of(key->hash);
    uint64_t i = skv_home(tag, capacity);
    /* At these loads every third probe goes on into the next line: fetch both at once. */
    __builtin_prefetch((const uint8_t *)&slots[i] + 64);
    for (uint64_t steps = 0; steps < capacity; steps++) {
        uint64_t a = skv_load_acquire(&slots[i].a);     /* pairs with the commit of a writer  */
        if (a == SKV_EMPTY)
            return;
        if (skv_slot_tag(a) != tag || !skv_slot_is_live(a)) {
            if (++i == capacity)
                i = 0;
            continue;
        }
        /* Where key and value begin depends on the head, so their line would be waited for after
         * the head's: half of all small records lie in two lines. */
        __builtin_prefetch(store->base + skv_slot_offset(a) + 63);
        if (replacing)
            skv_prefetch_free(store, skv_slot_offset(a));
        /* Beyond `end`: the region may have grown since, and the item have moved there. */
        if ((skv_likely(skv_read_head_below(store, skv_slot_offset(a), end, &hit->head))
             || skv_read_head(store, skv_slot_offset(a), &hit->head))
            && skv_head_has_key(&hit->head, key)) {
            hit->slot = &slots[i];
            hit->a = a;
            return;
        }
        if (++i == capacity)
            i = 0;
    }
}

SKV_HOT void skv_probe(const skv *store, uint64_t table, const skv_key *key, skv_hit *hit)
{
    skv_probe_for(store, table, key, false, hit);
}

/* Where an absent key goes: the first tombstone or empty slot of its probe path that `taken`
 * (may be NULL: a bit per slot) does not exclude.  capacity if there is none. */
static inline uint64_t skv_place_locked(const skv_slot *slots, uint64_t capacity, uint32_t tag, const uint64_t *taken)
{
    uint64_t i = skv_home(tag, capacity);
    for (uint64_t steps = 0; steps < capacity; steps++) {
        uint64_t a = skv_load(&slots[i].a);
        if (!skv_slot_is_live(a) && !(taken && (taken[i / 64] >> (i % 64) & 1)))
            return i;
        if (++i == capacity)
            i = 0;
    }
    return capacity;
}

/* ---- Publishing ---- */

/* The commit of a new table; pairs with skv_find, and with note_bucket in compact.c. */
static inline void skv_publish_table_locked(skv_bucket *bucket, uint64_t word)
{
    skv_store_release(&bucket->rebuilds, skv_load(&bucket->rebuilds) + 1);
    skv_store_release(&bucket->table, word);
}

/* ---- Load ---- */

/* Buckets grow at 0.70 to 0.84, spread by their number, or all would grow at the same moment.
 * In 256ths: 179 + 0..36.  Lower limits cost 1.3 bytes an entry for each 0.05. */
static inline uint64_t skv_load_limit(uint64_t bucket, uint64_t capacity)
{
    uint64_t spread = (bucket * UINT64_C(0x9e3779b97f4a7c15) >> 56) * 37 >> 8;
    return capacity * (179 + spread) >> 8;
}

/* Capacities: a table block (slots and a header slot) is 8, 16, 32, 64 or 128 slots big, and from
 * there on 4, 5, 6 or 7 x 2^k, in whole units of the allocator (1 KiB = 64 slots): small ones
 * double, because a rebuild costs them more than the room. */
#define SKV_MIN_TABLE_SLOTS 8u
#define SKV_MAX_CAPACITY ((UINT64_C(1) << (64 - SKV_OFFSET_BITS)) - 1)  /* what a table word can say */

static inline uint64_t skv_next_table_slots(uint64_t slots)
{
    uint64_t top = 63 - (uint64_t)__builtin_clzll(slots);
    uint64_t step = slots < 128 ? slots : UINT64_C(1) << (top - 2);
    return slots + (step < 64 && slots >= 128 ? 64 : step);
}

/* The smallest capacity that takes `items` under the bucket's load limit. */
uint64_t skv_capacity_for(uint64_t bucket, uint64_t items);

#endif
