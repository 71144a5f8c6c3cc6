/* intent.c: writing an intent, reading through one, and settling one.  See intent.h. */
#include "intent.h"

#include "table.h"

/* ---- Writing ------------------------------------------------------------------------------- */

uint64_t skv_intent_begin(skv *store, uint64_t offset, uint32_t action, const skv_intent_entry *entries, uint32_t count)
{
    /* The status word's only writers are this process and, after its death, who decides about its intent. */
    uint64_t generation = (skv_load(&store->proc->status) >> 2) + 1;
    skv_store(&store->proc->intent, offset);
    skv_intent head = {.action = action, .count = count};
    skv_store(&head.meta.kind, SKV_META_INTENT);
    skv_store(&head.meta.owner, skv_load(&store->slot));
    skv_store(&head.meta.detail, generation);
    skv_fence_release();        /* as in skv_write_record                                     */
    skv_write_racy(store->base + offset, &head, sizeof head);
    skv_write_racy(store->base + offset + sizeof head, entries, count * sizeof *entries);
    SKV_CRASH("batch.intent_written");
    skv_store_release(&store->proc->status, skv_intent_status(generation, SKV_BATCH_PENDING));
    SKV_CRASH("batch.pending");
    return generation;
}

void skv_intent_end(skv *store, uint64_t generation)
{
    skv_store_release(&store->proc->status, skv_intent_status(generation, SKV_BATCH_IDLE));
    skv_store(&store->proc->intent, 0);
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* What a reader takes from an intent, bounded. */
typedef struct seen {
    const skv_intent *intent;
    const skv_intent_entry *entries;
    uint32_t count;
    uint32_t action;
    uint32_t owner;
    uint64_t generation;
} seen;

static bool open_intent(const skv *store, uint64_t txn, seen *out)
{
    uint64_t row = (txn - store->fixed.procs_offset) / sizeof(skv_proc);
    const bool in_row = row < SKV_PROCS && txn == skv_row_intent(store, (uint32_t)row);
    if (!in_row && (txn % SKV_UNIT || !skv_in_pages(store, txn, sizeof(skv_intent))))
        return false;
    skv_intent head;
    const skv_intent *intent = (const skv_intent *)(const void *)(store->base + txn);
    skv_copy_racy(&head, intent, sizeof head);
    out->intent = intent;
    out->entries = intent->entries;
    out->count = head.count;
    out->action = head.action;
    out->owner = skv_load(&head.meta.owner);
    out->generation = skv_load(&head.meta.detail);
    return skv_load(&head.meta.kind) == SKV_META_INTENT && out->owner < SKV_PROCS
           && (in_row ? head.count <= 1 : skv_in_pages(store, txn, skv_intent_size(head.count)));
}

uint32_t skv_intent_owner(const skv *store, uint64_t txn)
{
    seen it;
    return txn && open_intent(store, txn, &it) ? it.owner : SKV_NO_PROC;
}

static bool is_committed(uint64_t status, const seen *it)
{
    return status == (it->generation << 2 | SKV_BATCH_COMMITTED);
}

static skv_intent_entry entry_at(const seen *it, uint32_t i)
{
    skv_intent_entry entry;
    skv_copy_racy(&entry, &it->entries[i], sizeof entry);
    return entry;
}

/* Index of the first entry of `bucket` or beyond. */
static uint32_t first_of_bucket(const seen *it, uint64_t bucket)
{
    uint32_t low = 0, high = it->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (entry_at(it, middle).bucket < bucket)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint64_t bucket_number(const skv *store, const skv_bucket *bucket)
{
    return (uint64_t)(bucket - store->buckets);
}

static bool entry_has_key(const skv *store, const skv_intent_entry *entry, const skv_key *key, skv_head *head)
{
    uint64_t a = entry->new_a;
    return skv_slot_is_live(a) && skv_slot_tag(a) == skv_tag_of(key->hash)
           && skv_read_head(store, skv_slot_offset(a), head) && skv_head_has_key(head, key);
}

bool skv_overlay_find(const skv *store, uint64_t txn, const skv_key *key, skv_view *view)
{
    seen it;
    if (!open_intent(store, txn, &it))
        return false;
    view->status_word = &store->procs[it.owner].status;
    view->status = skv_load_acquire(view->status_word);     /* pairs with the commit          */
    if (!is_committed(view->status, &it))
        return false;
    if (it.action == SKV_INTENT_CLEAR)
        return true;
    view->doom_counts = it.action == SKV_INTENT_REMOVE;
    uint64_t bucket = bucket_number(store, skv_bucket_of(store, key->hash));
    for (uint32_t i = first_of_bucket(&it, bucket); i < it.count; i++) {
        skv_intent_entry entry = entry_at(&it, i);
        skv_head head;
        if (entry.bucket != bucket)
            break;
        if (!entry_has_key(store, &entry, key, &head))
            continue;
        view->record = (const skv_record *)(const void *)(store->base + skv_slot_offset(entry.new_a));
        view->value = head.key + head.key_len;
        view->value_len = head.value_len;
        view->type = head.type;
        view->version = head.version;
        view->expires_ms = head.expires_ms;
        return true;
    }
    return false;
}

void skv_overlay_of_bucket(const skv *store, const skv_bucket *bucket, skv_overlay *overlay)
{
    *overlay = (skv_overlay){0};
    uint64_t txn = skv_load_acquire(&bucket->txn);
    seen it;
    if (txn == 0 || !open_intent(store, txn, &it))
        return;
    overlay->status_word = &store->procs[it.owner].status;
    overlay->status = skv_load_acquire(overlay->status_word);
    if (!is_committed(overlay->status, &it))
        return;
    overlay->clears = it.action == SKV_INTENT_CLEAR;
    overlay->removes = it.action == SKV_INTENT_REMOVE;
    uint64_t number = bucket_number(store, bucket);
    uint32_t from = first_of_bucket(&it, number), to = from;
    while (to < it.count && entry_at(&it, to).bucket == number)
        to++;
    overlay->entries = it.entries + from;
    overlay->count = overlay->clears ? 0 : to - from;
}

uint64_t skv_overlay_slot_slow(const skv_overlay *overlay, uint64_t index, const skv_slot *slot)
{
    uint64_t a = skv_load_acquire(&slot->a);
    if (overlay->clears || (overlay->removes && (skv_load(&slot->b) & SKV_B_DOOMED)))
        return SKV_EMPTY;
    for (uint32_t i = 0; i < overlay->count; i++) {
        skv_intent_entry entry;
        skv_copy_racy(&entry, &overlay->entries[i], sizeof entry);
        if (entry.index == index)
            return entry.new_a;
    }
    return a;
}

static void apply_entry_locked(skv *store, skv_bucket *bucket, const skv_intent_entry *entry)
{
    uint64_t table = skv_load(&bucket->table);
    skv_slot *slots = skv_slots(store, table);
    if (!slots || entry->index >= skv_table_capacity(table))
        return;                 /* only in a damaged region                                   */
    skv_store(&slots[entry->index].b, entry->new_b);
    skv_store_release(&slots[entry->index].a, entry->new_a);
}

static void remove_doomed_locked(skv *store, skv_bucket *bucket)
{
    uint64_t table = skv_load(&bucket->table);
    skv_slot *slots = skv_slots(store, table);
    for (uint64_t i = 0; slots && i < skv_table_capacity(table); i++)
        if (skv_slot_is_live(skv_load(&slots[i].a)) && (skv_load(&slots[i].b) & SKV_B_DOOMED)) {
            skv_store_release(&slots[i].a, SKV_TOMBSTONE);
            SKV_CRASH("repair.removed");
        }
}

/* Its process is dead.  In a durable store somebody else may be about to find its frame whole, and to commit it:
 * then one of the two is first, and both go by that. */
static bool decide_locked(skv *store, const seen *it)
{
    _Atomic uint64_t *word = &store->procs[it->owner].status;
    uint64_t status = skv_load_acquire(word), pending = skv_intent_status(it->generation, SKV_BATCH_PENDING);
    if ((store->fixed.flags & SKV_FLAG_DURABLE) && status == pending) {
        atomic_compare_exchange_strong_explicit(word, &status, skv_intent_status(it->generation, SKV_BATCH_IDLE),
                                                memory_order_acq_rel, memory_order_acquire);
        SKV_CRASH("repair.decided");
    }
    return is_committed(status, it);
}

void skv_intent_settle_locked(skv *store, skv_bucket *bucket)
{
    uint64_t txn = skv_load_acquire(&bucket->txn);
    seen it;
    if (txn == 0)
        return;
    if (open_intent(store, txn, &it) && decide_locked(store, &it)) {
        uint64_t number = bucket_number(store, bucket);
        if (it.action == SKV_INTENT_CLEAR)
            skv_publish_table_locked(bucket, 0);
        if (it.action == SKV_INTENT_REMOVE)
            remove_doomed_locked(store, bucket);
        for (uint32_t i = first_of_bucket(&it, number); it.action == SKV_INTENT_WRITE && i < it.count; i++) {
            skv_intent_entry entry = entry_at(&it, i);
            if (entry.bucket != number)
                break;
            apply_entry_locked(store, bucket, &entry);
            SKV_CRASH("repair.applied");
        }
    }
    skv_store_release(&bucket->txn, 0);
}
