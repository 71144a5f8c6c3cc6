/* test_store.c: the engine's surface in one process and one thread: what each call promises.
 *
 * The larger tests hold the store against a plain array (the model) after every few hundred operations.
 */
#include "util.h"

static uint64_t seed = 1;

/* ---- One key ------------------------------------------------------------------------------ */

static skv_status put_if(skv *store, uint64_t id, uint64_t counter, enum skv_put_condition condition, uint64_t version)
{
    key_text text;
    uint8_t value[64];
    make_value(value, id, counter, sizeof value);
    skv_item item = {.key = key_for(store, id, &text), .value = value, .value_len = sizeof value, .type = SKV_T_BYTES};
    skv_status status;
    INSIST(status, wait, skv_put(store, &item, condition, version, &wait));
    return status;
}

static void one_key(void)
{
    box b;
    found f = {0};
    make_box(&b, 4 * MIB, 0);
    skv *s = b.store;
    REQUIRE(!get_id(s, 1, &f), "an empty store has nothing");
    REQUIRE(delete_id(s, 1) == SKV_MISSING, "nor has it anything to delete");
    REQUIRE(put_if(s, 1, 1, SKV_PUT_PRESENT, 0) == SKV_CONDITION, "replace needs an item");
    REQUIRE_OK(put_if(s, 1, 1, SKV_PUT_ABSENT, 0));
    REQUIRE(put_if(s, 1, 2, SKV_PUT_ABSENT, 0) == SKV_CONDITION, "add needs none");
    REQUIRE(counter_of(s, 1, &f) == 1, "a refused add changes nothing");
    uint64_t first = f.version;
    REQUIRE_OK(put_if(s, 1, 3, SKV_PUT_PRESENT, 0));
    REQUIRE(put_if(s, 1, 4, SKV_PUT_VERSION, first) == SKV_CONDITION, "cas with an old version");
    REQUIRE(counter_of(s, 1, &f) == 3 && f.version > first, "versions rise");
    REQUIRE_OK(put_if(s, 1, 5, SKV_PUT_VERSION, f.version));
    REQUIRE(counter_of(s, 1, &f) == 5, "cas with the right version");
    key_text text;
    skv_key key = key_for(s, 1, &text);
    skv_wait wait = patient();
    REQUIRE(skv_delete(s, &key, first, &wait) == SKV_CONDITION, "delete with an old version");
    REQUIRE_OK(skv_delete(s, &key, f.version, &wait));
    REQUIRE(!get_id(s, 1, &f) && skv_count_items(s) == 0, "deleted");
    /* "a" and b"a" are two keys. */
    skv_item text_item = {.key = skv_hash_key(s, "a", 1, false), .value = "1", .value_len = 1, .type = SKV_T_BYTES};
    skv_item bytes_item = {.key = skv_hash_key(s, "a", 1, true), .value = "2", .value_len = 1, .type = SKV_T_BYTES};
    REQUIRE_OK(skv_put(s, &text_item, SKV_PUT_ANY, 0, &wait));
    REQUIRE_OK(skv_put(s, &bytes_item, SKV_PUT_ABSENT, 0, &wait));
    REQUIRE(skv_count_items(s) == 2, "both are there");
    free(f.value);
    require_no_leaks(s);
    remove_box(&b);
}

static skv_status incr(skv *store, uint64_t id, int64_t delta, int64_t create, uint64_t expires_ms, int64_t *result)
{
    key_text text;
    skv_key key = key_for(store, id, &text);
    skv_status status;
    INSIST(status, wait, skv_incr(store, &key, delta, create, expires_ms, result, &wait));
    return status;
}

static void counters(void)
{
    box b;
    found f = {0};
    int64_t result;
    make_box(&b, 4 * MIB, 0);
    skv *s = b.store;
    REQUIRE_OK(incr(s, 1, 5, 100, 0, &result));
    REQUIRE(result == 100, "a missing counter is created");
    for (int i = 1; i <= 1000; i++) {
        REQUIRE_OK(incr(s, 1, -3, 0, 0, &result));
        REQUIRE(result == 100 - 3 * i, "%d", (int)result);
    }
    REQUIRE_OK(incr(s, 2, 0, INT64_MAX - 1, 0, &result));
    REQUIRE_OK(incr(s, 2, 1, 0, 0, &result));
    REQUIRE(incr(s, 2, 1, 0, 0, &result) == SKV_OVERFLOW, "beyond 64 bits");
    REQUIRE(get_id(s, 2, &f) && f.len == 8 && f.type == SKV_T_INT, "an integer");
    int64_t stored;
    memcpy(&stored, f.value, 8);
    REQUIRE(stored == INT64_MAX, "a refused incr changes nothing");
    REQUIRE_OK(put_value(s, 3, 1, 40, 0));
    REQUIRE(incr(s, 3, 1, 0, 0, &result) == SKV_NOT_INT, "a string of bytes");
    REQUIRE(counter_of(s, 3, &f) == 1, "is as it was");
    skv_set_clock(s, 1000);
    REQUIRE_OK(incr(s, 4, 1, 7, 2000, &result));
    REQUIRE_OK(incr(s, 4, 1, 0, 5000, &result));
    REQUIRE(get_id(s, 4, &f) && f.expires_ms == 2000 && result == 8, "incr keeps the expiry");
    skv_set_clock(s, 2000);
    REQUIRE_OK(incr(s, 4, 1, 50, 0, &result));
    REQUIRE(result == 50 && get_id(s, 4, &f) && f.expires_ms == 0, "an expired counter begins anew");
    free(f.value);
    require_no_leaks(s);
    remove_box(&b);
}

