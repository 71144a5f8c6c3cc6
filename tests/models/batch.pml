/* batch.pml: one put_many beside readers and an evacuation, killed between any two steps.
 *
 * What: two buckets of one key each.  The batch gives both keys the same number, again and again.  The mover takes a
 *       key's record to another block, as an evacuation does, and repairs the bucket if the batch died with it.  A
 *       block that is free holds garbage.  The reader gets one key after the other (-DGETS), or both (-DSNAPSHOT).
 *       A reader tries once: a retry is the same as a reader that begins later.
 * Holds: what a reader accepts is a number that was written, never garbage; a second get is never older than the first;
 *       get_many sees one number; in the end both keys have the same one.
 * Models: batch.c:commit_locked batch.c:announce_locked batch.c:apply_group_locked batch.c:settle_locked
 *       intent.c:skv_intent_end batch.c:batch_end intent.c:skv_overlay_find intent.c:skv_intent_settle_locked
 *       repair.c:skv_repair_bucket read.h:skv_find read.h:skv_validate read.c:skv_validate_many read.c:is_same
 *       evacuate.c:move_record
 * Leaves out: tables and probing (growth.pml), how a lock is taken over (takeover.pml), removals, a
 * second
 *       batch (batches.pml), a death during the repair (repair.pml), weak memory (announce.cpp).
 *
 * The idea, and six of the mutants, are those of the model that the first design came with.
 *
 * Mutants: M_BUMP_BEFORE_TXN announces in the wrong order; M_COMMIT_BEFORE_ANNOUNCE; M_APPLY_BEFORE_COMMIT;
 * M_UNLOCK_BEFORE_SETTLE; M_NO_STATUS_CHECK and M_NO_OVERLAY read without them; M_FREE_BEFORE_BUMP and
 * M_BUMP_BEFORE_COMMIT move a record so; M_REPAIR_DROPS forgets a committed intent; M_SEQ_ONLY validates get_many by
 * counters alone.
 */
#ifndef BATCHES
#define BATCHES 1
#endif
#ifndef MOVES
#define MOVES 1
#endif
#define BLOCKS  5               /* two named, two of the batch, one of the mover */
#define GARBAGE 99

#define IDLE      0             /* statuses; generation << 2 stands above them */
#define PENDING   1
#define COMMITTED 2

#define BATCH   1
#define MOVER   2

byte lock[2], seq[2], txn[2];
byte slot[2] = { 0, 1 };        /* word A: the block that holds the key's record */
byte value[BLOCKS] = { 0, 0, GARBAGE, GARBAGE, GARBAGE };
bool used[BLOCKS] = { true, true, false, false, false };
byte status;                    /* of the batch's process */
byte intent[2], generation;     /* new word A of each bucket; the intent's generation */
bool dead;
byte running = 2 + (MOVES > 0);

inline alloc(x) {               /* within d_step */
    x = 0; do :: used[x] -> x++ :: else -> break od; used[x] = true
}

inline free(x) {
    d_step { assert(used[x]); used[x] = false; value[x] = GARBAGE }
}

inline lock_bucket(b, me) {
    d_step { (lock[b] == 0) -> lock[b] = me }
}

active proctype Batch() {
    byte new[2], old[2], n = 0;
    {
        do
        :: n < BATCHES ->
            n++;
            d_step {            /* batch.c:prepare; nobody sees these steps */
                alloc(new[0]); value[new[0]] = n;
                alloc(new[1]); value[new[1]] = n
            };
            lock_bucket(0, BATCH); lock_bucket(1, BATCH);               /* batch.c:lock_groups */
            generation = n; intent[0] = new[0]; intent[1] = new[1];     /* batch.c:announce_and_commit_locked `skv_intent_begin(b->store, b->intent,` */
            status = n << 2 | PENDING;          /* intent.c:skv_intent_begin `skv_intent_status(generation, SKV_BATCH_PENDING)` */
#ifdef M_COMMIT_BEFORE_ANNOUNCE
            status = n << 2 | COMMITTED;
#endif
            /* batch.c:announce_locked `skv_store_release(&b->groups[i].bucket->txn, b->intent);` then `skv_bump_locked`
               */
#ifdef M_BUMP_BEFORE_TXN
            seq[0]++; txn[0] = 1; seq[1]++; txn[1] = 1;
#else
            txn[0] = 1; seq[0]++; txn[1] = 1; seq[1]++;
#endif
#ifdef M_APPLY_BEFORE_COMMIT
            old[0] = slot[0]; slot[0] = new[0]; status = n << 2 | COMMITTED;
#else
            /* batch.c:append_and_commit_locked `skv_intent_commit(store, generation);` */
            status = n << 2 | COMMITTED;
            /* batch.c:apply_group_locked `skv_store_release(&slots[entry->index].a, entry->new_a);` */
            old[0] = slot[0]; slot[0] = new[0];
#endif
#ifdef M_UNLOCK_BEFORE_SETTLE
            lock[0] = 0;
#endif
            /* batch.c:settle_locked `skv_store_release(&bucket->txn, 0);` then `skv_bump_locked(bucket);` */
            txn[0] = 0; seq[0]++;
            old[1] = slot[1]; slot[1] = new[1];
            txn[1] = 0; seq[1]++;
#ifndef M_UNLOCK_BEFORE_SETTLE
            lock[0] = 0;
#endif
            lock[1] = 0;                        /* batch.c:commit_locked `unlock_groups(b, b->group_count);` */
            /* intent.c:skv_intent_end `skv_intent_status(generation, SKV_BATCH_IDLE)` */
            status = n << 2 | IDLE;
            /* batch.c:batch_end `skv_free_many(store, b->freed, b->freed_count);` */
            free(old[0]); free(old[1])
        :: else -> break
        od
    } unless { dead };
    running--
}

