/* logged.h: one change of one key in a durable store: its turn at the log, and its way from announcement to commit.
 *
 * How:  the process's turn is taken before anything else (batch_mutex: there is one status word), the frame is made,
 *       and then, under the bucket's lock, a committed intent of one entry stands for the change until it is applied:
 *       see journal.h.  The intent lies in the process's row, so nothing is allocated.
 *
 * Concurrency: skv_logged_begin and _end frame the call; the others need the bucket's lock.
 */
#ifndef SKV_LOGGED_H
#define SKV_LOGGED_H

#include "intent.h"
#include "journal.h"
#include "write.h"

skv_status skv_logged_begin_slow(skv_write *write);
void skv_logged_end_slow(skv_write *write);
bool skv_logged_put_slow(skv_write *write, const skv_item *item);

/* SKV_OK with write->frame set (or NULL: the store has no log), SKV_BUSY: the GIL is to be released first. */
static inline skv_status skv_logged_begin(skv_write *write)
{
    return skv_likely(!write->store->journal) ? SKV_OK : skv_logged_begin_slow(write);
}

static inline void skv_logged_end(skv_write *write)
{
    if (skv_unlikely(write->frame))
        skv_logged_end_slow(write);
}

/* The frame of the change, made anew; false: no memory.  Without a log it does nothing. */
static inline bool skv_logged_put(skv_write *write, const skv_item *item)
{
    return skv_likely(!write->frame) || skv_logged_put_slow(write, item);
}

bool skv_logged_delete(skv_write *write);

/* Commits the change of one slot, as seen by readers, and leaves its application to the caller; on an error nothing was
 * changed.  `entry` NULL: the slot's item is removed. */
skv_status skv_logged_commit_locked(skv_write *write, skv_slot *slot, const skv_intent_entry *entry);
/* After the application. */
void skv_logged_settle_locked(skv_write *write);

#endif
