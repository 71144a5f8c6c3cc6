/* store.c: writing one key: put, delete, incr, touch.
 *
 * How:  prepare the record with no lock held (it may take long: growth, eviction); lock the
 *       bucket; probe; judge the condition; publish by one store of word A; bump; unlock; free what
 *       was replaced.  If the table is full the lock is given up, a larger table is allocated, and
 *       the operation starts again: nothing is ever allocated under a bucket's lock, so a
 *       thread waits for either buckets or the allocator, never for one while it holds the other.
 *
 *       Killed before the store of A: the prepared block leaks and nothing changed.  After it:
 *       committed; the repair bumps and recounts.  Leaks are found by the audit (compact.c).
 *
 * Concurrency: any thread of any process.
 */
#include "age.h"
#include "alloc.h"
#include "ghost.h"
#include "lease.h"
#include "write.h"

#include <stdlib.h>

#include "compact.h"
#include "logged.h"
#include "repair.h"
#include "spare.h"
#include "sweep.h"

/* ---- Records ------------------------------------------------------------------------------ */

void skv_write_record(skv *store, uint64_t offset, const skv_new_record *record)
{
    uint8_t *at = store->base + offset;
    uint64_t first;
    const bool has_expiry = record->expires_ms != 0;
    skv_record head = {
        .value_len = (uint32_t)record->value_len,
        .key_len = (uint16_t)record->key->len,
        .type = record->type,
        .flags = (uint8_t)((record->key->is_bytes ? SKV_REC_BYTES_KEY : 0) | (has_expiry ? SKV_REC_EXPIRY : 0)),
    };
    memcpy(&first, &head, sizeof first);
    /* A reader of the block's former life may be copying: what it sees of this, it sees after the
     * bump that came before the block was freed.  Pairs with the acquire fence in skv_validate. */
    skv_fence_release();
    _Atomic uint64_t *words = (_Atomic uint64_t *)(void *)at;
    skv_store(&words[0], first);
    skv_store(&words[1], record->version);
    at += sizeof head;
    if (has_expiry) {
        skv_store(&words[2], record->expires_ms);
        at += 8;
    }
    skv_write_racy(at, record->key->data, record->key->len);
    skv_write_racy(at + record->key->len, record->value, record->value_len);
}

/* The version belongs to the bucket's count of changes, so it is known only under its lock. */
static uint64_t next_version_locked(const skv_bucket *bucket)
{
    return skv_load(&bucket->seq) + 1;
}

static void set_version_locked(skv *store, uint64_t offset, uint64_t version)
{
    skv_store(&((_Atomic uint64_t *)(void *)(store->base + offset))[1], version);
}

static skv_status alloc_record(skv *store, uint64_t size, enum skv_effort effort, skv_wait *wait, uint64_t *offset)
{
    *offset = skv_spare_take(store, size, wait);
    return *offset ? SKV_OK : skv_alloc(store, SKV_RECORDS, size, effort, wait, offset);
}

skv_status skv_prepare_record(skv *store, const skv_item *item, enum skv_effort effort, skv_wait *wait, uint64_t *offset)
{
    uint64_t size = skv_record_size(item->key.len, item->value_len, item->expires_ms != 0);
    skv_status status = alloc_record(store, size, effort, wait, offset);
    if (status)
        return status;
    SKV_CRASH("put.allocated");
    skv_new_record record = {&item->key, item->value, item->value_len, item->type, item->expires_ms, 0};
    skv_write_record(store, *offset, &record);
    SKV_CRASH("put.written");
    return SKV_OK;
}

#define RECORDS_AT_ONCE 64u

/* Blocks for items[0], ... of one size, as many as the leased page has, and one at least.  An item that has a block
 * already keeps it. */
static skv_status alloc_records(skv *store, skv_item *const *items, uint32_t count, skv_wait *wait, uint32_t *done)
{
    uint64_t size = skv_record_size(items[0]->key.len, items[0]->value_len, items[0]->expires_ms != 0);
    uint64_t offsets[RECORDS_AT_ONCE];
    uint32_t same = 1;
    *done = 1;
    if (skv_unlikely(items[0]->record))
        return SKV_OK;
    while (same < count && skv_record_size(items[same]->key.len, items[same]->value_len, items[same]->expires_ms != 0) == size)
        same++;
    *done = skv_alloc_leased(store, SKV_RECORDS, size, same, offsets);
    if (*done == 0) {
        skv_status status = skv_alloc(store, SKV_RECORDS, size, SKV_MOVE, wait, &offsets[0]);
        if (status)
            return status;
        *done = 1;
    }
    for (uint32_t i = 0; i < *done; i++)
        items[i]->record = offsets[i];
    SKV_CRASH("batch.allocated");
    return SKV_OK;
}

