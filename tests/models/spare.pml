/* spare.pml: the block that an overwrite gave up, kept for the next put, and everybody who may want it.
 *
 * What: the owner puts a key again and again with its spare block, or with one that it allocates.  A thief who needs
 * room
 *       frees the spare of every row.  An auditor frees what neither the slot nor the row names.  If the owner is
 * killed,
 *       who reclaims its row frees the spare.  Each of them announces itself to the grace periods.
 * Holds: nobody frees what is named or in somebody's hands, or what is free; the owner never takes a block that is
 * free.
 * Models: spare.h:skv_spare_take spare.h:skv_spare_keep spare.h:skv_spare_free spare.h:skv_spares_free
 *       procs.c:free_spare_of_dead procs.c:sweep_dead compact.c:audit_all compact.c:audit_batch
 *       compact.c:skv_names_collect compact.c:free_leaked_blocks store.c:alloc_record store.c:skv_write_end
 * Leaves out: the epoch (grace.pml): a grace period waits here for every operation that has begun.
 *
 * Mutants: M_NO_EXCHANGE: the owner takes with a load and a store; M_FREE_FIRST: a thief frees before the row forgets;
 * M_KEEP_IN_AUDIT, M_REUSE_IN_AUDIT: blocks are kept or reused while an audit runs; M_FLAG_LATE: the flag is set after
 * the first grace period; M_THIEF_UNANNOUNCED: a thief is in no operation that a grace period waits for.
 */
#ifndef PUTS
#define PUTS 2
#endif
#define BLOCKS  6               /* 1 to 3 are in the page that is audited, 4 and 5 elsewhere */
#define ELSEWHERE 4
#define NOTHING 0               /* block 0 is none */

bool used[BLOCKS] = { false, true, false, false, false, false };
byte slot = 1;                  /* word A */
byte spare;                     /* of the owner's row */
bool auditing, closed, dead, row_used = true;
byte busy, thieves;             /* operations that have begun, of the owner and of the thief */
byte hand, stolen;              /* blocks that the owner and the thief have and nothing names */

inline free(x) {                /* within d_step */
    assert(used[x] && x != slot);
    used[x] = false
}

/* spare.h:skv_spare_free `atomic_exchange_explicit(&proc->spare, 0, memory_order_acq_rel);` */
inline exchange(x) {
    d_step { x = spare; spare = NOTHING }
}

active proctype Owner() {
    byte mine, old, n;          /* mine: store->spare */
    {
        do
        :: n < PUTS ->
            n++;
            busy++;             /* store.c:put_once */
            if                  /* spare.h:skv_spare_take */
            :: mine ->
                old = mine;
                mine = NOTHING; /* `store->spare = 0;` */
#ifdef M_NO_EXCHANGE
                if
                :: spare == old -> spare = NOTHING; hand = old
                :: else
                fi;
#else
                /* `if (skv_unlikely(atomic_exchange_explicit(&store->proc->spare, 0, memory_order_acq_rel) != spare))`
                   */
                d_step { if :: spare == old -> hand = old :: else fi; spare = NOTHING };
#endif
#ifndef M_REUSE_IN_AUDIT
                if
                /* `!skv_load(&store->header->auditing))` */
                :: hand && auditing -> d_step { free(hand); hand = NOTHING }
                :: else
                fi
#endif
            :: else
            fi;
            /* store.c:alloc_record `return *offset ? SKV_OK : skv_alloc(store, SKV_RECORDS, size, effort, wait,
               offset);` */
            if
            :: d_step {
                   hand == NOTHING ->
                   hand = (closed -> ELSEWHERE : 1);
                   do
                   :: used[hand] -> hand++
                   :: else -> break
                   od;
                   used[hand] = true
               }
            :: hand
            fi;
            assert(used[hand] && hand != slot);
            d_step { old = slot; slot = hand; hand = old };     /* store.c:publish_over_locked */
            if
#ifdef M_KEEP_IN_AUDIT
            :: true -> mine = old; spare = old; hand = NOTHING
#else
            /* spare.h:skv_spare_keep `skv_store_release(&store->proc->spare, offset);` */
            :: !auditing -> mine = old; spare = old; hand = NOTHING
            :: auditing -> d_step { free(old); hand = NOTHING } /* `skv_free(store, offset);` */
#endif
            fi;
            busy--              /* store.c:put_once `skv_busy_exit(store, busy);` */
        :: else -> break
        od
    } unless { dead };
}

active proctype Thief() {
#ifndef M_THIEF_UNANNOUNCED
    thieves++;
#endif
#ifdef M_FREE_FIRST
    if
    :: spare -> stolen = spare; d_step { free(stolen); stolen = NOTHING }; spare = NOTHING
    :: else
    fi;
#else
    if
    :: spare ->                 /* spare.h:skv_spare_free `if (skv_load(&proc->spare) == 0)` */
        exchange(stolen);
        if
        :: stolen -> d_step { free(stolen); stolen = NOTHING }
        :: else
        fi
    :: else
    fi;
#endif
#ifndef M_THIEF_UNANNOUNCED
    thieves--
#endif
}

/* procs.c:skv_grace_period; an operation of the dead ends when its row is reclaimed */
inline grace_period(taken) {
    thieves == 0;
    if
    :: busy == 0
    /* procs.c:row_drained `return slot != skv_load(&store->slot) && reclaim_row(store, slot);` */
    :: busy && dead ->
        exchange(taken);        /* procs.c:free_spare_of_dead `skv_spare_free(store, proc);` */
        if
        :: taken -> d_step { free(taken) }
        :: else
        fi;
        row_used = false;       /* procs.c:sweep_dead `skv_store_release(&proc->state, SKV_PROC_FREE);` */
        busy = 0
    fi
}

/* compact.c:audit_all and compact.c:audit_batch */
active proctype Auditor() {
    byte i, taken, in_row, in_slot; bool suspect[ELSEWHERE];
#ifndef M_FLAG_LATE
    /* compact.c:audit_all `atomic_store_explicit(&store->header->auditing, 1, memory_order_seq_cst);` */
    auditing = true;
#endif
    closed = true;              /* compact.c:close_batch */
    grace_period(taken);        /* compact.c:audit_batch `if (skv_grace_period(store, GRACE_MS)) {` */
#ifdef M_FLAG_LATE
    auditing = true;
#endif
    /* compact.c:skv_names_collect `note_name(store, names, skv_load_acquire(&store->procs[slot].spare));` */
    in_row = spare;
    in_slot = slot;
    for (i : 1 .. ELSEWHERE - 1) {
        suspect[i] = (used[i] && i != in_row && i != in_slot)   /* compact.c:note_suspect */
    }
    /* compact.c:audit_batch `status = skv_grace_period(store, GRACE_MS) ? SKV_OK : SKV_TIMEOUT;` */
    grace_period(taken);
    for (i : 1 .. ELSEWHERE - 1) {
        d_step {                /* compact.c:free_leaked_blocks `skv_free(a->store, found->offsets[i]);` */
            if
            :: suspect[i] && used[i] ->
                assert((i != hand || dead) && i != stolen && (i != spare || !row_used));
                free(i)
            :: else
            fi
        }
    }
    closed = false;
    auditing = false            /* compact.c:audit_all `skv_store_release(&store->header->auditing, 0);` */
}

active proctype Killer() {
    dead = true
}