static skv_status touch(skv *store, uint64_t id, uint64_t expires_ms, bool *had)
{
    key_text text;
    skv_key key = key_for(store, id, &text);
    skv_status status;
    INSIST(status, wait, skv_touch(store, &key, expires_ms, had, &wait));
    return status;
}

static void expiry(void)
{
    box b;
    found f = {0};
    bool had;
    uint64_t dropped;
    make_box(&b, 4 * MIB, 0);
    skv *s = b.store;
    skv_set_clock(s, 1000);
    REQUIRE_OK(put_value(s, 1, 1, 40, 1001));
    REQUIRE_OK(put_value(s, 2, 1, 40, 0));
    REQUIRE(get_id(s, 1, &f), "before its time");
    skv_set_clock(s, 1001);
    REQUIRE(!get_id(s, 1, &f), "expired when now >= expires_at");
    REQUIRE(skv_count_items(s) == 1, "and not counted");
    REQUIRE(touch(s, 1, 9000, &had) == SKV_MISSING, "touch does not revive");
    REQUIRE(delete_id(s, 1) == SKV_MISSING, "delete says that it was missing");
    REQUIRE_OK(put_value(s, 1, 2, 40, 1100));
    skv_set_clock(s, 1100);
    REQUIRE_OK(put_if(s, 1, 3, SKV_PUT_ABSENT, 0));
    REQUIRE(counter_of(s, 1, &f) == 3 && f.expires_ms == 0, "add over an expired item");
    uint64_t version = f.version;
    REQUIRE_OK(touch(s, 1, 1200, &had));
    REQUIRE(!had && counter_of(s, 1, &f) == 3 && f.expires_ms == 1200, "a first expiry makes a copy");
    REQUIRE(f.version == version, "touch is no new version");
    REQUIRE_OK(touch(s, 1, 1300, &had));
    REQUIRE(had && counter_of(s, 1, &f) == 3 && f.expires_ms == 1300, "a second one is in place");
    REQUIRE_OK(touch(s, 1, 0, &had));
    skv_set_clock(s, 99999);
    REQUIRE(had && counter_of(s, 1, &f) == 3 && f.expires_ms == 0, "persist");
    for (uint64_t id = 100; id < 2100; id++)
        REQUIRE_OK(put_value(s, id, 1, 40, 100000 + id));
    skv_set_clock(s, 100000 + 1099);
    REQUIRE(skv_count_items(s) == 1002, "%d", (int)skv_count_items(s));
    skv_wait wait = patient();
    REQUIRE_OK(skv_sweep_expired(s, skv_bucket_count(s), &dropped, &wait));
    REQUIRE(dropped == 1000, "swept %d", (int)dropped);
    for (uint64_t id = 100; id < 2100; id++)
        REQUIRE(get_id(s, id, &f) == (id > 1099), "key %d", (int)id);
    free(f.value);
    require_no_leaks(s);
    remove_box(&b);
}

/* ---- Sizes ------------------------------------------------------------------------------------- */

static void sizes(void)
{
    static const uint32_t around[] = {128, 256, 1024, 4096, 8192, 10240, 32768, 65536, 131072, 200000, 1u << 20};
    box b;
    found f = {0};
    make_box(&b, 32 * MIB, 0);
    skv *s = b.store;
    uint8_t *bytes = malloc(9 * MIB);
    REQUIRE(bytes, "no memory");
    for (uint32_t i = 0; i < 9 * MIB; i++)
        bytes[i] = (uint8_t)mix64(i);
    uint64_t id = 0;
    for (uint32_t len = 0; len < 400; len++)
        REQUIRE_OK(put_bytes(s, id++, bytes + len, len, len % 2 ? 1 << 30 : 0));
    for (uint32_t i = 0; i < COUNT(around); i++)
        for (uint32_t len = around[i] - 45; len <= around[i] + 1; len++)
            if (around[i] < 65536 || len % 15 == 0)
                REQUIRE_OK(put_bytes(s, id++, bytes + len % 1000, len, len % 2 ? 1 << 30 : 0));
    uint64_t last = id;
    id = 0;
    skv_set_clock(s, 1);
    for (uint32_t len = 0; len < 400; len++, id++)
        REQUIRE(get_id(s, id, &f) && f.len == len && (len == 0 || memcmp(f.value, bytes + len, len) == 0), "length %u", len);
    for (uint32_t i = 0; i < COUNT(around); i++)
        for (uint32_t len = around[i] - 45; len <= around[i] + 1; len++)
            if (around[i] < 65536 || len % 15 == 0) {
                REQUIRE(get_id(s, id, &f) && f.len == len && memcmp(f.value, bytes + len % 1000, len) == 0, "length %u", len);
                id++;
            }
    require_clean(s);
    REQUIRE(skv_count_items(s) == last, "all are counted");
    REQUIRE_OK(clear_all(s));
    REQUIRE_OK(put_bytes(s, 1, bytes, skv_max_value(s), 0));
    REQUIRE(get_id(s, 1, &f) && f.len == skv_max_value(s) && memcmp(f.value, bytes, f.len) == 0, "the largest value");
    REQUIRE(put_bytes(s, 1, bytes, skv_max_value(s) + 1, 0) == SKV_TOO_LARGE, "is the largest");
    /* Keys of every length up to the longest. */
    skv_wait wait = patient();
    for (uint32_t len = 0; len <= SKV_MAX_KEY; len = len < 300 ? len + 1 : len * 3 + 2) {
        skv_item item = {.key = skv_hash_key(s, bytes, len, true), .value = &len, .value_len = 4, .type = SKV_T_BYTES};
        REQUIRE_OK(skv_put(s, &item, SKV_PUT_ABSENT, 0, &wait));
    }
    skv_item longest = {.key = skv_hash_key(s, bytes, SKV_MAX_KEY, true), .value = "x", .value_len = 1, .type = SKV_T_BYTES};
    REQUIRE_OK(skv_put(s, &longest, SKV_PUT_ANY, 0, &wait));
    longest.key.len++;
    REQUIRE(skv_put(s, &longest, SKV_PUT_ANY, 0, &wait) == SKV_TOO_LARGE, "a key too long");
    free(bytes);
    free(f.value);
    require_no_leaks(s);
    remove_box(&b);
}

