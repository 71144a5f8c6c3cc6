/* waiters.pml: the lock word's waiters bit, futexes, and wake-ups that must not be lost.
 *
 * What: three threads of three processes, each of which wants the lock once or more.  A sleep ends with a wake-up.
 *       Slices of 20 ms end it too, in the engine; here they do not, unless said, so that a lost wake-up is a deadlock.
 *       -DHOLDER_DIES: one is killed while it has the lock, and a slice ends while the lock names a dead process.
 *       -DANY_DIES: one is killed, or gives up waiting, at any step (the wake-up that it got is lost with it), and a
 *       slice ends when nothing else can happen.
 * Holds: everybody who lives gets the lock, or has given up.
 * Models: lock.h:skv_trylock lock.h:skv_lock lock.h:skv_unlock lock.c:skv_lock_slow lock.c:try_swap lock.c:sleep_for
 *       lock.c:take_if_dead lock.c:skv_lock_take_from os_facts.c:skv_os_futex_wait os_facts.c:skv_os_futex_wake
 * Leaves out: the liveness byte (takeover.pml).
 *
 * Mutants: M_FORGET_WAITERS: who slept takes the lock without the bit; M_NO_COMPARE: sleeps without comparing the word;
 * M_NO_BIT: sleeps without setting the bit; M_WAKE_FIRST: wakes before it unlocks; M_TAKEOVER_DROPS_BIT;
 * M_NO_SLICES: sleeps for ever.
 */
#define THREADS 3
#ifndef ROUNDS
#define ROUNDS  1
#endif

#define OWNER(word) ((word) & 3)        /* 0, or the number of the thread */
#define WAITERS     4

byte word;
bool asleep[4], dead[4], inside[4];

/* When a slice of a sleeper ends. */
#ifdef HOLDER_DIES
#define SLICE_ENDS dead[OWNER(word)]
#else
#ifdef ANY_DIES
 #ifdef M_NO_SLICES
 #define SLICE_ENDS false
 #else
 #define SLICE_ENDS timeout
 #endif
#endif
#endif

/* lock.c:try_swap `return atomic_compare_exchange_strong_explicit(lock, &from, to, memory_order_acquire,
   memory_order_relaxed);` */
inline swap(from, to, done) {
    d_step { done = (word == (from)); if :: done -> word = (to) :: else fi }
}

/* os_facts.c:skv_os_futex_wake `FUTEX_WAKE, 1,`: one of those who sleep, whichever */
inline wake_one() {
    if
    :: d_step { asleep[1] -> asleep[1] = false }
    :: d_step { asleep[2] -> asleep[2] = false }
    :: d_step { asleep[3] -> asleep[3] = false }
    :: !(asleep[1] || asleep[2] || asleep[3])
    fi
}

/* os_facts.c:skv_os_futex_wait `FUTEX_WAIT, expected,`: the kernel compares and sleeps in one step */
inline sleep_while(me, expected) {
#ifdef M_NO_COMPARE
    asleep[me] = true;
#else
    d_step { if :: word == (expected) -> asleep[me] = true :: else fi };
#endif
    if
    :: !asleep[me]
#ifdef SLICE_ENDS
    :: SLICE_ENDS -> asleep[me] = false
#endif
    fi
}

/* lock.c:skv_lock_slow */
inline lock_slow(me, seen, waited, had) {
    waited = 0;                 /* `uint32_t waited = 0;` */
    had = false;
    do
    :: had -> break
    :: else ->
        seen = word;            /* `uint32_t word = skv_load(lock);` */
        if
        :: seen == 0 -> swap(0, me | waited, had)       /* `if (try_swap(lock, 0, skv_lock_name(store) | waited))` */
#if defined(HOLDER_DIES) || defined(ANY_DIES)
        :: seen != 0 && dead[OWNER(seen)] ->
            /* lock.c:skv_lock_take_from `mine = skv_lock_name(store) | SKV_LOCK_RECOVERING | (word &
               SKV_LOCK_WAITERS);` */
 #ifdef M_TAKEOVER_DROPS_BIT
            d_step { if :: OWNER(word) == OWNER(seen) -> word = me; had = true :: else fi }
 #else
            d_step { if :: OWNER(word) == OWNER(seen) -> word = me | (word & WAITERS); had = true :: else fi }
 #endif
#endif
#ifdef ANY_DIES
        :: seen != 0 -> goto gave_up    /* lock.c:skv_lock_slow `return SKV_BUSY;` or `return SKV_TIMEOUT;` */
#endif
        :: seen != 0 && !dead[OWNER(seen)] ->
#ifndef M_NO_BIT
            /* `if ((word & SKV_LOCK_WAITERS) || try_swap(lock, word, word | SKV_LOCK_WAITERS)) {` */
            if
            :: seen & WAITERS -> had = true
            :: else -> swap(seen, seen | WAITERS, had)
            fi;
            if
            /* `waited = SKV_LOCK_WAITERS;` */
            :: had -> had = false; sleep_while(me, seen | WAITERS); waited = WAITERS
            :: else
            fi
#else
            sleep_while(me, seen)
#endif
        fi;
#ifdef M_FORGET_WAITERS
        waited = 0;
#endif
    od
}

/* lock.h:skv_unlock */
inline unlock(old) {
#ifdef M_WAKE_FIRST
    old = word;
    if
    :: old & WAITERS -> wake_one()
    :: else
    fi;
    word = 0
#else
    d_step { old = word; word = 0 };    /* `uint32_t old = atomic_exchange_explicit(lock, 0, memory_order_release);` */
    if
    :: old & WAITERS -> wake_one()      /* `store->os.futex_wake(store->os.context, lock);` */
    :: else
    fi
#endif
}

active [THREADS] proctype Thread() {
    byte me, seen, waited, n; bool had;
    me = _pid + 1;
    {
        do
        :: n < ROUNDS ->
            n++;
            swap(0, me, had);           /* lock.h:skv_lock `if (skv_likely(skv_trylock(store, lock)))` */
            if
            :: had
            :: else -> lock_slow(me, seen, waited, had)
            fi;
            inside[me] = true;
            assert((inside[1] && !dead[1]) + (inside[2] && !dead[2]) + (inside[3] && !dead[3]) == 1);
            inside[me] = false;
            unlock(seen)
        :: else -> break
        od;
#ifdef ANY_DIES
gave_up: skip
#endif
    } unless { dead[me] }
}

#if defined(HOLDER_DIES) || defined(ANY_DIES)
active proctype Killer() {
    byte who;
    select(who : 1 .. 3);
 #ifdef HOLDER_DIES
    if
    :: d_step { OWNER(word) == who && inside[who] -> dead[who] = true }
    :: skip
    fi
 #else
    d_step { dead[who] = true; asleep[who] = false }
 #endif
}
#endif