/* First the blocks, then their bytes: each allocation is an atomic operation, and waits for the stores before it. */
skv_status skv_prepare_records(skv *store, skv_item *const *items, uint32_t count, skv_wait *wait)
{
    for (uint32_t from = 0; from < count; from += RECORDS_AT_ONCE) {
        uint32_t end = count - from < RECORDS_AT_ONCE ? count : from + RECORDS_AT_ONCE;
        for (uint32_t i = from, done; i < end; i += done) {
            skv_status status = alloc_records(store, items + i, end - i, wait, &done);
            if (status)
                return status;
        }
        for (uint32_t i = from; i < end; i++) {
            const skv_item *item = items[i];
            skv_new_record record = {&item->key, item->value, item->value_len, item->type, item->expires_ms, 0};
            skv_write_record(store, item->record, &record);
        }
    }
    SKV_CRASH("batch.written");
    return SKV_OK;
}

bool skv_item_fits(const skv *store, const skv_item *item)
{
    return item->key.len <= SKV_MAX_KEY && item->value_len <= skv_max_value(store);
}

/* ---- Tables -------------------------------------------------------------------------------- */

uint64_t skv_capacity_for(uint64_t bucket, uint64_t items)
{
    uint64_t slots = SKV_MIN_TABLE_SLOTS;
    while (skv_load_limit(bucket, slots - 1) < items)
        slots = skv_next_table_slots(slots);
    return slots - 1;
}

skv_status skv_prepare_table(skv *store, uint64_t bucket, uint64_t capacity, enum skv_effort effort, skv_wait *wait, uint64_t *offset)
{
    if (capacity > SKV_MAX_CAPACITY)
        return SKV_FULL;            /* of one bucket: keys that were chosen for it            */
    skv_status status = skv_alloc(store, SKV_TABLES, skv_table_bytes(capacity), effort, wait, offset);
    if (status)
        return status;
    SKV_CRASH("growth.allocated");
    skv_fence_release();        /* as in skv_write_record                                     */
    skv_meta *meta = (skv_meta *)(void *)(store->base + *offset);
    skv_store(&meta->kind, SKV_META_TABLE);
    skv_store(&meta->owner, (uint32_t)bucket);
    skv_store(&meta->detail, capacity);
    static_assert(SKV_EMPTY == 0 && sizeof(skv_slot) == 16, "an empty slot is two words of zeroes");
    skv_clear_racy((_Atomic uint64_t *)(void *)(meta + 1), 2 * capacity);
    return SKV_OK;
}

uint64_t skv_wanted_capacity(const skv *store, const skv_bucket *bucket, uint64_t more)
{
    uint64_t number = (uint64_t)(bucket - store->buckets), capacity = skv_table_capacity(skv_load(&bucket->table));
    uint64_t live = skv_load(&bucket->count) + more;
    if (capacity && live + skv_load(&bucket->tombstones) <= skv_load_limit(number, capacity))
        return 0;
    /* Full of tombstones rather than of items: the same size again, with none. */
    if (capacity && live * 8 <= skv_load_limit(number, capacity) * 7)
        return capacity;
    uint64_t wanted = skv_capacity_for(number, live);
    return wanted > capacity ? wanted : skv_next_table_slots(capacity + 1) - 1;
}

/* ---- The locked part of a write -------------------------------------------------------------- */

static bool is_live_now(const skv *store, const skv_hit *hit)
{
    return hit->slot && !skv_is_expired(store, hit->head.expires_ms);
}

static void note_expiry_locked(skv_bucket *bucket, uint64_t expires_ms)
{
    uint64_t earliest = skv_load(&bucket->earliest_expiry);
    if (expires_ms && (earliest == 0 || expires_ms < earliest))
        skv_store_release(&bucket->earliest_expiry, expires_ms);
}

static void publish_over_locked(skv_bucket *bucket, const skv_hit *hit, uint64_t a, uint64_t b, uint64_t value_len)
{
    skv_store_release(&hit->slot->a, a);        /* the commit; pairs with skv_probe           */
    SKV_CRASH("put.published");
    skv_store_b_locked(hit->slot, b);
    skv_store(&bucket->value_bytes, skv_load(&bucket->value_bytes) + value_len - hit->head.value_len);
}