/* ---- Against a model ----------------------------------------------------------------------------- */

#define MODEL_IDS 1200u

typedef struct model {
    uint64_t counter[MODEL_IDS];        /* 0 = absent                                         */
    uint64_t expires[MODEL_IDS];
    uint64_t now;
} model;

static bool lives(const model *m, uint64_t id)
{
    return m->counter[id] && (m->expires[id] == 0 || m->now < m->expires[id]);
}

static size_t random_len(rng *r)
{
    uint32_t kind = below(r, 100);
    return VALUE_HEAD + (kind < 70 ? below(r, 100) : kind < 95 ? below(r, 3000) : kind < 99 ? below(r, 20000) : below(r, 200000));
}

static uint64_t random_expiry(const model *m, rng *r)
{
    return below(r, 4) ? 0 : m->now + 1 + below(r, 60);
}

static void scan_equals_model(skv *s, const model *m)
{
    skv_copies copies = {0};
    uint8_t *seen = calloc(MODEL_IDS, 1);
    size_t count = 0, live = 0;
    for (uint64_t bucket = 0; bucket < skv_bucket_count(s); bucket++) {
        REQUIRE_OK(skv_copy_bucket(s, bucket, true, NULL, NULL, &copies));
        for (size_t i = 0; i < copies.count; i++) {
            const skv_copied *item = &copies.items[i];
            uint64_t id = id_in_key(copies.bytes + item->key_at);
            REQUIRE(id < MODEL_IDS && !seen[id]++, "key %d twice", (int)id);
            REQUIRE(lives(m, id) && item->expires_ms == m->expires[id], "key %d should not be there", (int)id);
            REQUIRE(read_value(copies.bytes + item->value_at, item->value_len, id) == m->counter[id], "key %d", (int)id);
        }
        count += copies.count;
    }
    for (uint64_t id = 0; id < MODEL_IDS; id++)
        live += lives(m, id);
    REQUIRE(count == live, "%zu scanned, %zu live", count, live);
    REQUIRE(skv_count_items(s) == live, "%d counted, %zu live", (int)skv_count_items(s), live);
    skv_free_items(&copies);
    free(seen);
}

static void one_batch(skv *s, model *m, rng *r, uint64_t counter)
{
    enum { MOST = 40 };
    static uint8_t values[MOST][4096];
    key_text texts[MOST];
    skv_item items[MOST];
    uint32_t n = 1 + below(r, MOST), removed = 0, expected = 0;
    bool removing = below(r, 4) == 0;
    uint64_t ids[MOST];
    skv_status status;
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = i && below(r, 8) == 0 ? ids[i - 1] : below(r, MODEL_IDS);      /* some twice  */
        size_t len = VALUE_HEAD + below(r, 4000);
        make_value(values[i], ids[i], counter + i, len);
        items[i] = (skv_item){.key = key_for(s, ids[i], &texts[i]), .value = values[i], .value_len = len,
                              .type = SKV_T_BYTES, .expires_ms = random_expiry(m, r)};
    }
    uint64_t expires[MOST];
    for (uint32_t i = 0; i < n; i++)
        expires[i] = items[i].expires_ms;
    if (removing)
        INSIST(status, wait, skv_delete_many(s, items, n, &removed, &wait));
    else
        INSIST(status, wait, skv_put_many(s, items, n, &wait));
    REQUIRE_OK(status);
    for (uint32_t i = 0; i < n; i++) {
        expected += removing && lives(m, ids[i]);
        m->counter[ids[i]] = removing ? 0 : counter + i;
        m->expires[ids[i]] = expires[i];
    }
    REQUIRE(!removing || removed == expected, "%u removed, %u were there", removed, expected);
}

static void one_step(skv *s, model *m, rng *r, uint64_t counter, found *f)
{
    uint64_t id = below(r, MODEL_IDS), expires = random_expiry(m, r);
    bool live = lives(m, id), had;
    switch (below(r, 16)) {
    case 0: case 1: case 2: case 3: case 4:
        REQUIRE_OK(put_value(s, id, counter, random_len(r), expires));
        m->counter[id] = counter;
        m->expires[id] = expires;
        break;
    case 5: case 6:
        REQUIRE(delete_id(s, id) == (live ? SKV_OK : SKV_MISSING), "key %d", (int)id);
        m->counter[id] = 0;
        break;
    case 7: case 8:
        REQUIRE(touch(s, id, expires, &had) == (live ? SKV_OK : SKV_MISSING), "key %d", (int)id);
        REQUIRE(!live || had == (m->expires[id] != 0), "key %d", (int)id);
        if (live)
            m->expires[id] = expires;
        break;
    case 9:
        m->now += below(r, 10);
        skv_set_clock(s, m->now);
        break;
    case 10: case 11:
        one_batch(s, m, r, counter);
        break;
    case 12: {
        skv_status status = put_if(s, id, counter, SKV_PUT_ABSENT, 0);
        REQUIRE(status == (live ? SKV_CONDITION : SKV_OK), "key %d", (int)id);
        if (!live)
            m->counter[id] = counter, m->expires[id] = 0;
        break;
    }
    case 13: {
        uint64_t seen = counter_of(s, id, f), version = f->version + below(r, 2);
        skv_status status = seen ? put_if(s, id, counter, SKV_PUT_VERSION, version) : SKV_CONDITION;
        bool right = seen && version == f->version;
        REQUIRE(status == (right ? SKV_OK : SKV_CONDITION), "key %d", (int)id);
        if (right)
            m->counter[id] = counter, m->expires[id] = 0;
        break;
    }
    default:
        REQUIRE(counter_of(s, id, f) == (live ? m->counter[id] : 0), "key %d", (int)id);
        REQUIRE(!live || f->expires_ms == m->expires[id], "key %d", (int)id);
    }
}

