/* test_limits.c: what the engine itself refuses, whoever calls it: too much, and writes through a read-only mapping.
 *
 * How: straight calls; the binding asks most of this first, so the tests in Python do not get here.
 */
#include "util.h"

#define SIZE (4 * MIB)

static skv_item items[SKV_MAX_BATCH + 1];
static key_text texts[SKV_MAX_BATCH + 1];
static uint8_t value[SIZE];

static void fill_items(skv *store, uint32_t count, size_t len)
{
    for (uint32_t i = 0; i < count; i++)
        items[i] = (skv_item){.key = key_for(store, i, &texts[i]), .value = value, .value_len = len, .type = SKV_T_BYTES};
}

static skv_status put_items(skv *store, uint32_t count)
{
    skv_status status;
    INSIST(status, wait, skv_put_many(store, items, count, &wait));
    return status;
}

static skv_status delete_items(skv *store, uint32_t count)
{
    skv_status status;
    uint32_t removed;
    INSIST(status, wait, skv_delete_many(store, items, count, &removed, &wait));
    return status;
}

static void require_empty(skv *store)
{
    skv_stats stats;
    REQUIRE_OK(skv_get_stats(store, &stats));
    REQUIRE(stats.items == 0, "%" PRIu64 " items", stats.items);
}

static void test_batches(void)
{
    box b;
    make_box(&b, SIZE, 0);
    fill_items(b.store, SKV_MAX_BATCH + 1, 1);
    REQUIRE(put_items(b.store, SKV_MAX_BATCH + 1) == SKV_TOO_LARGE, "too many keys");
    REQUIRE(delete_items(b.store, SKV_MAX_BATCH + 1) == SKV_TOO_LARGE, "too many keys to delete");
    REQUIRE_OK(put_items(b.store, 0));
    REQUIRE_OK(delete_items(b.store, 0));
    fill_items(b.store, 2, SIZE / 4 + 1);
    REQUIRE(put_items(b.store, 2) == SKV_TOO_LARGE, "too large a value");
    fill_items(b.store, 3, SIZE / 8);
    REQUIRE(put_items(b.store, 3) == SKV_TOO_LARGE, "too many bytes together");
    require_empty(b.store);
    require_clean(b.store);
    remove_box(&b);
}

static void test_read_only(void)
{
    box b;
    make_box(&b, SIZE, 0);
    detach_box(&b);
    attach_box(&b, true);
    fill_items(b.store, 3, 10);
    REQUIRE(put_items(b.store, 3) == SKV_READ_ONLY && put_items(b.store, 0) == SKV_READ_ONLY, "put_many");
    REQUIRE(delete_items(b.store, 3) == SKV_READ_ONLY && delete_items(b.store, 0) == SKV_READ_ONLY, "delete_many");
    REQUIRE(skv_register(b.store) == SKV_READ_ONLY, "a row is for those who write");
    REQUIRE(!skv_freeze(b.store, &items[0].key, 1), "locks are for those who write");
    remove_box(&b);
}

static void test_one_key(void)
{
    box b;
    make_box(&b, SIZE, 0);
    skv_key long_key = skv_hash_key(b.store, (char *)value, SKV_MAX_KEY + 1, true);
    skv_status status;
    int64_t result;
    INSIST(status, wait, skv_incr(b.store, &long_key, 1, 0, 0, &result, &wait));
    REQUIRE(status == SKV_TOO_LARGE, "too long a key: status %d", (int)status);
    skv_copies copies = {0};
    REQUIRE(skv_copy_bucket(b.store, skv_bucket_count(b.store), true, NULL, NULL, &copies) == SKV_MISSING, "no bucket");
    uint64_t dropped;
    REQUIRE_OK(put_value(b.store, 1, 1, 10, skv_now_ms(b.store) + 60000));
    skv_set_clock(b.store, skv_now_ms(b.store) + 60000);
    INSIST(status, wait, skv_sweep_expired(b.store, UINT64_MAX, &dropped, &wait));
    REQUIRE(status == SKV_OK && dropped == 1, "a sweep of more buckets than there are");
    require_empty(b.store);
    remove_box(&b);
}

/* Locks of several buckets are taken once each, by ascending number, and given back. */
static void test_freezing_many(void)
{
    box b;
    make_box(&b, SIZE, 0);
    key_text text[40];
    skv_key keys[40];
    for (uint64_t i = 0; i < 40; i++)
        keys[i] = key_for(b.store, i % 30, &text[i]);
    for (int round = 0; round < 2; round++) {
        skv_frozen *frozen = skv_freeze(b.store, keys, 40);
        REQUIRE(frozen, "it is frozen");
        for (uint64_t i = 0; i < 40; i++)
            REQUIRE(skv_load(&skv_bucket_of(b.store, keys[i].hash)->lock), "key %d", (int)i);
        skv_thaw(b.store, frozen);
        for (uint64_t i = 0; i < 40; i++)
            REQUIRE(!skv_load(&skv_bucket_of(b.store, keys[i].hash)->lock), "key %d is thawed", (int)i);
    }
    remove_box(&b);
}

int main(int argc, char **argv)
{
    static const test tests[] = {{"batches", test_batches}, {"read only", test_read_only},
                                 {"one key", test_one_key}, {"freezing many", test_freezing_many}};
    (void)argc;
    return run_tests(tests, COUNT(tests), argv + 1, 30);
}