/* False: the table has no room, see skv_wanted_capacity. */
static bool publish_new_locked(skv *store, skv_bucket *bucket, uint64_t a, uint64_t b, uint64_t value_len)
{
    uint64_t table = skv_load(&bucket->table), capacity = skv_table_capacity(table);
    skv_slot *slots = skv_slots(store, table);
    if (!slots || skv_wanted_capacity(store, bucket, 1) != 0)
        return false;
    uint64_t at = skv_place_locked(slots, capacity, skv_slot_tag(a), NULL);
    if (at == capacity)
        return false;
    bool was_tombstone = skv_load(&slots[at].a) == SKV_TOMBSTONE;
    if (skv_unlikely(store->evict) && skv_ghost_recall_locked(slots, capacity, skv_slot_tag(a), at))
        b |= SKV_B_PROVEN;
    skv_store(&slots[at].b, b);
    SKV_CRASH("put.hinted");
    skv_store_release(&slots[at].a, a);         /* the commit; pairs with skv_probe           */
    SKV_CRASH("put.published");
    skv_store(&bucket->count, skv_load(&bucket->count) + 1);
    skv_store(&bucket->tombstones, skv_load(&bucket->tombstones) - was_tombstone);
    skv_store(&bucket->value_bytes, skv_load(&bucket->value_bytes) + value_len);
    return true;
}

void skv_remove_locked(skv *store, skv_bucket *bucket, skv_slot *slot, uint32_t value_len)
{
    uint64_t table = skv_load(&bucket->table), capacity = skv_table_capacity(table);
    skv_slot *slots = skv_slots(store, table);
    /* Another table only where a hostile process changed the word under our lock: then a tombstone will do. */
    uint64_t index = ((uint64_t)(uintptr_t)slot - (uint64_t)(uintptr_t)slots) / sizeof *slot;
    uint64_t next = index + 1 == capacity ? 0 : index + 1;
    /* Before an empty slot no probe goes on, so no tombstone is needed. */
    bool last = slots && next < capacity && skv_load(&slots[next].a) == SKV_EMPTY;
    skv_store_release(&slot->a, last ? SKV_EMPTY : SKV_TOMBSTONE);      /* the commit         */
    SKV_CRASH("delete.published");
    skv_store(&bucket->count, skv_load(&bucket->count) - 1);
    skv_store(&bucket->tombstones, skv_load(&bucket->tombstones) + !last);
    skv_store(&bucket->value_bytes, skv_load(&bucket->value_bytes) - value_len);
}

/* ---- One write, from lock to unlock ----------------------------------------------------------- */

void skv_write_begin(skv_write *write, skv *store, const skv_key *key, skv_wait *wait)
{
    write->store = store;
    write->key = key;
    write->wait = wait;
    write->bucket = skv_bucket_of(store, key->hash);
    write->record = write->table = write->replaced = 0;
    write->frame = NULL;
    write->position = 0;        /* all logs are beyond it: nothing to wait for                 */
    write->freed_count = 0;
}

/* Frees what the operation replaced or did not use; nothing names these blocks any more. */
void skv_write_end(skv_write *write)
{
    skv *store = write->store;
    skv_logged_end(write);
    if (skv_likely(write->replaced))
        skv_spare_keep(store, write->replaced, write->wait);
    if (skv_unlikely(write->record))
        skv_free(store, write->record);
    if (skv_unlikely(write->table))
        skv_free(store, write->table);
    for (uint32_t i = 0; i < write->freed_count; i++)
        skv_free(store, write->freed[i]);
}

static void drop_later(skv_write *write, uint64_t offset)
{
    write->freed[write->freed_count++] = offset;
}

skv_status skv_lock_bucket(skv *store, skv_bucket *bucket, skv_wait *wait)
{
    return skv_lock(store, &bucket->lock, wait, skv_repair_bucket, bucket);
}

/* Gives a spare table to the bucket that lacks room, or says how large a one is needed. */
static bool install_table_locked(skv_write *write, uint64_t *wanted)
{
    uint64_t capacity = skv_wanted_capacity(write->store, write->bucket, 1);
    if (capacity == 0)
        return true;
    *wanted = capacity;
    if (!write->table || write->capacity != capacity)
        return false;
    uint64_t old = skv_table_offset(skv_load(&write->bucket->table));
    if (!skv_replace_table_locked(write->store, write->bucket, write->table, capacity)) {
        *wanted = 0;            /* skv_write_run makes SKV_CORRUPT of it                      */
        return false;
    }
    write->table = 0;
    if (old)
        drop_later(write, old);
    return true;
}

static skv_status prepare_spare(skv_write *write, uint64_t capacity)
{
    skv *store = write->store;
    skv_free(store, write->table);
    write->table = 0;
    write->capacity = capacity;
    return skv_prepare_table(store, (uint64_t)(write->bucket - store->buckets), capacity, SKV_MOVE, write->wait, &write->table);
}