static void against_model(void)
{
    box b;
    found f = {0};
    static model m;
    rng r = {seed};
    make_box(&b, 48 * MIB, 0);
    m.now = 1000;
    skv_set_clock(b.store, m.now);
    for (uint64_t step = 1; step <= 30000 / SLOW; step++) {
        one_step(b.store, &m, &r, step * 100, &f);
        if (step % 1500 == 0) {
            scan_equals_model(b.store, &m);
            require_clean(b.store);
        }
        if (step % 7000 == 0) {
            skv_compact_report report;
            REQUIRE_OK(compact_all(b.store, &report));
            REQUIRE(report.leaks == 0, "%d leaks without a death", (int)report.leaks);
        }
        if (step % 13000 == 0) {
            REQUIRE_OK(clear_all(b.store));
            memset(m.counter, 0, sizeof m.counter);
        }
    }
    scan_equals_model(b.store, &m);
    free(f.value);
    require_no_leaks(b.store);
    remove_box(&b);
}

/* ---- Growth, statistics ------------------------------------------------------------------------------ */

/* Overwrites in one call: what they replaced is free again, but for the one block that may be kept. */
static void several_overwrites(void)
{
    enum { N = 40 };
    static uint8_t values[N][60];
    static skv_item items[N], *list[N];
    key_text texts[N];
    box b;
    found f = {0};
    uint64_t freed = 0;
    make_box(&b, MIB, 0);
    for (uint64_t counter = 1; counter < 5; counter++) {
        for (uint64_t id = 0; id < N; id++) {
            make_value(values[id], id, counter, sizeof values[id]);
            items[id] = (skv_item){.key = key_for(b.store, id, &texts[id]), .value = values[id], .value_len = sizeof values[id], .type = SKV_T_BYTES};
            list[id] = &items[id];
        }
        for (uint32_t done, from = 0; from < N; from += done) {
            skv_wait wait = {.block = true};
            REQUIRE_OK(skv_put_each(b.store, list + from, N - from, &wait, &done));
        }
        for (uint64_t id = 0; id < N; id++)
            REQUIRE(counter_of(b.store, id, &f) == counter, "key %" PRIu64, id);
        skv_status status;
        INSIST(status, wait, skv_audit(b.store, &freed, &wait));
        REQUIRE(status == SKV_OK && freed == 0, "status %d, %" PRIu64 " blocks were leaked", (int)status, freed);
    }
    require_no_leaks(b.store);
    free(f.value);
    remove_box(&b);
}

static void growth(void)
{
    enum { N = 60000 };
    box b;
    found f = {0};
    make_box(&b, 32 * MIB, 0);
    skv *s = b.store;
    skv_stats before, after;
    REQUIRE_OK(skv_get_stats(s, &before));
    REQUIRE(before.items == 0 && before.processes == 1 && before.committed <= MIB + 32 * MIB * 15 / 10000,
            "an empty store has %" PRIu64 " bytes", before.committed);
    for (uint64_t id = 0; id < N; id++)
        REQUIRE_OK(put_value(s, id, id + 1, VALUE_HEAD + id % 64, 0));
    for (uint64_t id = 0; id < N; id++)
        REQUIRE(counter_of(s, id, &f) == id + 1, "key %d", (int)id);
    REQUIRE_OK(skv_get_stats(s, &after));
    REQUIRE(after.items == N && after.counters[SKV_SETS] == N, "%d items", (int)after.items);
    REQUIRE(after.used <= after.committed && after.committed <= after.size, "used <= committed <= size");
    uint64_t bytes = 0;
    for (uint64_t id = 0; id < N; id++)
        bytes += VALUE_HEAD + id % 64;
    REQUIRE(after.value_bytes == bytes, "value bytes");
    require_clean(s);
    for (uint64_t id = 0; id < N; id++)
        if (id % 3)
            REQUIRE_OK(delete_id(s, id));
    for (uint64_t id = 0; id < N; id++)
        REQUIRE(counter_of(s, id, &f) == (id % 3 ? 0 : id + 1), "key %d", (int)id);
    require_no_leaks(s);
    for (uint64_t id = 0; id < N; id++)
        REQUIRE(counter_of(s, id, &f) == (id % 3 ? 0 : id + 1), "key %d after compact()", (int)id);
    REQUIRE_OK(skv_get_stats(s, &before));
    REQUIRE(before.used < after.used / 2, "compact(): %" PRIu64 " of %" PRIu64 " used", before.used, after.used);
    free(f.value);
    remove_box(&b);
}

