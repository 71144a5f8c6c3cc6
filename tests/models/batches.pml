/* batches.pml: two put_many of two processes over the same buckets, one of them killed between any two steps.
 *
 * What: each batch gives its own number to two keys in two buckets: both the same two, or with -DSHIFTED buckets 0 and
 * 1,
 *       and 1 and 2.  With -DREADERS somebody gets both keys of a batch.  Who finds a lock of the dead takes it over
 * and repairs.  Waiting for a lock lasts here until it is
 *       free or its holder dead; the engine gives all its locks back after a slice, which could only help.
 * Holds: get_many never mixes two batches in a way that no order of them explains; whatever was committed is in the
 *       buckets in the end; nobody waits for ever.
 * Models: batch.c:lock_groups batch.c:commit_locked batch.c:announce_locked batch.c:apply_group_locked
 *       batch.c:settle_locked intent.c:skv_intent_end intent.c:skv_intent_settle_locked repair.c:skv_repair_bucket
 *       lock.c:skv_lock_take_from read.h:skv_find read.c:skv_validate_many
 * Leaves out: blocks and their reuse (batch.pml), a death during a repair (repair.pml).
 *
 * Mutants: M_DESCENDING: the second batch locks from above; M_OWN_STATUS: a repair asks the repairer's status;
 * M_IDLE_EARLY:
 * the status goes idle before the buckets are settled; M_ROB_LIVE: a lock is taken from the living; M_UNLOCK_EARLY: the
 * first bucket is unlocked before the second is applied, with its txn still set.
 */
#define IDLE      0
#define PENDING   1
#define COMMITTED 2

#ifdef SHIFTED
#define FIRST(me)   ((me) - 1)
#else
#define FIRST(me)   0
#endif
#define LAST 3                  /* who looks when all is over */

byte lock[3], seq[3];           /* lock: the number of the process */
byte txn[3];                    /* 0, or the number of the process whose intent it is */
byte slot[3];                   /* what the key of each bucket holds: the number of a batch */
byte status[4];
bool dead[4];
#ifdef READERS
byte running = 3;
#else
byte running = 2;
#endif

/* intent.c:skv_intent_settle_locked and repair.c:skv_repair_bucket */
inline repair(b, me) {
    if
    :: txn[b] ->
        if
#ifdef M_OWN_STATUS
        :: status[me] == COMMITTED -> slot[b] = txn[b]
#else
        /* intent.c:decide_locked `return is_committed(status, it);` */
        :: status[txn[b]] == COMMITTED -> slot[b] = txn[b]
#endif
        :: else
        fi;
        txn[b] = 0              /* intent.c:skv_intent_settle_locked `skv_store_release(&bucket->txn, 0);` */
    :: else
    fi;
    seq[b]++                    /* repair.c:skv_repair_bucket `skv_bump_locked(bucket);` */
}

inline lock_bucket(b, me, had) {
#ifdef M_ROB_LIVE
    d_step { had = lock[b]; lock[b] = me };
#else
    d_step { (lock[b] == 0 || dead[lock[b]]) -> had = lock[b]; lock[b] = me };
#endif
    if
    :: had -> repair(b, me)
    :: else
    fi
}