static skv_status run_step_locked(skv_write *write, skv_locked_step step, void *context, uint64_t *wanted)
{
    skv_hit hit;
    skv_probe_for(write->store, skv_load(&write->bucket->table), write->key, true, &hit);
    skv_status status = step(write, &hit, context);
    if (status == SKV_NEEDS_TABLE && install_table_locked(write, wanted)) {
        skv_probe(write->store, skv_load(&write->bucket->table), write->key, &hit);
        status = step(write, &hit, context);
    }
    return status;
}

skv_status skv_write_run(skv_write *write, skv_locked_step step, void *context)
{
    skv *store = write->store;
    /* Others may grow the table as often as this thread prepares one: bounded all the same. */
    for (uint32_t round = 0; round < 1000; round++) {
        uint64_t wanted = 0;
        skv_status status = skv_lock_bucket(store, write->bucket, write->wait);
        if (status)
            return status;
        SKV_CRASH("write.locked");
        status = run_step_locked(write, step, context, &wanted);
        if (status == SKV_OK)
            skv_sweep_few_locked(write);
        skv_unlock(store, &write->bucket->lock);
        SKV_CRASH("write.unlocked");
        if (status != SKV_NEEDS_TABLE)
            return skv_likely(skv_load(&store->header->state) == SKV_READY) ? status : SKV_CORRUPT;
        status = wanted ? prepare_spare(write, wanted) : SKV_CORRUPT;
        if (status)
            return status;
    }
    return SKV_BUSY;
}

/* What comes after every commit. */
static void finish_locked(skv_write *write)
{
    if (skv_unlikely(write->frame))
        skv_logged_settle_locked(write);
    else
        skv_bump_locked(write->bucket);
}

/* Where the record will go must be known before it is announced. */
static skv_status log_record_locked(skv_write *write, const skv_hit *hit, uint64_t a, uint64_t b)
{
    skv_bucket *bucket = write->bucket;
    uint64_t table = skv_load(&bucket->table), capacity = skv_table_capacity(table);
    skv_slot *slots = skv_slots(write->store, table), *slot = hit->slot;
    if (!slot) {
        bool room = slots && skv_wanted_capacity(write->store, bucket, 1) == 0;
        uint64_t at = room ? skv_place_locked(slots, capacity, skv_slot_tag(a), NULL) : capacity;
        if (at == capacity)
            return SKV_NEEDS_TABLE;
        slot = &slots[at];
    }
    const skv_intent_entry entry = {.bucket = (uint32_t)(bucket - write->store->buckets), .index = (uint32_t)(slot - slots),
                                    .new_a = a, .old_a = skv_load(&slot->a), .new_b = b};
    return skv_logged_commit_locked(write, slot, &entry);
}

/* Puts `offset` (a prepared record, whose tag and hint bits follow from the key) where `hit` says. */
static skv_status publish(skv_write *write, const skv_hit *hit, uint64_t offset, uint64_t expires_ms, uint64_t value_len)
{
    skv_bucket *bucket = write->bucket;
    uint64_t a = skv_slot_word(skv_tag_of(write->key->hash), offset), b = skv_b_written(write->store, write->key->hash, expires_ms);
    set_version_locked(write->store, offset, next_version_locked(bucket));
    if (skv_unlikely(write->frame)) {
        skv_status status = log_record_locked(write, hit, a, b);
        if (status)
            return status;
    }
    note_expiry_locked(bucket, expires_ms);
    if (hit->slot) {
        publish_over_locked(bucket, hit, a, b, value_len);
        write->replaced = skv_slot_offset(hit->a);
    } else if (!publish_new_locked(write->store, bucket, a, b, value_len)) {
        return SKV_NEEDS_TABLE;
    }
    write->record = 0;          /* it is the store's now                                      */
    finish_locked(write);
    SKV_CRASH("put.bumped");
    if (skv_unlikely(write->store->evict))
        skv_age_count(write->store, skv_record_size(write->key->len, value_len, expires_ms != 0));
    return SKV_OK;
}

/* ---- put ------------------------------------------------------------------------------------- */

typedef struct put_args {
    skv_item *item;
    enum skv_put_condition condition;
    uint64_t version;
} put_args;