/* The same sum of data, loaded freshly and after many overwrites and a compact(). */
static void overwrites_then_compact(void)
{
    enum { N = 20000 };
    box b;
    rng r = {seed};
    skv_stats fresh, worn;
    skv_compact_report report;
    found f = {0};
    static size_t len[N];
    make_box(&b, 64 * MIB, 0);
    for (uint64_t i = 0; i < 10 * N / SLOW; i++) {
        uint64_t id = below(&r, N);
        len[id] = VALUE_HEAD + below(&r, 490);
        REQUIRE_OK(put_value(b.store, id, i + 1, len[id], 0));
    }
    REQUIRE_OK(compact_all(b.store, &report));
    REQUIRE_OK(skv_get_stats(b.store, &worn));
    require_clean(b.store);
    for (uint64_t id = 0; id < N; id++)
        REQUIRE((counter_of(b.store, id, &f) != 0) == (len[id] != 0), "key %d", (int)id);
    REQUIRE_OK(clear_all(b.store));
    REQUIRE_OK(compact_all(b.store, &report));
    for (uint64_t id = 0; id < N; id++)
        if (len[id])
            REQUIRE_OK(put_value(b.store, id, 1, len[id], 0));
    REQUIRE_OK(skv_get_stats(b.store, &fresh));
    REQUIRE(worn.used * 4 <= fresh.used * 5, "used: %" PRIu64 " after compact(), %" PRIu64 " fresh", worn.used, fresh.used);
    REQUIRE(worn.committed * 4 <= fresh.used * 5, "committed: %" PRIu64 " after compact(), %" PRIu64 " fresh",
            worn.committed, fresh.used);
    free(f.value);
    remove_box(&b);
}

/* ---- Full ------------------------------------------------------------------------------------------------ */

/* Puts until nothing more goes in, and then finds everything as it was. */
static uint64_t fill(skv *s, uint64_t from, size_t len)
{
    uint64_t id = from;
    skv_status status;
    while ((status = put_value(s, id, id + 1, len, 0)) == SKV_OK)
        id++;
    REQUIRE(status == SKV_FULL, "status %d", (int)status);
    found f = {0};
    for (uint64_t i = from; i < id; i++)
        REQUIRE(counter_of(s, i, &f) == i + 1, "key %d of %d in a full store", (int)i, (int)id);
    REQUIRE(!get_id(s, id, &f), "the one that was refused");
    free(f.value);
    require_clean(s);
    return id;
}

static skv_status put_two(skv *s, uint64_t id, size_t len)
{
    key_text texts[2];
    skv_item items[2];
    uint8_t *value = malloc(len);
    REQUIRE(value, "no memory");
    make_value(value, id, 1, len);
    for (uint32_t i = 0; i < 2; i++)
        items[i] = (skv_item){.key = key_for(s, id + i, &texts[i]), .value = value, .value_len = len, .type = SKV_T_BYTES};
    skv_status status;
    INSIST(status, wait, skv_put_many(s, items, 2, &wait));
    free(value);
    return status;
}

static void put_thousands(skv *s, uint32_t count)
{
    skv_item *items = calloc(count, sizeof *items);
    key_text *texts = calloc(count, sizeof *texts);
    REQUIRE(items && texts, "no memory");
    for (uint32_t i = 0; i < count; i++)
        items[i] = (skv_item){.key = key_for(s, i, &texts[i]), .value = "v", .value_len = 1, .type = SKV_T_BYTES};
    skv_status status;
    INSIST(status, wait, skv_put_many(s, items, count, &wait));
    REQUIRE_OK(status);
    free(items);
    free(texts);
}

/* The arrays of a batch stay for the next one, unless they are very long. */
static void arrays_of_batches(void)
{
    box b;
    make_box(&b, 16 * MIB, 0);
    put_thousands(b.store, 1000);
    const skv_scratch *kept = skv_load(&b.store->scratch);
    REQUIRE(kept && kept->room >= kept->used, "of %zu bytes %zu were used", kept->room, kept->used);
    put_thousands(b.store, 1000);
    put_thousands(b.store, 10);
    REQUIRE(skv_load(&b.store->scratch) == kept, "the same again");
    put_thousands(b.store, 20000);
    REQUIRE(skv_load(&b.store->scratch) == NULL, "too long to be kept");
    put_thousands(b.store, 10);
    put_thousands(b.store, 1000);
    kept = skv_load(&b.store->scratch);
    REQUIRE(kept && kept->room >= kept->used && kept->room <= SKV_SCRATCH_MOST, "made longer where it was too short");
    skv_wait wait = patient();
    REQUIRE_OK(skv_clear(b.store, &wait));
    REQUIRE(skv_count_items(b.store) == 0, "all gone");
    require_no_leaks(b.store);
    remove_box(&b);
}

static void full_of(uint64_t size, size_t len)
{
    box b;
    found f = {0};
    uint32_t removed;
    make_box(&b, size, 0);
    skv *s = b.store;
    uint64_t end = fill(s, 0, len);
    REQUIRE(end * (len + 60) * 10 > (size - 400 * KIB) * 7, "only %d values of %zu bytes in %" PRIu64, (int)end, len, size);
    uint64_t items = skv_count_items(s);
    REQUIRE(put_two(s, end, len) == SKV_FULL && skv_count_items(s) == items, "a batch that does not fit changes nothing");
    /* What frees room must not need any. */
    key_text text;
    skv_item one = {.key = key_for(s, 0, &text)};
    skv_status status;
    INSIST(status, wait, skv_delete_many(s, &one, 1, &removed, &wait));
    REQUIRE(status == SKV_OK && removed == 1, "delete_many() in a full store: status %d", (int)status);
    for (uint64_t id = 1; id < end; id += 2)
        REQUIRE_OK(delete_id(s, id));
    uint64_t again = end;
    while (again < end + end / 4 && put_value(s, again, again + 1, len, 0) == SKV_OK)
        again++;
    REQUIRE(again >= end + end / 4, "half was deleted, and only %d of %d fit", (int)(again - end), (int)(end / 2));
    for (uint64_t id = 2; id < end; id += 2)
        REQUIRE(counter_of(s, id, &f) == id + 1, "key %d", (int)id);
    again = fill(s, again, len);
    status = clear_all(s);
    REQUIRE(status == SKV_OK && skv_count_items(s) == 0, "clear() of a full store: status %d", (int)status);
    REQUIRE(fill(s, 0, len) * 10 >= end * 9, "after clear() as much fits as before");
    REQUIRE_OK(clear_all(s));
    free(f.value);
    require_no_leaks(s);
    remove_box(&b);
}

