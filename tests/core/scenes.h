/* scenes.h: the operations whose every instruction is fatal, and the stores that they meet.
 *
 * What: `scenes`, a table.  A scene furnishes a small store, chooses keys, and says what may leak; in some of them
 *       somebody has died before, and his locks and intent are in the way.
 *
 * Concurrency: the process that furnishes is alone in the store.
 */
#ifndef SKV_TEST_SCENES_H
#define SKV_TEST_SCENES_H

#include "every_instruction.h"

/* ---- Preparing a scene ---------------------------------------------------------------------- */

static void preload(skv *store, uint32_t from, uint32_t to, size_t len)
{
    for (uint32_t id = from; id < to; id++) {
        REQUIRE_OK(put_value(store, id, id + 1, len, 0));
        sh->model.counter[id] = id + 1;
    }
}

static void choose(uint64_t *ids, uint64_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        ids[i] = first + i;
}

static bool has_room(skv *store, uint64_t id, uint64_t more)
{
    key_text text;
    skv_key key = key_for(store, id, &text);
    return skv_wanted_capacity(store, skv_bucket_of(store, key.hash), more) == 0;
}

static void few_items(skv *store)
{
    preload(store, 0, 60, 50);
    choose(sh->ids, 5, BATCH);
    choose(sh->corpse_ids, 5, BATCH);
}

/* A key that is not there, in a bucket that has room for it, from `from` on. */
static uint64_t new_id_with_room(skv *store, uint64_t from)
{
    while (from < IDS && (sh->model.counter[from] || !has_room(store, from, 4)))
        from++;
    REQUIRE(from < IDS, "no bucket has room");
    return from;
}

static void new_key(skv *store)
{
    preload(store, 0, 60, 50);
    sh->ids[0] = new_id_with_room(store, 60);
}

/* Four overwrites, four new keys whose tables have room. */
static void half_new_keys(skv *store)
{
    preload(store, 0, 60, 50);
    choose(sh->ids, 3, 4);
    for (uint32_t i = 4; i < BATCH; i++)
        sh->ids[i] = new_id_with_room(store, sh->ids[i - 1] + (i == 4 ? 60 : 1));
}

/* Each in a bucket that has no table yet, or one that is full. */
static void crowded_keys(skv *store)
{
    preload(store, 0, 40, 50);
    uint64_t id = 40;
    for (uint32_t i = 0; i < BATCH; i++, id++) {
        while (id < IDS && has_room(store, id, 1))
            id++;
        REQUIRE(id < IDS, "all tables have room");
        sh->ids[i] = id;
    }
}

/* The next put finds its table full. */
static void full_table(skv *store)
{
    uint32_t id = 0;
    preload(store, 0, 60, 24);
    for (id = 60; id < IDS && has_room(store, id, 1); id++)
        preload(store, id, id + 1, 24);
    REQUIRE(id < IDS, "no table is full");
    sh->ids[0] = id;
}

static bool has_free_page(const skv *store)
{
    for (uint32_t page = 0; page < skv_committed_pages(store); page++)
        if (skv_load(&store->pages[page].word) == 0)
            return true;
    return false;
}

/* No page is free; the next record is the first of its size. */
static void full_pages(skv *store)
{
    uint32_t id = 0;
    preload(store, 0, 30, 50);
    for (id = 30; id < 60 && has_free_page(store); id++)
        preload(store, id, id + 1, 60000);
    REQUIRE(!has_free_page(store), "pages are free");
    sh->ids[0] = new_id_with_room(store, id);
}

/* Three pages, with few items in each. */
static void sparse_pages(skv *store)
{
    preload(store, 0, 120, 1450);
    for (uint32_t id = 0; id < 120; id++)
        if (id % 12) {
            REQUIRE_OK(delete_id(store, id));
            sh->model.counter[id] = 0;
        }
}

/* One item has a page of units for itself. */
static void one_of_units(skv *store)
{
    preload(store, 0, 20, 50);
    preload(store, 20, 21, 10000);
    sh->ids[0] = 20;
}

