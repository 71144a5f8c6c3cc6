/* logged.c: see logged.h. */
#include "logged.h"

skv_status skv_logged_begin_slow(skv_write *write)
{
    skv *store = write->store;
    if (!write->wait->block)
        return SKV_BUSY;        /* no file is written under the GIL                           */
    skv_status status = skv_turn_take(store, write->wait);
    if (status == SKV_OK)
        write->frame = &store->journal->frame;
    return status;
}

void skv_logged_end_slow(skv_write *write)
{
    pthread_mutex_unlock(&write->store->batch_mutex);
    write->frame = NULL;
}

bool skv_logged_put_slow(skv_write *write, const skv_item *item)
{
    return skv_frame_begin(write->frame, SKV_FRAME_CHANGE) && skv_journal_add_put(write->store, write->frame, item);
}

bool skv_logged_delete(skv_write *write)
{
    return !write->frame || (skv_frame_begin(write->frame, SKV_FRAME_CHANGE) && skv_journal_add_delete(write->frame, write->key));
}

static void announce_locked(skv_write *write, skv_slot *slot, const skv_intent_entry *entry)
{
    skv *store = write->store;
    uint64_t intent = skv_row_intent(store, skv_load(&store->slot));
    write->generation = skv_intent_begin(store, intent, entry ? SKV_INTENT_WRITE : SKV_INTENT_REMOVE, entry, entry != NULL);
    if (!entry)                 /* before txn is set, as in a batch                            */
        atomic_fetch_or_explicit(&slot->b, SKV_B_DOOMED, memory_order_relaxed);
    skv_store_release(&write->bucket->txn, intent);
    SKV_CRASH("logged.txn_set");
    skv_bump_locked(write->bucket);
    SKV_CRASH("logged.announced");
}

void skv_logged_settle_locked(skv_write *write)
{
    skv_store_release(&write->bucket->txn, 0);
    SKV_CRASH("logged.txn_cleared");
    skv_bump_locked(write->bucket);
    skv_intent_end(write->store, write->generation);
    SKV_CRASH("logged.settled");
}

/* The log took nothing. */
static void withdraw_locked(skv_write *write, skv_slot *slot, const skv_intent_entry *entry)
{
    skv_store_release(&write->store->proc->status, skv_intent_status(write->generation, SKV_BATCH_IDLE));
    SKV_CRASH("logged.withdrawn");
    if (!entry)
        atomic_fetch_and_explicit(&slot->b, ~SKV_B_DOOMED, memory_order_relaxed);
    skv_logged_settle_locked(write);
}

/* From the log's lock to its release: a process that is stopped in here holds up every other writer. */
static skv_status append_locked(skv_write *write)
{
    skv *store = write->store;
    skv_status status = skv_journal_lock(store, write->wait);
    if (status)
        return status;
    SKV_CRASH("logged.appending");
    status = skv_journal_write_locked(store, write->frame, skv_intent_status(write->generation, SKV_BATCH_PENDING), write->wait->stable, &write->position);
    if (status == SKV_OK) {
        skv_intent_commit(store, write->generation);            /* the commit                 */
        SKV_CRASH("logged.committed");
        skv_journal_accept_locked(store, write->position);
    }
    skv_journal_unlock(store);
    return status;
}

skv_status skv_logged_commit_locked(skv_write *write, skv_slot *slot, const skv_intent_entry *entry)
{
    announce_locked(write, slot, entry);
    skv_status status = append_locked(write);
    if (status)
        withdraw_locked(write, slot, entry);
    return status;
}