static void full(void)
{
    full_of(MIB, VALUE_HEAD);
    full_of(2 * MIB, 100);
    full_of(8 * MIB, 1000);
    full_of(8 * MIB, 7000);
    full_of(8 * MIB, 30000);
    full_of(8 * MIB, 65000);
    full_of(16 * MIB, 150000);
    full_of(16 * MIB, 1000000);
}

/* What small values left is given to large ones, and the other way round. */
static void full_of_another_size(void)
{
    box b;
    make_box(&b, 8 * MIB, 0);
    static const size_t lens[] = {50, 30000, 200, 300000, 40, 70000, 1000};
    for (uint32_t i = 0; i < COUNT(lens); i++) {
        uint64_t end = fill(b.store, 0, lens[i]);
        uint64_t block = lens[i] > 65000 ? (lens[i] + 65535) / 65536 * 65536 : lens[i] + 60;
        REQUIRE(end * block > 5 * MIB, "only %d values of %zu bytes fit", (int)end, lens[i]);
        for (uint64_t id = 0; id < end; id++)
            REQUIRE_OK(delete_id(b.store, id));
    }
    require_no_leaks(b.store);
    remove_box(&b);
}

/* Where a page or two are free, tables of several sizes want the same one: making room for the one takes none from the
 * other.  Nobody else is there, so a batch is stored, or there is no room for it. */
static void tables_of_a_batch_without_room(void)
{
    enum { MOST = 140, FREE_PAGES = 5 };
    static key_text texts[MOST];
    static skv_item items[MOST];
    static uint8_t values[MOST][VALUE_HEAD];
    uint32_t stored = 0, refused = 0;
    for (uint32_t trial = 0; trial < 40 * FREE_PAGES; trial++) {
        box b;
        skv_wait wait = {.block = true, .shared = true, .blamed_slot = SKV_NO_PROC};
        make_box(&b, MIB, 0);
        fill(b.store, 0, 60000);
        for (uint32_t i = 0; i <= trial % FREE_PAGES; i++)
            REQUIRE_OK(delete_id(b.store, i));
        uint32_t count = MOST - 2 * (trial / FREE_PAGES);
        for (uint32_t i = 0; i < count; i++) {
            make_value(values[i], 1000 * (trial + 1) + i, 1, VALUE_HEAD);
            items[i] = (skv_item){.key = key_for(b.store, 1000 * (trial + 1) + i, &texts[i]), .value = values[i],
                                  .value_len = VALUE_HEAD, .type = SKV_T_BYTES};
        }
        skv_status status = skv_put_many(b.store, items, count, &wait);
        REQUIRE(status == SKV_OK || status == SKV_FULL, "%u items, %u pages: status %d", count, trial % FREE_PAGES + 1, (int)status);
        stored += status == SKV_OK;
        refused += status == SKV_FULL;
        require_no_leaks(b.store);
        remove_box(&b);
    }
    REQUIRE(stored > FREE_PAGES && refused > FREE_PAGES, "%u stored, %u refused", stored, refused);
}

/* Whatever lies where, cold items go until a value fits that takes a quarter of the store.  As it fills and empties, pages of
 * tables come to lie in every stretch that is long enough, and are moved out of the way. */
static void large_values_in_an_evicting_store(void)
{
    box b;
    uint64_t id = 5000;
    make_box(&b, 2 * MIB, SKV_FLAG_EVICT);
    for (uint32_t round = 0; round < 100; round++) {
        for (uint32_t i = 0; i < (round % 10 == 0 ? 3000 : 30 * round); i++)
            REQUIRE_OK(put_value(b.store, id++, 1, round % 10 == 5 ? 60 : 3000, 0));
        skv_status status = put_value(b.store, 77, 1, 400000 + round % 4 * 30000, 0);
        REQUIRE(status == SKV_OK, "round %u: status %d", round, (int)status);
        REQUIRE_OK(delete_id(b.store, 77));
    }
    require_clean(b.store);
    remove_box(&b);
}

/* Alone in the store, compact() gives free memory back; the next large value must get it again. */
static void large_value_after_punching(void)
{
    box b;
    found f = {0};
    skv_compact_report report;
    make_box(&b, 64 * MIB, 0);
    uint64_t end = fill(b.store, 0, 60000);
    for (uint64_t id = 0; id < end; id++)
        REQUIRE_OK(delete_id(b.store, id));
    REQUIRE_OK(compact_all(b.store, &report));
    REQUIRE(report.bytes_to_return > 32 * MIB, "%" PRIu64 " bytes were given back", report.bytes_to_return);
    for (uint64_t id = 0; id < 3; id++)
        REQUIRE_OK(put_value(b.store, id, id + 1, 12 * MIB, 0));
    for (uint64_t id = 0; id < 3; id++)
        REQUIRE(counter_of(b.store, id, &f) == id + 1, "key %d", (int)id);
    free(f.value);
    require_no_leaks(b.store);
    remove_box(&b);
}