/* One item is a run. */
static void one_run(skv *store)
{
    preload(store, 0, 20, 50);
    preload(store, 20, 21, 150000);
    sh->ids[0] = 20;
}

static void few_small_items(skv *store)
{
    preload(store, 0, 20, 50);
    sh->ids[0] = new_id_with_room(store, 60);
}

/* ---- Where a corpse died -------------------------------------------------------------------- */

static uint32_t buckets_with_txn(skv *store)
{
    uint32_t count = 0;
    for (uint64_t i = 0; i < store->bucket_count; i++)
        count += skv_load(&store->buckets[i].txn) != 0;
    return count;
}

static bool has_batch(skv *store, enum skv_batch_status status)
{
    for (uint32_t slot = 0; slot < 8; slot++)
        if ((skv_load(&store->procs[slot].status) & 3) == (uint64_t)status)
            return true;
    return false;
}

static bool half_announced(skv *store) { return has_batch(store, SKV_BATCH_PENDING) && buckets_with_txn(store) == 4; }
static bool half_applied(skv *store) { return has_batch(store, SKV_BATCH_COMMITTED) && buckets_with_txn(store) == 4; }

static bool put_not_bumped(skv *store)
{
    found f = {0};
    key_text text;
    skv_key key = key_for(store, sh->corpse_ids[0], &text);
    bool locked = skv_load(&skv_bucket_of(store, key.hash)->lock) != 0;
    bool published = locked && counter_of(store, sh->corpse_ids[0], &f) == now->corpse.counter;
    free(f.value);
    return published;
}

/* A run of which only the head says so. */
static bool run_without_tails(skv *store)
{
    for (uint32_t page = 0; page + 1 < skv_committed_pages(store); page++)
        if (skv_pw_state(skv_load(&store->pages[page].word)) == SKV_PAGE_RUN)
            return skv_load(&store->pages[page + 1].word) == 0;
    return false;
}

static bool growing(skv *store) { return skv_load(&store->header->grow_lock) != 0; }

/* ---- All scenes ----------------------------------------------------------------------------- */

#define LEASED_PAGES (16 * MIB)
#define SHARED_PAGES MIB        /* too small for leases                                       */

/* A little longer than what they replace, in the same size class: derived sums of bytes change too. */
static const deed one_put = {.kind = PUT, .count = 1, .counter = 70, .len = 52};
static const deed eight_puts = {.kind = PUT_MANY, .count = BATCH, .counter = 71, .len = 52};
static const deed dying_put = {.kind = PUT, .count = 1, .counter = 80, .len = 51};
static const deed dying_batch = {.kind = PUT_MANY, .count = BATCH, .counter = 81, .len = 51};
static const deed dying_run = {.kind = PUT, .count = 1, .counter = 82, .len = 150000};

