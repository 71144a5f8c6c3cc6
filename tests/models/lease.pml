/* lease.pml: who may allocate in a page, while it is leased, given up, shared, closed, freed and leased again.
 *
 * What: one page of two blocks.  Two threads of one process lease it, allocate in it, free, and give the lease up while
 * the
 *       other may be about to allocate.  Another process allocates in the page under pages_lock when nobody owns it, or
 *       closes it for an audit, and opens it again.  Who frees the last block of an unowned page frees the page, which
 *       then may serve another class.
 * Holds: no block is allocated twice (allocation sets bits that it saw clear, without looking again); nobody allocates
 * in a
 *       page that is free or closed; a page with blocks in use is never freed.
 * Models: lease.c:skv_alloc_leased lease.c:alloc_in_page lease.c:take_bits pages.c:skv_page_give_up lease.c:skv_leases_return
 *       lease.c:install_lease lease.c:use_page_locked free.c:skv_free free.c:note_freed
 *       pages.c:skv_page_release_if_empty pages.c:skv_page_close pages.c:skv_page_reopen
 * Leaves out: kinds and hands, which are hints; the process that dies (its pages are disowned after its locks are
 *       repaired: repair.pml).
 *
 * Mutants: M_GIVE_UP_FIRST: the page is given up before the lease forgets it; M_NO_LEASE_LOCK: threads of one process
 * allocate
 * without their lock; M_CLOSE_OWNED: a leased page is closed; M_FREE_UNLOCKED: an empty page is freed without
 * pages_lock; M_FREE_OWNED: an empty page is freed though it has an owner.
 */
#ifndef ROUNDS
#define ROUNDS 2
#endif
#define FREE_PAGE 0             /* states of the page */
#define BLOCKS    1

#define NOBODY 0                /* owners */
#define OURS   1
#define CLOSED 2                /* by the other process */

byte state, owner;
bool used[2];
byte holder[2];                 /* who was given a block; 0 = nobody */
bool lease, lease_lock, pages_lock;

inline lock(word) {
    d_step { !word -> word = true }
}

#define EMPTY (!used[0] && !used[1])

/* lease.c:alloc_in_page: the bits are loaded, then set; block = 2 if there is none */
inline alloc(me, block) {
    block = (used[0] -> (used[1] -> 2 : 1) : 0);        /* `uint64_t clear = ~skv_load(bits) & skv_bitmap_mask(blocks, w);` */
    if
    :: block < 2 ->
        /* lease.c:take_bits `atomic_fetch_or_explicit(bits, taken, memory_order_acquire);` */
        d_step {
            assert(state == BLOCKS && owner != CLOSED && holder[block] == NOBODY);
            used[block] = true;
            holder[block] = me
        }
    :: else
    fi
}

/* pages.c:skv_page_release_if_empty of a page without owner, without waiting */
inline release_if_empty() {
#ifdef M_FREE_UNLOCKED
    gone = true;
#else
    d_step { gone = !pages_lock; if :: gone -> pages_lock = true :: else fi };  /* `if (skv_lock_pages(store, wait))` */
#endif
    if
    :: gone ->
#ifdef M_FREE_OWNED
        gone = (state == BLOCKS && EMPTY);
#else
        /* `bool freed = skv_pw_state(word) == SKV_PAGE_BLOCKS && mine && skv_page_is_empty(store, page, skv_pw_class(word));` */
        gone = (state == BLOCKS && owner == NOBODY && EMPTY);
#endif
        if
        /* pages.c:skv_page_set_free `skv_page_set_word(store, page, 0);` */
        :: gone -> assert(EMPTY); state = FREE_PAGE
        :: else
        fi;
#ifndef M_FREE_UNLOCKED
        pages_lock = false
#endif
    :: else
    fi
}

/* free.c:skv_free */
inline free(block) {
    d_step { assert(state == BLOCKS && used[block]); holder[block] = NOBODY; used[block] = false; left = !EMPTY };
    if
#ifdef M_FREE_OWNED
    :: !left -> release_if_empty()
#else
    /* free.c:note_freed `if (left == 0 && skv_page_is_empty(store, page, skv_pw_class(word))) {` */
    :: owner == NOBODY && !left -> release_if_empty()
#endif
    :: else
    fi
}

/* A thread of the process that leases. */
proctype Thread(byte me) {
    byte block = 2, n; bool had, gone, left;
    do
    :: n < ROUNDS ->
        n++;
        /* lease.c:skv_alloc_leased */
#ifndef M_NO_LEASE_LOCK
        lock(lease_lock);       /* `skv_lock_local(&store->lease_lock);` */
#endif
        if
        :: lease -> alloc(me, block)
        :: else
        fi;
#ifndef M_NO_LEASE_LOCK
        lease_lock = false;
#endif
        if
        :: block < 2 -> free(block); block = 2
        :: else ->              /* lease.c:skv_refill: lease the page, if it is there to be had */
            lock(pages_lock);
            if
            :: owner == NOBODY && !(used[0] && used[1]) ->
                /* lease.c:use_page_locked `skv_page_set_word(store, page, skv_pw_make(SKV_PAGE_BLOCKS, family, cls, owner, 0));`
                   */
                state = BLOCKS; owner = OURS;
                lock(lease_lock);               /* lease.c:install_lease */
                assert(!lease);
                lease = true;
                lease_lock = false
            :: else
            fi;
            pages_lock = false
        fi;
        /* lease.c:skv_leases_return */
        if
        :: skip
        ::
#ifdef M_GIVE_UP_FIRST
            if
            :: lease -> owner = NOBODY
            :: else
            fi;
#endif
            lock(lease_lock);
            had = lease;        /* `uint32_t page = store->leases[family][cls].page;` */
            lease = false;      /* `store->leases[family][cls].page = 0;` */
            lease_lock = false;
            if
            :: had ->
                owner = NOBODY; /* pages.c:skv_page_give_up `skv_page_set_word(store, page, skv_pw_with_owner(word, 0));` */
                if
                :: EMPTY -> release_if_empty()  /* lease.c:skv_leases_return `if (skv_page_is_empty(store, page - 1, cls))` */
                :: else
                fi
            :: else
            fi
        fi
    :: else -> break
    od
}

/* Another process: shares the page, or closes it for an audit. */
proctype Other(byte me) {
    byte block = 2; bool gone, left;
    if
    ::  lock(pages_lock);       /* lease.c:use_page_locked, where leases are used up */
        if
        :: owner == NOBODY -> state = BLOCKS; alloc(me, block)
        :: else
        fi;
        pages_lock = false;
        if
        :: block < 2 -> free(block)
        :: else
        fi
    ::  lock(pages_lock);       /* pages.c:skv_page_close */
#ifdef M_CLOSE_OWNED
        gone = (state == BLOCKS);
#else
        /* `bool closed = skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_owner(word) == 0;` */
        gone = (state == BLOCKS && owner == NOBODY);
#endif
        if
        :: gone -> owner = CLOSED              /* `skv_pw_with_owner(word, skv_load(&store->slot) + 1) | SKV_PW_EVAC` */
        :: else
        fi;
        pages_lock = false;
        if
        /* pages.c:skv_page_reopen `skv_page_set_word(store, page, skv_pw_with_owner(word, 0));` */
        :: gone -> assert(owner == CLOSED); owner = NOBODY
        :: else
        fi
    fi
}

init {
    atomic {
        run Thread(1);
        run Thread(2);
        run Other(3)
    };
    _nr_pr == 1;
    assert(EMPTY)
}