/* A page's kind may be wrong at any time (whoever derived it was overtaken): that costs room, never an item. */
static void kinds_that_lie(void)
{
    enum { IDS = 400 };
    static uint64_t counter[IDS];
    box b;
    found f = {0};
    rng r = {seed};
    make_box(&b, 16 * MIB, 0);
    for (uint64_t step = 1; step <= 6000 / SLOW; step++) {
        for (uint32_t page = 0; step % 20 == 0 && page < skv_committed_pages(b.store); page++)
            skv_store(&b.store->kinds[page], (uint8_t)(below(&r, 2) ? below(&r, SKV_KIND_FULL + 1) : rnd(&r)));
        uint64_t id = below(&r, IDS);
        REQUIRE(counter_of(b.store, id, &f) == counter[id], "key %d", (int)id);
        if (below(&r, 4) == 0) {
            REQUIRE(delete_id(b.store, id) == (counter[id] ? SKV_OK : SKV_MISSING), "key %d", (int)id);
            counter[id] = 0;
            continue;
        }
        size_t len = VALUE_HEAD + below(&r, below(&r, 10) ? 9000 : 200000);
        skv_status status = put_value(b.store, id, step, len, 0);
        REQUIRE(status == SKV_OK || status == SKV_FULL, "status %d", (int)status);
        counter[id] = status == SKV_OK ? step : counter[id];
    }
    for (uint64_t id = 0; id < IDS; id++)
        REQUIRE(counter_of(b.store, id, &f) == counter[id], "key %d", (int)id);
    for (uint32_t page = 0; page < skv_committed_pages(b.store); page++)
        skv_page_refresh_kind(b.store, page);
    free(f.value);
    require_no_leaks(b.store);
    remove_box(&b);
}

/* Every second of many runs goes: room for a longer one is there, but not in one piece. */
static void large_value_among_runs(void)
{
    box b;
    found f = {0};
    make_box(&b, 16 * MIB, 0);
    uint64_t end = fill(b.store, 0, 120000);
    for (uint64_t id = 0; id < end; id += 2)
        REQUIRE_OK(delete_id(b.store, id));
    REQUIRE_OK(put_value(b.store, 100000, 1, 2 * MIB, 0));
    for (uint64_t id = 1; id < end; id += 2)
        REQUIRE(counter_of(b.store, id, &f) == id + 1, "key %d", (int)id);
    free(f.value);
    require_no_leaks(b.store);
    remove_box(&b);
}

/* compact() of what is compact already moves nothing. */
static void second_compact_moves_nothing(void)
{
    box b;
    skv_compact_report report;
    make_box(&b, 32 * MIB, 0);
    for (uint64_t id = 0; id < 5000; id++)
        REQUIRE_OK(put_value(b.store, id, 1, VALUE_HEAD + id % 300, 0));
    for (uint64_t id = 0; id < 20; id++)
        REQUIRE_OK(put_value(b.store, 10000 + id, 1, 150000, 0));
    for (int i = 0; i < 3; i++)
        REQUIRE_OK(compact_all(b.store, &report));
    REQUIRE(report.moved <= 16, "the third compact() in a row moved %" PRIu64 " blocks", report.moved);
    remove_box(&b);
}

static uint32_t commits_until_failure;
static skv_status (*real_commit)(void *context, uint64_t offset, uint64_t len);

static skv_status failing_commit(void *context, uint64_t offset, uint64_t len)
{
    if (commits_until_failure == 0)
        return SKV_NO_SPACE;
    commits_until_failure--;
    return real_commit(context, offset, len);
}

/* The file system fills up at each step of growth, and then has room again. */
static void file_system_full(void)
{
    box b;
    found f = {0};
    make_box(&b, 16 * MIB, 0);
    real_commit = b.store->os.commit;
    b.store->os.commit = failing_commit;
    uint64_t id = 0, failures = 0;
    for (uint32_t steps = 0; id < 12000; steps = (steps + 1) % 4) {
        commits_until_failure = steps;
        skv_status status = SKV_OK;
        while (id < 12000 && (status = put_value(b.store, id, id + 1, 1000, 0)) == SKV_OK)
            id++;
        REQUIRE(status == SKV_OK || status == SKV_NO_SPACE, "status %d", (int)status);
        failures += status == SKV_NO_SPACE;
        REQUIRE(!get_id(b.store, id, &f), "the one that was refused");
        require_clean(b.store);
    }
    REQUIRE(failures > 3, "the file system was full %d times", (int)failures);
    for (uint64_t i = 0; i < id; i++)
        REQUIRE(counter_of(b.store, i, &f) == i + 1, "key %d", (int)i);
    commits_until_failure = UINT32_MAX;
    free(f.value);
    require_no_leaks(b.store);
    remove_box(&b);
}

/* ---- Eviction ------------------------------------------------------------------------------------------------ */

