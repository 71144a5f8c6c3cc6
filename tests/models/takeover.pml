/* takeover.pml: a lock is taken from a dead holder, while the dead one's process slot goes to somebody else.
 *
 * What: the ghost died with the bucket's lock.  T1 and T2 want the bucket; T2 also reclaims the ghost's process
 *       slot, and the newcomer registers in it and wants the bucket too, so that its lock word looks like the
 *       ghost's.  Whoever is scheduled away between the question "is it dead?" and the swap meets all of that.
 *       One of them may be killed at any step, also as the new holder, also while it holds the dead slot's byte.
 * Holds: two live processes never hold the lock together, and in the end everybody has had it.
 * Models: lock.c:skv_lock_slow lock.c:take_if_dead lock.c:skv_lock_take_from lock.c:skv_lock_repair_if_dead
 *       procs.c:take_free_row procs.c:reclaim_row procs.c:sweep_dead os_liveness.c:skv_region_claim_dead
 *       os_liveness.c:skv_region_claim_own
 * Leaves out: waiters and sleep (waiters.pml), what a repair does (repair.pml).
 *
 * That a probe without the byte allows two holders was found by the model that the first design came with.
 *
 * Mutants: M_NO_BYTE asks without taking the byte; M_BYTE_BACK_EARLY gives it back before the swap; M_NO_COMPARE
 * stores its name without comparing; M_FREE_ROW_EARLY frees the process slot before its locks are swept.
 */
#define GHOST  1                /* processes; 0 = nobody */
#define T1     2
#define T2     3
#define NEWCOMER 4

#define FREE   0                /* states of a process slot */
#define USED   1

byte lock = 1;                  /* 0, or process slot + 1: the ghost and the newcomer are both in slot 0 */
byte state = USED;              /* of process slot 0 */
byte byte_of[3] = { GHOST, T1, T2 };    /* who holds the liveness byte of a slot; a lock of the dead is none */
bool dead[5] = { false, true, false, false, false };
bool holds[5];                  /* believes to hold the lock */
bool reclaimed;                 /* T2 has reclaimed what it could, or is dead */

inline section(me) {
    holds[me] = true;
    assert((holds[T1] && !dead[T1]) + (holds[T2] && !dead[T2]) + (holds[NEWCOMER] && !dead[NEWCOMER]) <= 1);
    holds[me] = false
}

/* os_liveness.c:skv_region_claim_dead `bool taken = !region->dead.page && hold_byte_locked(region, slot, &region->dead);` */
inline claim(me, row, had) {
#ifdef M_NO_BYTE
    had = dead[byte_of[row]]
#else
    d_step { had = dead[byte_of[row]]; if :: had -> byte_of[row] = me :: else fi }
#endif
}

/* os_liveness.c:skv_region_release_dead `drop(region, &region->dead);`: GHOST stands for "free" from then on */
inline give_back(me, row) {
    d_step { if :: byte_of[row] == me -> byte_of[row] = GHOST :: else fi }
}

/* lock.c:take_if_dead */
inline take_if_dead(me, word, owner, had, taken) {
    owner = word - 1;
    taken = false;
    claim(me, owner, had);      /* `if (!store->os.claim_dead(store->os.context, owner))` */
    if
    :: had ->
#ifdef M_BYTE_BACK_EARLY
        give_back(me, owner);
#endif
#ifdef M_NO_COMPARE
        lock = me;
        taken = true;
#else
        /* lock.c:skv_lock_take_from `if ((word & SKV_LOCK_OWNER_MASK) != dead_slot + 1)` and the swap after it */
        d_step { if :: lock == owner + 1 -> lock = me; taken = true :: else fi };
#endif
        give_back(me, owner)    /* lock.c:take_if_dead `store->os.release_dead(store->os.context, owner);` */
    :: else
    fi
}

/* lock.c:skv_lock_slow, as a loop that only goes on when it can get further; T1 and T2 are named by 2 and 3 */
inline lock_bucket(me, name, word, owner, had, taken) {
    taken = false;
    do
    :: taken -> break
    :: else ->
        (lock == 0 || dead[byte_of[lock - 1]]);         /* else it sleeps for another slice */
        word = lock;            /* `uint32_t word = skv_load(lock);` */
        if
        :: word == 0 -> d_step { if :: lock == 0 -> lock = name; taken = true :: else fi }
        :: word != 0 -> take_if_dead(name, word, owner, had, taken)
        fi
    od
}

active proctype Writer1() {
    byte word, owner; bool had, taken;
    {
        lock_bucket(T1, T1, word, owner, had, taken);
        section(T1);
        lock = 0                /* lock.h:skv_unlock */
    } unless { dead[T1] }
}

active proctype Writer2() {
    byte word, owner; bool had, taken;
    {
        if
        :: lock_bucket(T2, T2, word, owner, had, taken); section(T2); lock = 0
        :: skip                 /* it comes by to reclaim only */
        fi;
        /* procs.c:reclaim_row; the look at the state that comes before the byte is only for speed */
        claim(T2, 0, had);      /* `if (!store->os.claim_dead(store->os.context, slot))` */
        if
        :: had && state == USED ->
#ifdef M_FREE_ROW_EARLY
            state = FREE;
            give_back(T2, 0);
#endif
            /* procs.c:free_lock_of_dead `if (skv_lock_take_from(store, lock, slot, repair, NULL))` */
            d_step { taken = (lock == 1); if :: taken -> lock = T2 :: else fi };
            if
            :: taken -> section(T2); lock = 0
            :: else
            fi;
            state = FREE        /* procs.c:sweep_dead `skv_store_release(&proc->state, SKV_PROC_FREE);` */
        :: else
        fi;
        if
        :: had -> give_back(T2, 0)
        :: else
        fi
    } unless { dead[T2] };
    reclaimed = true
}

active proctype Newcomer() {
    byte word, owner; bool had, taken;
    {
        /* procs.c:take_free_row */
        (state == FREE || reclaimed);            /* `if (skv_load_acquire(&proc->state) != SKV_PROC_FREE)` */
        if
        :: state != FREE -> goto none           /* its byte was with T1, or T2 died: the ghost's slot stays for now */
        :: else
        fi;
        /* `*refused = !store->os.claim_own(store->os.context, slot);` */
        d_step { dead[byte_of[0]] -> byte_of[0] = NEWCOMER };
        state = USED;           /* procs.c:start_row `skv_store_release(&proc->state, SKV_PROC_USED);` */
        lock_bucket(NEWCOMER, 1, word, owner, had, taken);
        section(NEWCOMER);
        lock = 0;
none:   skip
    } unless { dead[NEWCOMER] }
}

active proctype Killer() {
    if
    :: dead[T1] = true
    :: dead[T2] = true
    :: dead[NEWCOMER] = true
    :: skip
    fi
}