static bool condition_holds(const put_args *args, const skv_hit *hit, bool live)
{
    switch (args->condition) {
    case SKV_PUT_ABSENT:
        return !live;
    case SKV_PUT_PRESENT:
        return live;
    case SKV_PUT_VERSION:
        return live && hit->head.version == args->version;
    case SKV_PUT_SAME:
        return live && hit->head.version == args->version && hit->head.expires_ms == args->item->expires_ms;
    default:
        return true;
    }
}

static skv_status put_step(skv_write *write, const skv_hit *hit, void *context)
{
    const put_args *args = context;
    /* The clock is read only where the answer depends on it. */
    if (args->condition != SKV_PUT_ANY && !condition_holds(args, hit, is_live_now(write->store, hit)))
        return SKV_CONDITION;
    if (skv_unlikely(args->item->tell)) {
        args->item->replaced = is_live_now(write->store, hit);
        args->item->version = next_version_locked(write->bucket);
    }
    return publish(write, hit, write->record, args->item->expires_ms, args->item->value_len);
}

static skv_status ready_to_write(skv *store)
{
    return store->read_only ? SKV_READ_ONLY : skv_register(store);
}

static skv_status no_memory_unless(bool good)
{
    return good ? SKV_OK : SKV_NO_MEMORY;
}

/* After an operation: of a durable store, the change is on stable storage too, if that was asked for. */
static skv_status made_stable(skv *store, skv_status status, const skv_wait *wait, uint64_t position)
{
    return skv_unlikely(wait->stable) && status == SKV_OK ? skv_journal_wait(store, position, wait) : status;
}

static skv_status put_once(skv *store, skv_item *item, enum skv_put_condition condition, uint64_t version, skv_wait *wait)
{
    skv_write write;
    uint32_t busy = skv_busy_enter(store, wait->shared);
    skv_write_begin(&write, store, &item->key, wait);
    skv_prefetch_slots(store, &item->key);      /* arrives while the record is written         */
    skv_status status = skv_logged_begin(&write);
    if (status == SKV_OK)
        status = no_memory_unless(skv_logged_put(&write, item));
    if (status == SKV_OK)
        status = skv_prepare_record(store, item, SKV_MOVE, wait, &write.record);
    if (status == SKV_OK)
        status = skv_write_run(&write, put_step, &(put_args){item, condition, version});
    if (status == SKV_OK)
        skv_count(store, SKV_SETS, 1, wait->shared);
    skv_write_end(&write);
    skv_busy_exit(store, busy);
    return made_stable(store, status, wait, write.position);
}

#define AUDIT_SLICES 250u       /* of 20 ms, behind another process's compaction               */

/* Only the dead leak, and each audit looks at the whole store: so not without a reason.  While another
 * process audits or compacts, what it has closed is missed: then its end is worth waiting for. */
static bool audit_helps(skv *store, skv_status status, skv_wait *wait)
{
    if (status != SKV_FULL && status != SKV_NO_SPACE && status != SKV_CGROUP_FULL)
        return false;
    if (store->evict && wait->block)
        skv_reclaim_dead(store, NULL);  /* while there is something to evict, nobody else asks who has died */
    const bool leaks = skv_load(&store->header->deaths) != skv_load(&store->header->audited_deaths);
    if (!wait->block || (!leaks && !skv_lock_held(&store->header->compact_lock)))
        return false;
    uint64_t freed = 0;
    skv_status audited = SKV_BUSY;
    uint32_t slices = 0;
    for (; slices < AUDIT_SLICES && audited == SKV_BUSY; slices++)
        audited = skv_audit(store, &freed, wait);
    return audited == SKV_OK && (freed > 0 || slices > 1 || !leaks);
}

#define EVICT_TRIES 3u

/* What a failed call had taken is free again.  While it had it, nothing named it yet, and none of the pages that it lay in
 * could be emptied: in a small store that evicts these may have been all, or all but those of other writers. */
bool skv_is_worth_another_try(skv *store, skv_status status, uint32_t tries, skv_wait *wait)
{
    if (tries >= (store->evict ? EVICT_TRIES : 1))
        return false;
    return audit_helps(store, status, wait) || (status == SKV_FULL && store->evict);
}

skv_status skv_put(skv *store, skv_item *item, enum skv_put_condition condition, uint64_t version, skv_wait *wait)
{
    skv_status status = ready_to_write(store);
    if (status)
        return status;
    if (!skv_item_fits(store, item))
        return SKV_TOO_LARGE;
    status = put_once(store, item, condition, version, wait);
    for (uint32_t tries = 0; skv_unlikely(status > SKV_BUSY) && skv_is_worth_another_try(store, status, tries, wait); tries++)
        status = put_once(store, item, condition, version, wait);
    return status;
}

/* ---- Several puts ------------------------------------------------------------------------------ */

