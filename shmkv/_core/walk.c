/* walk.c: looking at whole buckets: copies for scan and range, counts, statistics.
 *
 * How:  a bucket is read like a key: note the counter, read all slots, look again.  A bucket
 *       that is overtaken WALK_TRIES times is read under its lock, if that can be had without
 *       waiting; if it cannot, its holder either finishes soon or changes nothing.
 *
 * Concurrency: any thread; writers wait at most for one bucket to be copied, and only then.
 */
#include <stdlib.h>

#include "lock.h"
#include "pages.h"
#include "procs.h"
#include "read.h"
#include "repair.h"

#define WALK_TRIES 8u

typedef struct glance {         /* one try to read a bucket                                   */
    skv_bucket *bucket;
    uint64_t seq, table;
    skv_overlay overlay;
} glance;

static void look(const skv *store, skv_bucket *bucket, glance *g)
{
    g->bucket = bucket;
    g->seq = skv_load_acquire(&bucket->seq);
    g->table = skv_load_acquire(&bucket->table);
    skv_overlay_of_bucket(store, bucket, &g->overlay);
}

static bool still_true(const glance *g)
{
    skv_fence_acquire();
    return skv_load_acquire(&g->bucket->seq) == g->seq
           && (!g->overlay.status_word || skv_load_acquire(g->overlay.status_word) == g->overlay.status);
}

/* Calls `try_once` until it read the bucket undisturbed.  It returns SKV_AGAIN to be called again
 * (say, after it made room with no lock held), or a final status. */
typedef skv_status (*bucket_reader)(skv *store, const glance *g, bool locked, void *context);

static skv_status read_bucket(skv *store, skv_bucket *bucket, bucket_reader try_once, void *context)
{
    for (uint32_t tries = 0;; tries++) {
        glance g;
        bool locked = tries >= WALK_TRIES && !store->read_only && skv_register(store) == SKV_OK
                      && skv_trylock(store, &bucket->lock);
        look(store, bucket, &g);
        skv_status status = try_once(store, &g, locked, context);
        bool good = still_true(&g);
        if (locked)
            skv_unlock(store, &bucket->lock);
        if (status != SKV_AGAIN && good)
            return skv_is_whole(store) ? status : SKV_CORRUPT;
        if (tries > WALK_TRIES)
            skv_lock_repair_if_dead(store, &bucket->lock, skv_repair_bucket, bucket);
        skv_view view = {0};
        skv_relax(store, &view, tries);
    }
}

/* ---- Copies --------------------------------------------------------------------------------- */

typedef struct copy_args {
    bool with_values;
    skv_filter filter;
    void *context;
    skv_copies *out;
    uint64_t now;
    size_t wanted_items, wanted_bytes;  /* what a try lacked                                  */
} copy_args;

static bool copy_item(const copy_args *args, const skv_head *head)
{
    skv_copies *out = args->out;
    const uint32_t copied = args->with_values ? head->value_len : 0;
    size_t bytes = (size_t)head->key_len + copied;
    if (out->count == out->items_room || bytes > out->bytes_room - out->bytes_used)
        return false;
    skv_copied *item = &out->items[out->count++];
    *item = (skv_copied){.version = head->version, .expires_ms = head->expires_ms, .key_len = head->key_len,
                         .value_len = head->value_len, .type = head->type, .is_bytes = head->flags & SKV_REC_BYTES_KEY,
                         .key_at = out->bytes_used, .value_at = out->bytes_used + head->key_len};
    skv_copy_racy(out->bytes + item->key_at, head->key, head->key_len);
    skv_copy_racy(out->bytes + item->value_at, head->key + head->key_len, copied);
    out->bytes_used += bytes;
    return true;
}

static bool passes_filter(const copy_args *args, const skv_head *head)
{
    return !args->filter || args->filter(args->context, head->key, head->key_len, head->flags & SKV_REC_BYTES_KEY);
}

/* Records lie anywhere: without this, each slot of a walk waits for memory by itself. */
#define RECORDS_AHEAD 16u

