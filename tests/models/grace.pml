/* grace.pml: grace periods, and the audit that frees what nothing names.
 *
 * What: a page of three blocks, and two blocks elsewhere.  The writer puts a key: it announces itself, allocates,
 *       publishes, bumps, frees what it replaced, and ends.  It may be killed at any step.  The auditor closes the
 * page,
 *       waits for a grace period, notes what is named, waits for another, and frees the rest.  Before it somebody else
 *       may have begun a grace period in vain.  A reader gets the key.
 * Holds: what is named, or in the hands of somebody alive, is not freed; nothing is freed twice; a reader never accepts
 *       garbage; what leaked before the audit is free after it.
 * Models: procs.h:skv_busy_enter procs.h:skv_busy_exit procs.c:row_drained procs.c:wait_for_parity
 *       procs.c:skv_grace_period procs.c:reclaim_row compact.c:close_batch compact.c:audit_batch compact.c:note_bucket
 *       compact.c:note_suspect compact.c:free_leaked_blocks compact.c:reopen_batch store.c:put_once
 * Leaves out: weak memory (announced.cpp), tables (growth.pml), spare blocks (spare.pml).
 *
 * That an operation looks at the epoch twice does not matter here, where every store is seen at once: announced.cpp
 * shows what it is for.
 *
 * Mutants: M_ONE_PARITY: a grace period moves the epoch on once; M_NOT_CLOSED: allocation goes on in the page;
 * M_NO_FIRST_GRACE, M_NO_SECOND_GRACE: one is left out; M_NO_BUMP: the lock of the dead is taken over without a bump;
 * M_NOT_REPAIRED: operations of the dead count as ended before what they held is repaired; M_NO_LAST_LOOK: suspects are
 * freed without asking whether they still are in use.
 */
#ifndef PUTS
#define PUTS 1
#endif
#define IN_PAGE  3              /* blocks 0 to 2 are in the page, 3 and 4 elsewhere */
#define BLOCKS   5
#define NOTHING  BLOCKS

byte epoch;                     /* its lowest bit is the parity of new operations */
byte busy[2];                   /* of the writer's row */
bool row_used = true;
bool closed;                    /* the page */
bool used[BLOCKS] = { true, false, false, false, false };
bool garbage[BLOCKS] = { false, true, true, true, true };
byte slot, seq;                 /* word A: the number of a block */
bool locked;
byte hand = NOTHING;            /* the block that the writer has and nothing names */
bool dead;

inline free(x) {                /* free.c:skv_free; within d_step */
    assert(used[x] && x != slot && (x != hand || dead));
    used[x] = false;
    garbage[x] = true
}

/* store.c:put_once */
active proctype Writer() {
    byte e, new, old, n;
    {
        do
        :: n < PUTS ->
            n++;
            do                  /* procs.h:skv_busy_enter */
            :: e = epoch;       /* `uint64_t epoch = skv_load_acquire(&store->header->epoch);` */
               busy[e & 1]++;   /* `atomic_fetch_add_explicit(&proc->busy[entered & 1], 1, memory_order_seq_cst);` */
               if
               /* `atomic_load_explicit(&store->header->epoch, memory_order_seq_cst) == epoch` */
               :: epoch == e -> break
               :: else -> busy[e & 1]--         /* `skv_busy_exit(store, entered);` */
               fi
            od;
            skip;               /* a loop cannot end at a d_step */
            d_step {            /* lease.c:take_bits: nobody allocates in a page that is closed */
#ifdef M_NOT_CLOSED
                new = 0;
#else
                new = (closed -> IN_PAGE : 0);
#endif
                do
                :: used[new] -> new++
                :: else -> break
                od;
                used[new] = true;
                hand = new
            };
            garbage[new] = false;               /* store.c:skv_write_record */
            locked = true;                      /* nobody else wants the lock while its holder lives */
            old = slot;
            d_step { slot = new; hand = old };  /* store.c:publish_over_locked `skv_store_release(&hit->slot->a, a);` */
            seq++;                              /* store.c:finish_locked `skv_bump_locked(write->bucket);` */
            locked = false;
            d_step { hand = NOTHING; free(old) };       /* store.c:skv_write_end */
            busy[e & 1]--                       /* store.c:put_once `skv_busy_exit(store, busy);` */
        :: else -> break
        od
    } unless { dead }
}

/* procs.c:wait_for_parity */
inline wait_for_parity(old) {
    /* `uint64_t old = atomic_fetch_add_explicit(&store->header->epoch, 1, memory_order_seq_cst);` */
    d_step { old = epoch & 1; epoch++ };
    if                          /* procs.c:row_drained */
    :: !row_used || busy[old] == 0
#ifdef M_NOT_REPAIRED
    :: dead
#else
    /* `return slot != skv_load(&store->slot) && reclaim_row(store, slot);` */
    :: row_used && busy[old] && dead ->
        if
        :: locked ->
 #ifndef M_NO_BUMP
            seq++;              /* repair.c:skv_repair_bucket `skv_bump_locked(bucket);` */
 #endif
            locked = false
        :: else
        fi;
        row_used = false        /* procs.c:sweep_dead `skv_store_release(&proc->state, SKV_PROC_FREE);` */
#endif
    fi
}

/* procs.c:skv_grace_period `return wait_for_parity(store, deadline) && wait_for_parity(store, deadline);` */
inline grace_period(old) {
    wait_for_parity(old);
#ifndef M_ONE_PARITY
    wait_for_parity(old)
#endif
}

/* Timed out, or died. */
active proctype InVain() {
    epoch++
}

/* compact.c:audit_batch */
active proctype Auditor() {
    byte old, named, i; bool suspect[IN_PAGE], was_dead;
    was_dead = dead;
    closed = true;              /* compact.c:close_batch `skv_page_close(a->store, a->next, a->wait)` */
#ifndef M_NO_FIRST_GRACE
    grace_period(old);          /* compact.c:audit_batch `if (skv_grace_period(store, GRACE_MS)) {` */
#endif
    named = slot;               /* compact.c:note_bucket `uint64_t a = skv_load_acquire(&slots[i].a);` */
    for (i : 0 .. IN_PAGE - 1) {
        /* compact.c:note_suspect `if (skv_is_named(found->store, found->names, offset))` */
        suspect[i] = (used[i] && i != named)
    }
#ifndef M_NO_SECOND_GRACE
    /* compact.c:audit_batch `status = skv_grace_period(store, GRACE_MS) ? SKV_OK : SKV_TIMEOUT;` */
    grace_period(old);
#endif
    for (i : 0 .. IN_PAGE - 1) {
        d_step {                /* compact.c:free_leaked_blocks `skv_free(a->store, found->offsets[i]);` */
            if
#ifdef M_NO_LAST_LOOK
            :: suspect[i] -> free(i)
#else
            :: suspect[i] && used[i] -> free(i)         /* `if (!skv_block_in_use(a->store, found->offsets[i]))` */
#endif
            :: else
            fi
        };
        assert(!was_dead || !used[i] || i == slot)
    }
    closed = false              /* compact.c:reopen_batch */
}

active proctype Reader() {
    byte s, block; bool bad;
    s = seq;                    /* read.h:skv_find `view->seq = skv_load_acquire(&bucket->seq);` */
    block = slot;
    bad = garbage[block];
    assert(seq != s || !bad)    /* read.h:skv_validate */
}

active proctype Killer() {
    dead = true
}