static skv_status put_prepared(skv *store, skv_item *const *items, uint32_t count, skv_wait *wait, uint32_t *done)
{
    for (; *done < count; ++*done) {
        skv_item *item = items[*done];
        skv_write write;
        skv_write_begin(&write, store, &item->key, wait);
        write.record = item->record;
        item->record = 0;
        skv_status status = skv_write_run(&write, put_step, &(put_args){item, SKV_PUT_ANY, 0});
        skv_write_end(&write);
        if (status)
            return status;
    }
    return SKV_OK;
}

/* One operation, for audits, and one allocation for many blocks: threads of a process meet less often. */
static skv_status put_some(skv *store, skv_item *const *items, uint32_t count, skv_wait *wait, uint32_t *done)
{
    uint32_t first = *done, busy = skv_busy_enter(store, wait->shared);
    for (uint32_t i = first; i < count; i++)
        items[i]->record = 0;
    skv_status status = skv_prepare_records(store, items + first, count - first, wait);
    if (status == SKV_OK)
        status = put_prepared(store, items, count, wait, done);
    for (uint32_t i = *done; i < count; i++)
        skv_free(store, items[i]->record);
    skv_count(store, SKV_SETS, *done - first, wait->shared);
    skv_busy_exit(store, busy);
    return status;
}

/* Each with a frame of its own, and one wait for all of them. */
static skv_status put_each_logged(skv *store, skv_item *const *items, uint32_t count, skv_wait *wait, uint32_t *done)
{
    skv_wait each = *wait;
    skv_status status = SKV_OK;
    each.stable = false;
    while (*done < count && status == SKV_OK) {
        status = skv_put(store, items[*done], SKV_PUT_ANY, 0, &each);
        *done += status == SKV_OK;
    }
    wait->blamed_slot = each.blamed_slot;
    skv_status synced = wait->stable && *done ? skv_journal_sync(store, wait->timeout_ns) : SKV_OK;
    if (synced == SKV_TIMEOUT)
        wait->blamed_slot = skv_journal_holder(store);
    return status ? status : synced;
}

skv_status skv_put_each(skv *store, skv_item *const *items, uint32_t count, skv_wait *wait, uint32_t *done)
{
    *done = 0;
    skv_status status = ready_to_write(store), unfit = SKV_OK;
    if (status)
        return status;
    if (store->journal)
        return put_each_logged(store, items, count, wait, done);
    for (uint32_t i = 0; i < count && !unfit; i++) {
        if (!skv_item_fits(store, items[i])) {
            unfit = SKV_TOO_LARGE;
            count = i;
        }
    }
    status = put_some(store, items, count, wait, done);
    while (skv_unlikely(status > SKV_BUSY) && *done < count) {
        /* Blocks for all of them may be more than there is room for: then one by one. */
        status = skv_put(store, items[*done], SKV_PUT_ANY, 0, wait);
        *done += status == SKV_OK;
        if (status)
            return status;
        status = put_some(store, items, count, wait, done);
    }
    return status ? status : unfit;
}

/* ---- delete ------------------------------------------------------------------------------------ */

typedef struct delete_args {
    uint64_t version;
    bool missing;               /* out: removed, but it had expired before                    */
} delete_args;

static skv_status delete_step(skv_write *write, const skv_hit *hit, void *context)
{
    delete_args *args = context;
    if (!hit->slot)
        return SKV_MISSING;
    args->missing = !is_live_now(write->store, hit);
    if (!args->missing && args->version && hit->head.version != args->version)
        return SKV_CONDITION;
    bool logged = write->frame && !args->missing;       /* what has expired is gone on disk as well */
    skv_status status = logged ? skv_logged_commit_locked(write, hit->slot, NULL) : SKV_OK;
    if (status)
        return status;
    skv_remove_locked(write->store, write->bucket, hit->slot, hit->head.value_len);
    if (logged)
        skv_logged_settle_locked(write);
    else
        skv_bump_locked(write->bucket);
    drop_later(write, skv_slot_offset(hit->a));
    return SKV_OK;
}

skv_status skv_delete(skv *store, const skv_key *key, uint64_t version, skv_wait *wait)
{
    skv_status status = ready_to_write(store);
    if (status)
        return status;
    skv_write write;
    delete_args args = {version, false};
    uint32_t busy = skv_busy_enter(store, wait->shared);
    skv_write_begin(&write, store, key, wait);
    status = skv_logged_begin(&write);
    if (status == SKV_OK)
        status = no_memory_unless(skv_logged_delete(&write));
    if (status == SKV_OK)
        status = skv_write_run(&write, delete_step, &args);
    skv_write_end(&write);
    skv_busy_exit(store, busy);
    if (status == SKV_OK)
        skv_count(store, args.missing ? SKV_EXPIRED : SKV_DELETES, 1, wait->shared);
    return status == SKV_OK && args.missing ? SKV_MISSING : made_stable(store, status, wait, write.position);
}