static inline void prefetch_item(const skv *store, const skv_slot *slot)
{
    const uint8_t *record = store->base + skv_slot_offset(skv_load(&slot->a));
    __builtin_prefetch(record);
    __builtin_prefetch(record + 40);    /* the key's end, where records straddle cache lines   */
}

static void prefetch_first(const skv *store, const skv_slot *slots, uint64_t capacity)
{
    for (uint64_t i = 0; i < RECORDS_AHEAD && i < capacity; i++)
        prefetch_item(store, &slots[i]);
}

/* The table of a bucket is known from its header, a walk's next one. */
static void prefetch_table(const skv *store, uint64_t bucket)
{
    if (bucket >= store->bucket_count)
        return;
    const skv_slot *slots = skv_slots(store, skv_load(&store->buckets[bucket].table));
    for (uint32_t line = 0; slots && line < RECORDS_AHEAD / 4; line++)
        __builtin_prefetch(slots + 4 * line);
}

static skv_status copy_once(skv *store, const glance *g, bool locked, void *context)
{
    (void)locked;
    copy_args *args = context;
    const skv_slot *slots = skv_slots(store, g->table);
    args->out->count = args->out->bytes_used = 0;
    args->wanted_items = args->wanted_bytes = 0;
    bool room = true;
    const uint64_t capacity = slots ? skv_table_capacity(g->table) : 0;
    prefetch_first(store, slots, capacity);
    for (uint64_t i = 0; i < capacity; i++) {
        if (i + RECORDS_AHEAD < capacity)
            prefetch_item(store, &slots[i + RECORDS_AHEAD]);
        uint64_t a = skv_overlay_slot(&g->overlay, i, &slots[i]);
        skv_head head;
        if (!skv_slot_is_live(a) || !skv_read_head(store, skv_slot_offset(a), &head))
            continue;
        if ((head.expires_ms && args->now >= head.expires_ms) || !passes_filter(args, &head))
            continue;
        args->wanted_items++;
        args->wanted_bytes += head.key_len + (args->with_values ? head.value_len : 0);
        room = room && copy_item(args, &head);
    }
    /* Each record has a block of its own: only slots of a damaged table that name one record again and again make
     * more than the region holds, and the memory of this process is not theirs to fill. */
    if (args->wanted_bytes > store->size)
        return SKV_CORRUPT;
    return room ? SKV_OK : SKV_MISSING;         /* MISSING: undisturbed, but without room      */
}

static skv_status make_copies_room(skv_copies *out, size_t items, size_t bytes)
{
    items += items / 8 + 16;
    bytes += bytes / 8 + 256;
    if (items > out->items_room) {
        skv_copied *more = realloc(out->items, items * sizeof *more);
        if (!more)
            return SKV_NO_MEMORY;
        out->items = more;
        out->items_room = items;
    }
    if (bytes > out->bytes_room) {
        uint8_t *more = realloc(out->bytes, bytes);
        if (!more)
            return SKV_NO_MEMORY;
        out->bytes = more;
        out->bytes_room = bytes;
    }
    return SKV_OK;
}

skv_status skv_copy_bucket(skv *store, uint64_t bucket, bool with_values, skv_filter filter, void *context, skv_copies *out)
{
    copy_args args = {with_values, filter, context, out, skv_now_ms(store), 0, 0};
    if (bucket >= store->bucket_count)
        return SKV_MISSING;
    skv_status status = make_copies_room(out, 0, 0);
    prefetch_table(store, bucket + 1);
    while (status == SKV_OK) {
        status = read_bucket(store, &store->buckets[bucket], copy_once, &args);
        if (status != SKV_MISSING)
            return status;
        status = make_copies_room(out, args.wanted_items, args.wanted_bytes);
    }
    return status;
}

void skv_free_items(skv_copies *copies)
{
    free(copies->items);
    free(copies->bytes);
    *copies = (skv_copies){0};
}

