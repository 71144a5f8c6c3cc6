/* test_bounds.c: what a damaged region claims to lie behind its end is not looked at.
 *
 * How: everything behind the committed pages is made inaccessible; then a record, a table, an intent or an entry of one
 *      is moved or lengthened so that it ends behind them, and whoever would follow it is called.  Random damage
 *      (test_hostile.c, fuzz_region.c) seldom ends so near to the end.
 */
#include "intent.h"
#include "procs.h"
#include "util.h"

#define SIZE (16 * MIB)
#define KEYS 200u
#define ROOM 1024u                  /* of an intent, at the very end                           */

static box b;
static found f;
static key_text text;

static skv_record *record_of(uint64_t id)
{
    skv_view view;
    skv_key key = key_for(b.store, id, &text);
    skv_find(b.store, &key, &view);
    REQUIRE(view.record, "key %" PRIu64 " is there", id);
    return (skv_record *)(uintptr_t)view.record;
}

static skv_bucket *bucket_of(uint64_t id)
{
    return skv_bucket_of(b.store, key_for(b.store, id, &text).hash);
}

static skv_slot *slot_of(uint64_t id)
{
    uint64_t offset = (uint64_t)((uint8_t *)record_of(id) - b.store->base);
    uint64_t table = skv_load(&bucket_of(id)->table);
    skv_slot *slots = skv_slots(b.store, table);
    for (uint64_t i = 0; i < skv_table_capacity(table); i++)
        if (skv_slot_is_live(skv_load(&slots[i].a)) && skv_slot_offset(skv_load(&slots[i].a)) == offset)
            return &slots[i];
    REQUIRE(false, "key %" PRIu64 " has a slot", id);
    return NULL;
}

static uint64_t end_of_pages(void) { return skv_committed_end(b.store); }

/* A touch beyond the committed pages ends the process. */
static void fill(void)
{
    make_box(&b, SIZE, 0);
    for (uint64_t id = 0; id < KEYS; id++)
        REQUIRE_OK(put_value(b.store, id, id + 1, 40, 0));
    uint64_t end = end_of_pages();
    REQUIRE(end % 4096 == 0 && end < SIZE, "the region is not full");
    REQUIRE(mprotect(b.store->base + end, SIZE - end, PROT_NONE) == 0, "mprotect: %s", strerror(errno));
}

static void empty(void)
{
    REQUIRE(mprotect(b.store->base, SIZE, PROT_READ | PROT_WRITE) == 0, "mprotect: %s", strerror(errno));
    shm_unlink(b.name);         /* not detached: that would work with what is damaged         */
    close(b.fd);
}

/* Whoever reads a bucket, a key or everything. */
static void read_all(void)
{
    for (uint64_t id = 0; id < KEYS; id++) {
        skv_view view;
        skv_key key = key_for(b.store, id, &text);
        skv_find(b.store, &key, &view);
        if (copy_view(&view, &f))
            skv_validate(&view);
    }
    for (uint64_t i = 0; i < b.store->bucket_count; i++) {
        skv_copies copies = {0};
        skv_copy_bucket(b.store, i, true, NULL, NULL, &copies);
        skv_free_items(&copies);
    }
}

/* Values of every length up to one that goes far beyond, in the last record and in one in the middle. */
static void long_value(void)
{
    fill();
    skv_record *record = record_of(7);
    const uint64_t left = end_of_pages() - (uint64_t)((uint8_t *)record - b.store->base);
    const uint32_t lengths[] = {(uint32_t)left - 16, (uint32_t)left, (uint32_t)left + 4096, UINT32_MAX};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        record->value_len = lengths[i];
        read_all();
        REQUIRE(!get_id(b.store, 7, &f), "a value of %u bytes in %" PRIu64, lengths[i], left);
    }
    empty();
}

