/* repair.pml: a batch dies, its repairer dies, and the next one still finds its way to the intent.
 *
 * What: the batch of the dead has stopped after any of its steps (init chooses).  X repairs one of its buckets and may
 *       be killed at any step of that.  Y wants both buckets, repairs what X or the dead left, and reclaims the process
 *       slots of both.  When the dead one's slot is free a newcomer registers in it and runs a batch of its own.
 *       With -DREADERS somebody gets both keys, at any moment, instead of the newcomer.
 * Holds: a batch that was committed is applied in both buckets, one that was not in neither, and readers see it so from
 *       the death on; the newcomer's batch is whole; nobody waits for ever.
 * Models: lock.c:skv_lock_take_from intent.c:skv_intent_settle_locked intent.c:apply_entry_locked
 *       repair.c:skv_repair_bucket repair.c:skv_sweep_bucket_of_dead procs.c:reclaim_row procs.c:sweep_dead
 *       procs.c:free_lock_of_dead procs.c:skv_reclaim_dead procs.c:start_row intent.c:skv_intent_begin
 * batch.c:commit_locked
 * Leaves out: the race for the liveness byte itself (takeover.pml); here it is taken in one step.
 *
 * Mutants: M_CLEAR_FIRST: txn is cleared before the intent is applied; M_FOLLOW_LOCK: a repairer asks the status of the
 * process that the lock word named; M_IGNORE_TXN: a process slot is freed while a txn leads to it; M_UNLOCK_ONLY: a
 * sweep frees the locks of the dead without repairing.
 */
#define IDLE      0             /* statuses; generation << 2 stands above them */
#define PENDING   1
#define COMMITTED 2

#define DEAD 1                  /* processes */
#define X    2
#define Y    3
#define NEW  4

#define FREE 0
#define USED 1

byte lock[2] = { 1, 1 };        /* 0, or process slot + 1: DEAD and NEW are both in slot 0 */
byte seq[2], txn[2], slot[2];           /* txn: 0, or the generation of an intent of slot 0 */
byte status[3];                 /* of each process slot */
byte state[3] = { USED, USED, USED };
byte byte_of[3] = { DEAD, X, Y };       /* who holds a liveness byte; a lock of the dead is none */
bool dead[5] = { false, true, false, false, false };
byte expected;                  /* what the batch of the dead comes to: 1 or 0 */
bool set_up, reclaimed;
byte running = 3;

#define IS_DEAD(row) dead[byte_of[row]]

/* intent.c:skv_intent_settle_locked, in which had is what the lock word named before */
inline repair(b, had) {
    if
    :: txn[b] ->
#ifdef M_CLEAR_FIRST
        settled = txn[b];
        txn[b] = 0;
#else
        settled = txn[b];       /* `uint64_t txn = skv_load_acquire(&bucket->txn);` */
#endif
        if
#ifdef M_FOLLOW_LOCK
        :: status[had - 1] == (settled << 2 | COMMITTED) -> slot[b] = settled
#else
        /* intent.c:decide_locked `return is_committed(status, it);` */
        /* intent.c:apply_entry_locked `entry->new_a);` */
        :: status[0] == (settled << 2 | COMMITTED) -> slot[b] = settled
#endif
        :: else
        fi;
        txn[b] = 0              /* intent.c:skv_intent_settle_locked `skv_store_release(&bucket->txn, 0);` */
    :: else
    fi;
    seq[b]++                    /* repair.c:skv_repair_bucket `skv_bump_locked(bucket);` */
}

inline lock_bucket(b, name, had) {
    d_step { (lock[b] == 0 || IS_DEAD(lock[b] - 1)) -> had = lock[b]; lock[b] = name };
    if
    :: had -> repair(b, had)
    :: else
    fi
}

/* procs.c:reclaim_row */
inline reclaim(row, me, had) {
    d_step { claimed = (IS_DEAD(row) && state[row] == USED); if :: claimed -> byte_of[row] = me :: else fi };
    if
    :: claimed ->
        clean = true;           /* procs.c:sweep_dead `bool clean = true;` */
        for (b : 0 .. 1) {
            d_step { had = 0; if :: lock[b] == row + 1 -> had = lock[b]; lock[b] = me :: else fi };
            if
            :: had ->
#ifndef M_UNLOCK_ONLY
                repair(b, had);
#endif
                lock[b] = 0
            :: else
            fi;
            /* repair.c:skv_sweep_bucket_of_dead `return skv_intent_owner(store, skv_load_acquire(&bucket->txn)) !=
               slot;` */
            if
            :: row == 0 && txn[b] -> clean = false
            :: else
            fi
        }
#ifdef M_IGNORE_TXN
        clean = true;
#endif
        if
        :: clean ->
            /* procs.c:sweep_dead `skv_store_release(&proc->status, (skv_load(&proc->status) | 3) + 1);` */
            status[row] = (status[row] | 3) + 1;
            state[row] = FREE   /* `skv_store_release(&proc->state, SKV_PROC_FREE);` */
        :: else
        fi;
        d_step { if :: byte_of[row] == me -> byte_of[row] = DEAD :: else fi }
    :: else
    fi
}