proctype Batch(byte me) {
    byte had, low, high;
    low = FIRST(me);
    high = FIRST(me) + 1;
    {
#ifdef M_DESCENDING
        if
        :: me == 2 -> lock_bucket(high, me, had); lock_bucket(low, me, had)
        :: else -> lock_bucket(low, me, had); lock_bucket(high, me, had)
        fi;
#else
        /* batch.c:lock_groups `for (uint32_t i = 0; i < b->group_count; i++) {` over groups that are sorted */
        lock_bucket(low, me, had);
        lock_bucket(high, me, had);
#endif
        status[me] = PENDING;           /* intent.c:skv_intent_begin `skv_intent_status(generation, SKV_BATCH_PENDING)` */
        /* batch.c:announce_locked `skv_store_release(&b->groups[i].bucket->txn, b->intent);` */
        txn[low] = me; seq[low]++;
        txn[high] = me; seq[high]++;
        /* batch.c:append_and_commit_locked `skv_intent_commit(store, generation);` */
        status[me] = COMMITTED;
#ifdef M_IDLE_EARLY
        status[me] = IDLE;
#endif
        /* batch.c:apply_group_locked `skv_store_release(&slots[entry->index].a, entry->new_a);` */
        slot[low] = me;
#ifdef M_UNLOCK_EARLY
        lock[low] = 0;
#endif
        txn[low] = 0; seq[low]++;       /* batch.c:settle_locked `skv_store_release(&bucket->txn, 0);` */
        slot[high] = me;
        txn[high] = 0; seq[high]++;
        lock[high] = 0;                 /* batch.c:unlock_groups `for (uint32_t i = count; i-- > 0;)` */
#ifndef M_UNLOCK_EARLY
        lock[low] = 0;
#endif
        status[me] = IDLE               /* intent.c:skv_intent_end `skv_intent_status(generation, SKV_BATCH_IDLE)` */
    } unless { dead[me] };
    running--
}

#ifdef READERS
/* read.h:skv_find; the reader below wants both buckets of a batch */
inline find(b, s, t, st, v) {
    s = seq[b];
    t = txn[b];
    if
    :: t -> st = status[t]
    :: else -> st = IDLE
    fi;
    if
    :: st == COMMITTED -> v = t         /* intent.c:skv_overlay_find `if (!is_committed(view->status, &it))` */
    :: else -> v = slot[b]
    fi
}

/* read.c:is_same: everything is as it was; else the reader gives up, as a retry is a reader that begins later */
inline require(condition) {
    if
    :: condition
    :: else -> goto end
    fi
}

inline is_same(b, s, t, st, v) {
    require(seq[b] == s);
    require(txn[b] == t);
    require(!t || status[t] == st);
    require((t && st == COMMITTED) || slot[b] == v);
    require(seq[b] == s);       /* read.h:skv_validate `return skv_load_acquire(&view->bucket->seq) == view->seq` */
    require(!t || status[t] == st)
}

proctype Reader(byte low) {
    byte s[2], t[2], st[2], v[2];
    find(low, s[0], t[0], st[0], v[0]);
    find(low + 1, s[1], t[1], st[1], v[1]);
    is_same(low, s[0], t[0], st[0], v[0]);
    is_same(low + 1, s[1], t[1], st[1], v[1]);
#ifdef SHIFTED
    /* Bucket 0 has batch 1 from its commit on, bucket 2 batch 2; bucket 1 has the later one. */
    assert(low == 1 || (v[0] == 1) == (v[1] == 1) || v[1] == 2);
    assert(low == 0 || (v[1] == 2) == (v[0] == 2) || v[0] == 1);
#else
    assert(v[0] == v[1]);
#endif
end: running--
}
#endif

init {
    byte b, had, victim;
    atomic {
        run Batch(1);
        run Batch(2);
#ifdef READERS
 #ifdef SHIFTED
        if
        :: run Reader(0)
        :: run Reader(1)
        fi
 #else
        run Reader(0)
 #endif
#endif
    };
    select(victim : 1 .. 2);
    if
    :: dead[victim] = true
    :: skip
    fi;
    running == 0;
    for (b : 0 .. 2) {
        lock_bucket(b, LAST, had);
        lock[b] = 0;
        assert(txn[b] == 0)
    }
#ifdef SHIFTED
    assert(slot[0] != 1 || slot[1] != 0);
    assert(slot[2] != 2 || slot[1] != 0);
    assert(slot[1] != 1 || slot[0] == 1);
    assert(slot[1] != 2 || slot[2] == 2);
    assert(dead[1] || slot[0] == 1);    /* what has returned is there */
    assert(dead[2] || slot[2] == 2)
#else
    assert(slot[0] == slot[1] && slot[0] != 0)
#endif
}