/* ---- Counts ------------------------------------------------------------------------------------ */

typedef struct count_args {
    uint64_t now, items, value_bytes, table_bytes;
} count_args;

static skv_status count_slots(skv *store, const glance *g, count_args *args)
{
    const skv_slot *slots = skv_slots(store, g->table);
    for (uint64_t i = 0; slots && i < skv_table_capacity(g->table); i++) {
        uint64_t a = skv_overlay_slot(&g->overlay, i, &slots[i]);
        skv_head head;
        if (!skv_slot_is_live(a) || !skv_read_head(store, skv_slot_offset(a), &head)
            || (head.expires_ms && args->now >= head.expires_ms))
            continue;
        args->items++;
        args->value_bytes += head.value_len;
    }
    return SKV_OK;
}

/* The bucket's own counts are right when nobody is inside and nothing has expired (I11). */
static skv_status count_once(skv *store, const glance *g, bool locked, void *context)
{
    count_args *args = context;
    uint64_t earliest = skv_load_acquire(&g->bucket->earliest_expiry);
    args->items = args->value_bytes = 0;
    args->table_bytes = g->table ? skv_table_bytes(skv_table_capacity(g->table)) : 0;
    bool quiet = locked || !skv_lock_held(&g->bucket->lock);
    if (!quiet || g->overlay.status_word || (earliest && args->now >= earliest))
        return count_slots(store, g, args);
    args->items = skv_load(&g->bucket->count);
    args->value_bytes = skv_load(&g->bucket->value_bytes);
    return locked || !skv_lock_held(&g->bucket->lock) ? SKV_OK : SKV_AGAIN;
}

static void count_bucket(skv *store, uint64_t bucket, count_args *args)
{
    args->now = skv_load_acquire(&store->buckets[bucket].earliest_expiry) ? skv_now_ms(store) : 0;
    read_bucket(store, &store->buckets[bucket], count_once, args);
}

uint64_t skv_count_items(skv *store)
{
    uint64_t items = 0;
    for (uint64_t i = 0; i < store->bucket_count; i++) {
        count_args args = {0};
        count_bucket(store, i, &args);
        items += args.items;
    }
    return items;
}

uint64_t skv_bucket_count(const skv *store)
{
    return store->bucket_count;
}

/* ---- Statistics ---------------------------------------------------------------------------------- */

static void sum_processes(const skv *store, skv_stats *out)
{
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++) {
        const skv_proc *proc = &store->procs[slot];
        out->processes += skv_is_living(store, slot);
        for (uint32_t i = 0; i < SKV_COUNTERS; i++)
            out->counters[i] += skv_load(&proc->counters[i]) + skv_load(&proc->shared_counters[i]);
    }
}

static void sum_pages(const skv *store, skv_stats *out)
{
    uint32_t end = skv_committed_pages(store), free_pages = 0, punched = 0;
    for (uint32_t page = 0; page < end; page++) {
        uint32_t state = skv_pw_state(skv_load(&store->pages[page].word));
        free_pages += state == SKV_PAGE_FREE;
        punched += state == SKV_PAGE_PUNCHED;
    }
    uint64_t fixed = store->fixed.descriptors_offset + end * (uint64_t)sizeof(skv_page);
    out->committed = fixed + ((uint64_t)(end - punched) << SKV_PAGE_SHIFT);
    out->used = fixed + ((uint64_t)(end - punched - free_pages) << SKV_PAGE_SHIFT);
}

skv_status skv_get_stats(skv *store, skv_stats *out)
{
    *out = (skv_stats){.size = store->size, .buckets = store->bucket_count};
    for (uint64_t i = 0; i < store->bucket_count; i++) {
        count_args args = {0};
        count_bucket(store, i, &args);
        out->items += args.items;
        out->value_bytes += args.value_bytes;
        out->table_bytes += args.table_bytes;
    }
    sum_processes(store, out);
    sum_pages(store, out);
    return skv_is_whole(store) ? SKV_OK : SKV_CORRUPT;
}