active proctype RepairerX() {
    byte b, had, settled;
    set_up;
    {
        if
        :: b = 0
        :: b = 1
        fi;
        lock_bucket(b, X, had);
        lock[b] = 0
    } unless { dead[X] };
    running--
}

active proctype RepairerY() {
    byte b, n, row, had, settled; bool claimed, clean;
    set_up;
    if
    :: skip                     /* it only comes by to reclaim */
    :: for (n : 0 .. 1) {
           lock_bucket(n, Y, had);
           lock[n] = 0
       }
    fi;
    /* procs.c:skv_reclaim_dead `} while (done && total < SKV_PROCS);` */
    for (n : 0 .. 2) {
        row = n & 1;
        reclaim(row, Y, had)
    }
    reclaimed = true;
    running--
}

#ifndef READERS
active proctype Newcomer() {
    byte generation;
    (state[0] == FREE || reclaimed);            /* procs.c:take_free_row */
    if
    :: state[0] == FREE ->
        d_step { dead[byte_of[0]] -> byte_of[0] = NEW };
        state[0] = USED;        /* procs.c:start_row `skv_store_release(&proc->state, SKV_PROC_USED);` */
        d_step { (lock[0] == 0 || IS_DEAD(lock[0] - 1)) -> lock[0] = 1 };
        d_step { (lock[1] == 0 || IS_DEAD(lock[1] - 1)) -> lock[1] = 1 };
        assert(txn[0] == 0 && txn[1] == 0);     /* nothing of the last one is left */
        /* intent.c:skv_intent_begin `(skv_load(&store->proc->status) >> 2) + 1;` */
        generation = (status[0] >> 2) + 1;
        status[0] = generation << 2 | PENDING;
        txn[0] = generation; seq[0]++;          /* batch.c:announce_locked `&b->groups[i].bucket->txn, b->intent);` */
        txn[1] = generation; seq[1]++;
        /* batch.c:append_and_commit_locked `skv_intent_commit(store, generation);` */
        status[0] = generation << 2 | COMMITTED;
        /* batch.c:settle_locked `skv_store_release(&bucket->txn, 0);` */
        slot[0] = generation; txn[0] = 0; seq[0]++;
        slot[1] = generation; txn[1] = 0; seq[1]++;
        lock[1] = 0;
        lock[0] = 0;
        status[0] = generation << 2 | IDLE;
        expected = generation
    :: else
    fi;
    running--
}
#endif

#ifdef READERS
/* read.h:skv_find */
inline find(b, s, t, st, v) {
    s = seq[b];
    t = txn[b];
    if
    :: t -> st = status[0]
    :: else -> st = IDLE
    fi;
    if
    /* intent.c:is_committed `status == (it->generation << 2 | SKV_BATCH_COMMITTED);` */
    :: t && st == (t << 2 | COMMITTED) -> v = t
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
    require(!t || status[0] == st);
    require((t && st == (t << 2 | COMMITTED)) || slot[b] == v);
    require(seq[b] == s);       /* read.h:skv_validate `return skv_load_acquire(&view->bucket->seq) == view->seq` */
    require(!t || status[0] == st)
}

active proctype Reader() {
    byte s[2], t[2], st[2], v[2];
    set_up;
    find(0, s[0], t[0], st[0], v[0]);
    find(1, s[1], t[1], st[1], v[1]);
    is_same(0, s[0], t[0], st[0], v[0]);
    is_same(1, s[1], t[1], st[1], v[1]);
    assert(v[0] == v[1]);
end: running--
}
#endif

/* What the dead one left, after each step of batch.c:commit_locked */
init {
    byte b, had, settled;
    atomic {
        if
        :: skip                                                 /* locked, nothing more */
        :: status[0] = 1 << 2 | PENDING
        :: status[0] = 1 << 2 | PENDING; txn[0] = 1             /* announced in the first bucket */
        :: status[0] = 1 << 2 | PENDING; txn[0] = 1; txn[1] = 1
        :: status[0] = 1 << 2 | COMMITTED; txn[0] = 1; txn[1] = 1; expected = 1
        :: status[0] = 1 << 2 | COMMITTED; txn[0] = 1; txn[1] = 1; slot[0] = 1; expected = 1
        :: status[0] = 1 << 2 | COMMITTED; txn[1] = 1; slot[0] = 1; expected = 1
        :: status[0] = 1 << 2 | COMMITTED; txn[1] = 1; slot[0] = 1; slot[1] = 1; expected = 1
        :: status[0] = 1 << 2 | COMMITTED; slot[0] = 1; slot[1] = 1; expected = 1
        :: status[0] = 1 << 2 | COMMITTED; slot[0] = 1; slot[1] = 1; expected = 1; lock[1] = 0
        fi;
        set_up = true
    };
    dead[X] = true;
    running == 0;
    for (b : 0 .. 1) {
        lock_bucket(b, Y, had);
        lock[b] = 0;
        assert(txn[b] == 0 && slot[b] == expected)
    }
}