static const scene scenes[] = {
    {.name = "put_new", .size = LEASED_PAGES, .furnish = new_key, .deed = one_put, .warm_puts = 1, .gil = true,
     .records = 1},
    {.name = "put_over", .size = LEASED_PAGES, .furnish = few_items, .deed = one_put, .warm_puts = 2, .gil = true,
     .records = 1},
    {.name = "put_over_shared", .size = SHARED_PAGES, .furnish = few_items, .deed = one_put, .records = 1},
    {.name = "delete", .size = LEASED_PAGES, .furnish = few_items, .deed = {.kind = DELETE, .count = 1},
     .gil = true, .records = 1},
    {.name = "growth_of_table", .size = SHARED_PAGES, .furnish = full_table, .deed = one_put, .records = 1,
     .tables = 1},
    {.name = "growth_of_region", .size = 8 * MIB, .furnish = full_pages,
     .deed = {.kind = PUT, .count = 1, .counter = 72, .len = 700}, .records = 1},
    {.name = "put_many", .size = LEASED_PAGES, .furnish = half_new_keys, .deed = eight_puts, .warm_puts = 1,
     .gil = true, .records = BATCH, .tables = 1},
    {.name = "put_many_growing", .size = LEASED_PAGES, .furnish = crowded_keys, .deed = eight_puts, .warm_puts = 1,
     .gil = true, .records = BATCH, .tables = 1 + BATCH},
    {.name = "delete_many", .size = LEASED_PAGES, .furnish = few_items,
     .deed = {.kind = DELETE_MANY, .count = BATCH}, .gil = true, .records = BATCH},
    {.name = "clear", .size = SHARED_PAGES, .furnish = few_items, .deed = {.kind = CLEAR}, .records = 60,
     .tables = 16},
    {.name = "evacuation", .size = SHARED_PAGES, .furnish = sparse_pages, .deed = {.kind = EVACUATE}, .records = 1},
    {.name = "put_units", .size = 4 * MIB, .furnish = few_small_items,
     .deed = {.kind = PUT, .count = 1, .counter = 75, .len = 10000}, .records = 1},
    {.name = "delete_units", .size = 4 * MIB, .furnish = one_of_units, .deed = {.kind = DELETE, .count = 1},
     .records = 1},
    {.name = "put_run", .size = 4 * MIB, .furnish = few_small_items,
     .deed = {.kind = PUT, .count = 1, .counter = 74, .len = 66000}, .records = 1},
    {.name = "delete_run", .size = 4 * MIB, .furnish = one_run, .deed = {.kind = DELETE, .count = 1}, .records = 1},
    {.name = "attach", .size = LEASED_PAGES, .furnish = few_items, .deed = {.kind = ATTACH}},
    {.name = "detach", .size = LEASED_PAGES, .furnish = few_items, .deed = {.kind = DETACH, .len = 50},
     .warm_puts = 2, .gil = true, .records = 1},
    {.name = "detach_shared", .size = SHARED_PAGES, .furnish = few_items, .deed = {.kind = DETACH, .len = 50},
     .warm_puts = 2, .gil = true, .records = 1},
    {.name = "create", .size = 4 * MIB, .deed = {.kind = CREATE}},
    {.name = "repair_of_put", .size = LEASED_PAGES, .furnish = few_items, .deed = one_put, .warm_puts = 1,
     .gil = true, .records = 2, .corpse = dying_put, .fatal = put_not_bumped, .corpse_counts = true},
    {.name = "repair_of_announced_batch", .size = LEASED_PAGES, .furnish = few_items, .deed = one_put,
     .warm_puts = 1, .gil = true, .records = 1 + BATCH, .tables = 1, .corpse = dying_batch,
     .fatal = half_announced},
    {.name = "repair_of_committed_batch", .size = LEASED_PAGES, .furnish = few_items, .deed = eight_puts,
     .warm_puts = 1, .gil = true, .records = 2 * BATCH, .tables = 2, .corpse = dying_batch, .fatal = half_applied,
     .corpse_counts = true},
    {.name = "repair_of_pages", .size = 8 * MIB, .furnish = few_items,
     .deed = {.kind = PUT, .count = 1, .counter = 73, .len = 700}, .records = 2, .corpse = dying_run,
     .fatal = run_without_tails},
    {.name = "repair_of_growth", .size = 8 * MIB, .furnish = full_pages,
     .deed = {.kind = PUT, .count = 1, .counter = 73, .len = 700}, .records = 1,
     .corpse = {.kind = PUT, .count = 1, .counter = 83, .len = 900}, .fatal = growing},
    {.name = "compact", .size = SHARED_PAGES, .furnish = sparse_pages, .deed = {.kind = COMPACT}, .records = 1,
     .tables = 1},
    {.name = "reclaim", .size = LEASED_PAGES, .furnish = few_items, .deed = {.kind = RECLAIM}, .warm_puts = 2,
     .gil = true, .records = BATCH + 1, .tables = 1, .corpse = dying_batch, .fatal = half_applied,
     .corpse_counts = true},
    {.name = "reclaim_shared", .size = SHARED_PAGES, .furnish = few_items, .deed = {.kind = RECLAIM},
     .warm_puts = 2, .gil = true, .records = BATCH + 1, .tables = 1, .corpse = dying_batch, .fatal = half_applied,
     .corpse_counts = true},
};

#endif