/* intent.c:skv_intent_settle_locked, then the bump of repair.c:skv_repair_bucket */
inline repair(b) {
    if
    :: txn[b] ->                /* intent.c:skv_intent_settle_locked `if (txn == 0)` */
#ifndef M_REPAIR_DROPS
        if
        :: status == (generation << 2 | COMMITTED) -> slot[b] = intent[b]       /* intent.c:apply_entry_locked */
        :: else
        fi;
#endif
        txn[b] = 0              /* intent.c:skv_intent_settle_locked `skv_store_release(&bucket->txn, 0);` */
    :: else
    fi;
    seq[b]++                    /* repair.c:skv_repair_bucket `skv_bump_locked(bucket);` */
}

inline lock_and_repair(b, had) {
    d_step { (lock[b] == 0 || (lock[b] == BATCH && dead)) -> had = lock[b]; lock[b] = MOVER };
    if
    :: had == BATCH -> repair(b)
    :: else
    fi
}

#if MOVES
/* evacuate.c:move_record */
active proctype Mover() {
    byte b, to, from, had, n = 0;
    do
    :: n < MOVES ->
        n++;
        if
        :: b = 0
        :: b = 1
        fi;
        d_step { alloc(to) };
        lock_and_repair(b, had);                /* `if (skv_lock_bucket(store, bucket, wait))` */
        from = slot[b];
        value[to] = value[from];                /* `copy_block(store, to, offset, bytes);` */
#ifdef M_BUMP_BEFORE_COMMIT
        seq[b]++;
        slot[b] = to;
#else
        slot[b] = to;                           /* `skv_store_release(&slot->a, skv_slot_word(skv_slot_tag(a), to));` */
 #ifdef M_FREE_BEFORE_BUMP
        free(from);
 #endif
        seq[b]++;                               /* `skv_bump_locked(bucket);` */
#endif
        lock[b] = 0;                            /* `skv_unlock(store, &bucket->lock);` */
#ifndef M_FREE_BEFORE_BUMP
        free(from)                              /* `skv_free(store, slot ? offset : to);` */
#endif
    :: else -> break
    od;
    running--
}
#endif

/* read.h:skv_find */
inline find(b, s, t, st, block, v) {
    s = seq[b];                 /* `view->seq = skv_load_acquire(&bucket->seq);` */
    t = txn[b];                 /* `uint64_t txn = skv_load_acquire(&bucket->txn);` */
    if
    :: t -> st = status         /* intent.c:skv_overlay_find `view->status = skv_load_acquire(view->status_word);` */
    :: else -> st = IDLE
    fi;
#ifdef M_NO_OVERLAY
    block = slot[b];
#else
    if
    :: t && st == (generation << 2 | COMMITTED) -> block = intent[b]    /* `if (!is_committed(view->status, &it))` */
    :: else -> block = slot[b]  /* read.h:skv_find `skv_probe(store, table, key, &hit);` */
    fi;
#endif
    v = value[block]
}

/* read.h:skv_validate `(skv_likely(!view->status_word) || skv_load_acquire(view->status_word) == view->status)` */
#ifdef M_NO_STATUS_CHECK
#define SAME_STATUS(t, st) true
#else
#define SAME_STATUS(t, st) (!t || status == st)
#endif

#ifdef GETS
inline get(b, v) {
    find(b, s, t, st, block, v);
    if
    :: seq[b] == s              /* `skv_load_acquire(&view->bucket->seq) == view->seq` */
    :: else -> goto end
    fi;
    if
    :: SAME_STATUS(t, st)
#ifndef M_NO_STATUS_CHECK
    :: else -> goto end
#endif
    fi
}

active proctype Reader() {
    byte s, t, st, block, first, second;
    get(0, first);
    get(1, second);
    assert(first <= BATCHES && second <= BATCHES && first <= second);
end: running--
}
#endif

#ifdef SNAPSHOT
/* read.c:is_same: what came from a slot is looked at there, anything else is found again */
inline is_same(b, s, t, st, block, same) {
#ifdef M_SEQ_ONLY
    same = (seq[b] == s)
#else
    if
    :: t && st == (generation << 2 | COMMITTED) ->
        find(b, s2, t2, st2, block2, v2);       /* `skv_find(store, key, &again);` */
        same = (block2 == block && s2 == s && t2 == t && st2 == st)
    :: else -> same = (slot[b] == block)        /* `if (skv_load_acquire(&view->slot->a) != view->a)` */
    fi;
    if
    :: seq[b] != s -> same = false              /* `return skv_validate(view);` */
    :: else
    fi;
    if
    :: SAME_STATUS(t, st)
    :: else -> same = false
    fi
#endif
}

active proctype Reader() {
    byte s[2], t[2], st[2], block[2], v[2], s2, t2, st2, block2, v2;
    bool first, second;
    find(0, s[0], t[0], st[0], block[0], v[0]);
    find(1, s[1], t[1], st[1], block[1], v[1]);
    is_same(0, s[0], t[0], st[0], block[0], first);     /* read.c:skv_validate_many */
    is_same(1, s[1], t[1], st[1], block[1], second);
    if
    :: first && second -> assert(v[0] <= BATCHES && v[0] == v[1])
    :: else
    fi;
    running--
}
#endif

active proctype Killer() {
    dead = true
}

/* When all is over: what the batch left is repaired, and the store is whole. */
active proctype End() {
    byte b, had;
    running == 0;
    for (b : 0 .. 1) {
        lock_and_repair(b, had);
        lock[b] = 0;
        assert(txn[b] == 0)
    }
    assert(value[slot[0]] == value[slot[1]])
}