/* The record's head lies in the last bytes, its key and value behind them. */
static void record_at_the_end(void)
{
    fill();
    skv_slot *slot = slot_of(7);
    const skv_record *record = record_of(7);
    uint64_t a = skv_load(&slot->a);
    for (uint64_t before = SKV_UNIT; before <= 3 * SKV_UNIT; before += SKV_UNIT) {
        uint64_t at = end_of_pages() - before;
        memcpy(b.store->base + at, record, before);
        skv_store_release(&slot->a, skv_slot_word(skv_slot_tag(a), at));
        read_all();
        REQUIRE(!get_id(b.store, 7, &f), "a record %" PRIu64 " bytes before the end", before);
    }
    empty();
}

static void table_beyond(void)
{
    fill();
    skv_bucket *bucket = bucket_of(7);
    const uint64_t offsets[] = {end_of_pages() - SKV_UNIT, end_of_pages(), SIZE - SKV_UNIT};
    for (size_t i = 0; i < COUNT(offsets); i++) {
        skv_store_release(&bucket->table, skv_table_word(4095, offsets[i]));
        read_all();
        REQUIRE(!get_id(b.store, 7, &f), "a table at %" PRIu64, offsets[i]);
    }
    empty();
}

/* An intent of this process, committed, that says it has `count` entries, in the last bytes of the pages. */
static skv_intent *false_intent(skv_bucket *bucket, uint32_t count)
{
    uint64_t at = end_of_pages() - ROOM;
    skv_intent *intent = (skv_intent *)(void *)(b.store->base + at);
    memset(intent, 0, ROOM);
    intent->action = SKV_INTENT_WRITE;
    intent->count = count;
    skv_store(&intent->meta.kind, SKV_META_INTENT);
    skv_store(&intent->meta.owner, b.store->slot);
    skv_store(&intent->meta.detail, 77);
    skv_store_release(&b.store->procs[b.store->slot].status, 77 << 2 | SKV_BATCH_COMMITTED);
    skv_store_release(&bucket->txn, at);
    return intent;
}

static void long_intent(void)
{
    const uint32_t counts[] = {ROOM / 32, 1000000, UINT32_MAX};
    fill();
    for (size_t i = 0; i < COUNT(counts); i++) {
        skv_bucket *bucket = bucket_of(7);
        skv_intent *intent = false_intent(bucket, counts[i]);
        for (uint32_t k = 0; k < ROOM / 32 - 1; k++)
            intent->entries[k].bucket = (uint32_t)(bucket - b.store->buckets);
        read_all();
        skv_intent_settle_locked(b.store, bucket);
        REQUIRE(counter_of(b.store, 7, &f) == 8, "it does not count");
    }
    empty();
}

/* One entry, whose slot would lie far behind its table; repair applies it. */
static void entry_beyond_its_table(void)
{
    fill();
    skv_bucket *bucket = bucket_of(7);
    skv_slot *slot = slot_of(7);
    const uint32_t indexes[] = {(uint32_t)(SIZE / sizeof *slot), INT32_MAX, UINT32_MAX};
    for (size_t i = 0; i < COUNT(indexes); i++) {
        skv_intent *intent = false_intent(bucket, 1);
        intent->entries[0] = (skv_intent_entry){.bucket = (uint32_t)(bucket - b.store->buckets), .index = indexes[i],
                                                .new_a = skv_load(&slot->a), .old_a = SKV_EMPTY};
        read_all();
        skv_intent_settle_locked(b.store, bucket);
        REQUIRE(skv_load(&bucket->txn) == 0, "it is settled");
        REQUIRE(counter_of(b.store, 7, &f) == 8, "nothing was written");
    }
    empty();
}

static const test tests[] = {
    {"long_value", long_value},
    {"record_at_the_end", record_at_the_end},
    {"table_beyond", table_beyond},
    {"long_intent", long_intent},
    {"entry_beyond_its_table", entry_beyond_its_table},
};

/* test_bounds [NAME...] */
int main(int argc, char **argv)
{
    (void)argc;
    return run_tests(tests, COUNT(tests), argv + 1, 30);
}