/* ---- incr --------------------------------------------------------------------------------------- */

typedef struct incr_args {
    int64_t delta, create_value;
    uint64_t expires_ms;
    int64_t result;
} incr_args;

static skv_status add_to(const skv_hit *hit, int64_t delta, int64_t *result)
{
    int64_t value;
    if (hit->head.type == SKV_T_BIGINT)
        return SKV_OVERFLOW;
    if (hit->head.type != SKV_T_INT || hit->head.value_len != sizeof value)
        return SKV_NOT_INT;
    uint64_t bits = 0;
    uint8_t bytes[8];
    skv_copy_racy(bytes, hit->head.key + hit->head.key_len, sizeof bytes);
    for (uint32_t i = 0; i < 8; i++)    /* little-endian, whatever the machine is             */
        bits |= (uint64_t)bytes[i] << (8 * i);
    memcpy(&value, &bits, sizeof value);
    return __builtin_add_overflow(value, delta, result) ? SKV_OVERFLOW : SKV_OK;
}

/* Publishes a new record like any put: value and version could not change in one store, so a cas
 * beside an in-place add would lose an update (model-checked, docs/decisions.md). */
static skv_status incr_step(skv_write *write, const skv_hit *hit, void *context)
{
    incr_args *args = context;
    bool live = is_live_now(write->store, hit);
    uint64_t expires_ms = live ? hit->head.expires_ms : args->expires_ms;
    args->result = args->create_value;
    if (live) {
        skv_status status = add_to(hit, args->delta, &args->result);
        if (status)
            return status;
    }
    uint8_t payload[8];
    for (uint32_t i = 0; i < 8; i++)
        payload[i] = (uint8_t)((uint64_t)args->result >> (8 * i));
    const skv_item item = {.key = *write->key, .value = payload, .value_len = sizeof payload, .type = SKV_T_INT, .expires_ms = expires_ms};
    if (!skv_logged_put(write, &item))          /* there was room for it before the lock       */
        return SKV_NO_MEMORY;
    skv_new_record record = {write->key, payload, sizeof payload, SKV_T_INT, expires_ms, 0};
    skv_write_record(write->store, write->record, &record);
    return publish(write, hit, write->record, expires_ms, sizeof payload);
}

static skv_status incr_once(skv *store, const skv_key *key, incr_args *args, skv_wait *wait)
{
    skv_write write;
    uint32_t busy = skv_busy_enter(store, wait->shared);
    skv_write_begin(&write, store, key, wait);
    skv_status status = skv_logged_begin(&write);
    if (status == SKV_OK)       /* room for the frame: what is in it is known under the lock only */
        status = no_memory_unless(skv_logged_put(&write, &(skv_item){.key = *key, .value = &args->delta, .value_len = sizeof args->delta}));
    /* With room for an expiry, whether or not the item turns out to have one. */
    if (status == SKV_OK)
        status = alloc_record(store, skv_record_size(key->len, 8, true), SKV_MOVE, wait, &write.record);
    if (status == SKV_OK)
        status = skv_write_run(&write, incr_step, args);
    if (status == SKV_OK)
        skv_count(store, SKV_SETS, 1, wait->shared);
    skv_write_end(&write);
    skv_busy_exit(store, busy);
    return made_stable(store, status, wait, write.position);
}

skv_status skv_incr(skv *store, const skv_key *key, int64_t delta, int64_t create_value, uint64_t expires_ms, int64_t *result, skv_wait *wait)
{
    incr_args args = {delta, create_value, expires_ms, 0};
    skv_status status = ready_to_write(store);
    if (status)
        return status;
    if (key->len > SKV_MAX_KEY)
        return SKV_TOO_LARGE;
    status = incr_once(store, key, &args, wait);
    for (uint32_t tries = 0; skv_unlikely(status > SKV_BUSY) && skv_is_worth_another_try(store, status, tries, wait); tries++)
        status = incr_once(store, key, &args, wait);
    *result = args.result;
    return status;
}

/* ---- touch and persist --------------------------------------------------------------------------- */

typedef struct touch_args {
    uint64_t expires_ms;        /* 0 = persist                                                */
    bool had_expiry;
    uint64_t copy_of;           /* word A of the item that `write->record` has room for       */
    uint64_t room;              /* bytes that `write->record` was allocated for               */
    uint64_t needed;            /* out: bytes of the copy that is needed                      */
} touch_args;