static void eviction(void)
{
    box b;
    found f = {0};
    rng r = {seed};
    make_box(&b, 8 * MIB, SKV_FLAG_EVICT);
    skv *s = b.store;
    for (uint64_t id = 0; id < 60000 / SLOW; id++) {
        REQUIRE_OK(put_value(s, id, id + 1, VALUE_HEAD + below(&r, 500), 0));
        REQUIRE(counter_of(s, id, &f) == id + 1, "key %d right after its put", (int)id);
        if (id % 10 == 0)
            for (uint64_t hot = 0; hot < 50; hot++)
                get_id(s, hot, &f);
    }
    uint64_t there = 0, hot = 0;
    for (uint64_t id = 0; id < 60000 / SLOW; id++)
        there += counter_of(s, id, &f) != 0;
    for (uint64_t id = 0; id < 50; id++)
        hot += counter_of(s, id, &f) != 0;
    REQUIRE(there * 300 > 3 * MIB || there == 60000 / SLOW, "only %d items were kept", (int)there);
    REQUIRE(hot >= 45, "of 50 items that were read all the time %d were kept", (int)hot);
    require_clean(s);
    /* Other sizes, and larger than a page: the store goes on. */
    for (uint64_t i = 0; i < 200; i++)
        REQUIRE_OK(put_value(s, 1000000 + i, 1, i % 2 ? 40000 : 300000, 0));
    for (uint64_t i = 0; i < 20; i++)
        REQUIRE_OK(put_value(s, 2000000 + i, 1, skv_max_value(s), 0));
    for (uint64_t i = 0; i < 20000 / SLOW; i++)
        REQUIRE_OK(put_value(s, 3000000 + i, i + 1, 60, 0));
    free(f.value);
    require_no_leaks(s);
    remove_box(&b);
}

/* ---- Not waiting, not writing -------------------------------------------------------------------------------- */

/* With block = false a call that would take long says SKV_BUSY and has changed nothing. */
static void without_waiting(void)
{
    box b;
    make_box(&b, 32 * MIB, 0);
    skv *s = b.store;
    uint32_t busy = 0;
    key_text text;
    static uint8_t value[2000];
    for (uint64_t id = 0; id < 10000; id++) {
        skv_item item = {.key = key_for(s, id, &text), .value = value, .value_len = sizeof value, .type = SKV_T_BYTES};
        skv_wait wait = {.block = false};
        skv_status status = skv_put(s, &item, SKV_PUT_ABSENT, 0, &wait);
        REQUIRE(status == SKV_OK || status == SKV_BUSY, "status %d", (int)status);
        if (status == SKV_BUSY) {
            busy++;
            wait = patient();
            REQUIRE_OK(skv_put(s, &item, SKV_PUT_ABSENT, 0, &wait));
        }
    }
    REQUIRE(busy >= 10 && busy < 100, "the region grew some 20 times, and %u puts had to wait", busy);
    require_no_leaks(s);
    remove_box(&b);
}

static void read_only(void)
{
    box b;
    found f = {0};
    make_box(&b, 4 * MIB, 0);
    REQUIRE_OK(put_value(b.store, 1, 1, 50, 0));
    skv_region *region;
    REQUIRE_OK(skv_region_attach(b.fd, true, &region));
    skv *s = skv_region_store(region);
    REQUIRE(counter_of(s, 1, &f) == 1 && skv_count_items(s) == 1, "reads are possible");
    REQUIRE(put_value(s, 1, 2, 50, 0) == SKV_READ_ONLY, "put");
    REQUIRE(delete_id(s, 1) == SKV_READ_ONLY, "delete");
    REQUIRE(put_two(s, 1, 50) == SKV_READ_ONLY, "put_many");
    skv_wait wait = patient();
    skv_compact_report report;
    REQUIRE(skv_clear(s, &wait) == SKV_READ_ONLY, "clear");
    REQUIRE(skv_compact(s, &report, &wait) == SKV_READ_ONLY, "compact");
    REQUIRE(skv_sweep_expired(s, 1, NULL, &wait) == SKV_READ_ONLY, "sweep");
    skv_region_detach(region);
    free(f.value);
    remove_box(&b);
}

/* ---- Attach --------------------------------------------------------------------------------------------------- */

static void attach_and_detach(void)
{
    box b;
    skv_stats stats;
    make_box(&b, 4 * MIB, 0);
    for (int i = 0; i < 1000; i++) {
        detach_box(&b);
        attach_box(&b, false);
        if (i % 10 == 0)
            REQUIRE_OK(put_value(b.store, (uint64_t)i, 1, 100, 0));
    }
    REQUIRE_OK(skv_get_stats(b.store, &stats));
    REQUIRE(stats.processes == 1 && stats.items == 100, "%u processes", stats.processes);
    REQUIRE(count_leaks(b.store) == 0, "leaks");
    require_no_leaks(b.store);
    remove_box(&b);
}

static const test tests[] = {
    {"one_key", one_key},
    {"counters", counters},
    {"expiry", expiry},
    {"sizes", sizes},
    {"against_model", against_model},
    {"several_overwrites", several_overwrites},
    {"growth", growth},
    {"overwrites_then_compact", overwrites_then_compact},
    {"arrays_of_batches", arrays_of_batches},
    {"full", full},
    {"full_of_another_size", full_of_another_size},
    {"tables_of_a_batch_without_room", tables_of_a_batch_without_room},
    {"large_values_in_an_evicting_store", large_values_in_an_evicting_store},
    {"large_value_after_punching", large_value_after_punching},
    {"kinds_that_lie", kinds_that_lie},
    {"large_value_among_runs", large_value_among_runs},
    {"second_compact_moves_nothing", second_compact_moves_nothing},
    {"file_system_full", file_system_full},
    {"eviction", eviction},
    {"without_waiting", without_waiting},
    {"read_only", read_only},
    {"attach_and_detach", attach_and_detach},
};

/* test_store SEED [NAME...] */
int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10);
    return run_tests(tests, COUNT(tests), argv + (argc > 1 ? 2 : 1), 60);
}