/* The one word of a record that may change in place: one store under the lock. */
static void touch_in_place(skv_write *write, const skv_hit *hit, uint64_t expires_ms)
{
    note_expiry_locked(write->bucket, expires_ms);
    skv_store_release(skv_expiry_word(write->store, skv_slot_offset(hit->a)), expires_ms);
    SKV_CRASH("touch.published");
    skv_store_b_locked(hit->slot, skv_b_written(write->store, write->key->hash, expires_ms));
    skv_bump_locked(write->bucket);
}

static skv_status touch_step(skv_write *write, const skv_hit *hit, void *context)
{
    touch_args *args = context;
    if (!is_live_now(write->store, hit))
        return SKV_MISSING;
    args->had_expiry = hit->head.expires_ms != 0;
    if (args->expires_ms == 0 && !args->had_expiry)
        return SKV_OK;
    /* What goes through the log is committed by an intent, which knows slots only. */
    if (!write->frame && (hit->head.flags & SKV_REC_EXPIRY)) {
        touch_in_place(write, hit, args->expires_ms);
        return SKV_OK;
    }
    /* The place alone does not tell: a longer record of the same key may lie there by now. */
    uint64_t needed = skv_record_size(hit->head.key_len, hit->head.value_len, true);
    if (!write->record || args->copy_of != hit->a || args->room < needed) {
        args->copy_of = hit->a;
        args->room = args->needed = needed;
        return SKV_AGAIN;
    }
    skv_new_record record = {write->key, hit->head.key + hit->head.key_len, hit->head.value_len, hit->head.type,
                             args->expires_ms, hit->head.version};
    skv_write_record(write->store, write->record, &record);
    uint64_t a = skv_slot_word(skv_tag_of(write->key->hash), write->record), b = skv_b_written(write->store, write->key->hash, args->expires_ms);
    /* As a put of what is there: whoever reads the log later finds the ttl before this one over, and the item gone. */
    const skv_item item = {.key = *write->key, .value = hit->head.key + hit->head.key_len, .value_len = hit->head.value_len,
                           .type = hit->head.type, .expires_ms = args->expires_ms};
    if (!skv_logged_put(write, &item))          /* there was room for it before the lock       */
        return SKV_NO_MEMORY;
    skv_status status = write->frame ? log_record_locked(write, hit, a, b) : SKV_OK;
    if (status)
        return status;
    note_expiry_locked(write->bucket, args->expires_ms);
    publish_over_locked(write->bucket, hit, a, b, hit->head.value_len);
    drop_later(write, skv_slot_offset(hit->a));
    write->record = 0;
    finish_locked(write);
    return SKV_OK;
}

static skv_status touch_once(skv *store, const skv_key *key, touch_args *args, skv_wait *wait)
{
    skv_write write;
    args->copy_of = args->room = 0;
    uint32_t busy = skv_busy_enter(store, wait->shared);
    skv_write_begin(&write, store, key, wait);
    skv_status status = skv_logged_begin(&write);
    /* An item without an expiry word gets a copy that has one; another round if it changed. */
    for (uint32_t round = 0; round < 1000 && (status == SKV_OK || status == SKV_AGAIN); round++) {
        args->needed = 0;
        status = skv_write_run(&write, touch_step, args);
        if (status != SKV_AGAIN)
            break;
        skv_free(store, write.record);
        write.record = 0;
        status = skv_alloc(store, SKV_RECORDS, args->needed, SKV_MOVE, wait, &write.record);
        if (status == SKV_OK && write.frame)
            status = no_memory_unless(skv_frame_reserve(write.frame, args->needed));
        status = status ? status : SKV_AGAIN;
    }
    skv_write_end(&write);
    skv_busy_exit(store, busy);
    return status == SKV_AGAIN ? SKV_BUSY : made_stable(store, status, wait, write.position);
}

skv_status skv_touch(skv *store, const skv_key *key, uint64_t expires_ms, bool *had_expiry, skv_wait *wait)
{
    touch_args args = {.expires_ms = expires_ms};
    skv_status status = ready_to_write(store);
    if (status)
        return status;
    status = touch_once(store, key, &args, wait);
    for (uint32_t tries = 0; skv_unlikely(status > SKV_BUSY) && skv_is_worth_another_try(store, status, tries, wait); tries++)
        status = touch_once(store, key, &args, wait);
    if (had_expiry)
        *had_expiry = args.had_expiry;
    return status;
}
