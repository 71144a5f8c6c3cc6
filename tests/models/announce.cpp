/* announce.cpp: the steps of a batch under the C11 memory model.
 *
 * What: a batch gives new records to two keys in two buckets, as batch.c does with both locks held, and frees the old
 *       ones.  A reader gets both keys, one after the other or as get_many does, and may find them in their slots or
 *       through the intent.  A third thread allocates the first block that was freed, and writes into it.
 * Holds: get_many sees both old or both new, whole; after one key was seen new, the other is never seen old.
 * Models: intent.c:skv_intent_begin batch.c:announce_locked intent.h:skv_intent_commit batch.c:apply_group_locked
 *       batch.c:settle_locked batch.c:batch_end intent.c:skv_overlay_find intent.c:open_intent read.h:skv_find
 *       read.h:skv_validate read.c:skv_validate_many read.c:is_same
 * Leaves out: locks (one writer), tables, deaths (batch.pml).
 *
 * Mutants: M_RELAXED_STATUS, M_RELAXED_TXN_LOAD: an order is relaxed; M_NO_STATUS_CHECK: the status is not looked at
 * again;
 * M_APPLY_FIRST: a slot is changed before the commit.
 */
#include "c11.hpp"

struct announce : rl::test_suite<announce, 3> {
    enum { KEYS = 2, GARBAGE = 9 };
    enum { IDLE, PENDING, COMMITTED };
    std::atomic<unsigned> seq[KEYS], txn[KEYS], a[KEYS], status;
    std::atomic<unsigned> intent[KEYS];         /* new word A of each key */
    std::atomic<unsigned> block[4];             /* 0 and 1: old records of the keys, 2 and 3: new; a record is 0 or 1 */
    std::atomic<unsigned> freed;                /* block 0 */

    struct view {
        unsigned seq, txn, status, block, value;
        bool overlay;
    };

    void before()
    {
        status.store(IDLE, RELAXED);
        freed.store(0, RELAXED);
        for (unsigned i = 0; i < KEYS; i++) {
            seq[i].store(0, RELAXED);
            txn[i].store(0, RELAXED);
            a[i].store(i, RELAXED);
            intent[i].store(0, RELAXED);
            block[i].store(0, RELAXED);
            block[KEYS + i].store(GARBAGE, RELAXED);
        }
    }

    /* write.h:skv_bump_locked `skv_store_release(&bucket->seq, skv_load(&bucket->seq) + 1);` */
    void bump(unsigned i) { seq[i].store(seq[i].load(RELAXED) + 1, RELEASE); }

    void batch()
    {
        for (unsigned i = 0; i < KEYS; i++)
            block[KEYS + i].store(1, RELAXED);  /* store.c:skv_write_record */
        FENCE(release);                         /* intent.c:skv_intent_begin `skv_fence_release();` */
        for (unsigned i = 0; i < KEYS; i++)
            intent[i].store(KEYS + i, RELAXED); /* `skv_write_racy(store->base + offset + sizeof head,` */
        /* `skv_store_release(&store->proc->status, skv_intent_status(generation, SKV_BATCH_PENDING));` */
        status.store(PENDING, RELEASE);
        for (unsigned i = 0; i < KEYS; i++) {   /* batch.c:announce_locked */
            txn[i].store(1, RELEASE);           /* `skv_store_release(&b->groups[i].bucket->txn, b->intent);` */
            bump(i);
        }
        if (is_mutant("M_APPLY_FIRST"))
            a[0].store(KEYS, RELEASE);
        /* intent.h:skv_intent_commit `skv_store_release(&store->proc->status, skv_intent_status(generation, SKV_BATCH_COMMITTED));` */
        status.store(COMMITTED, RELEASE_BUT("M_RELAXED_STATUS"));
        for (unsigned i = 0; i < KEYS; i++) {
            /* batch.c:apply_group_locked `skv_store_release(&slots[entry->index].a, entry->new_a);` */
            a[i].store(KEYS + i, RELEASE);
            txn[i].store(0, RELEASE);           /* batch.c:settle_locked `skv_store_release(&bucket->txn, 0);` */
            bump(i);
        }
        /* intent.c:skv_intent_end `skv_store_release(&store->proc->status, skv_intent_status(generation, SKV_BATCH_IDLE));` */
        status.store(IDLE, RELEASE);
        freed.store(1, RELEASE);                /* free.c:skv_free `~bit, memory_order_release) & ~bit;` */
    }

    void other()
    {
        /* lease.c:take_bits `atomic_fetch_or_explicit(bits, taken, memory_order_acquire);` */
        if (!freed.load(ACQUIRE))
            return;
        FENCE(release);                         /* store.c:skv_write_record `skv_fence_release();` */
        block[0].store(GARBAGE, RELAXED);
    }

    /* read.h:skv_find */
    view find(unsigned i)
    {
        view v;
        v.seq = seq[i].load(ACQUIRE);           /* `view->seq = skv_load_acquire(&bucket->seq);` */
        /* `uint64_t txn = skv_load_acquire(&bucket->txn);` */
        v.txn = txn[i].load(ACQUIRE_BUT("M_RELAXED_TXN_LOAD"));
        /* intent.c:skv_overlay_find `view->status = skv_load_acquire(view->status_word);` */
        v.status = v.txn ? status.load(ACQUIRE) : 0;
        v.overlay = v.txn && v.status == COMMITTED;
        v.block = v.overlay ? intent[i].load(RELAXED) : a[i].load(ACQUIRE);
        v.value = block[v.block].load(RELAXED);
        return v;
    }

    bool same_status(const view &v)
    {
        return is_mutant("M_NO_STATUS_CHECK") || !v.txn || status.load(ACQUIRE) == v.status;
    }

    /* read.h:skv_validate */
    bool validate(unsigned i, const view &v)
    {
        FENCE(acquire);                         /* `skv_fence_acquire();` */
        return seq[i].load(ACQUIRE) == v.seq && same_status(v);
    }

    /* read.c:is_same */
    bool is_same(unsigned i, const view &v)
    {
        if (!v.overlay)
            /* `if (skv_load_acquire(&view->slot->a) != view->a)` */
            return a[i].load(ACQUIRE) == v.block && validate(i, v);
        view again = find(i);                   /* `skv_find(store, key, &again);` */
        return again.block == v.block && again.seq == v.seq && again.status == v.status && validate(i, again);
    }

    void get_many()
    {
        view first = find(0), second = find(1);
        FENCE(acquire);                         /* read.c:skv_validate_many `skv_fence_acquire();` */
        if (is_same(0, first) && is_same(1, second))
            RL_ASSERT(first.value <= 1 && first.value == second.value);
    }

    void get_both(unsigned one, unsigned then)
    {
        view first = find(one);
        if (!validate(one, first))
            return;
        view second = find(then);
        if (validate(then, second))
            RL_ASSERT(first.value <= 1 && second.value <= 1 && first.value <= second.value);
    }

    void thread(unsigned number)
    {
        if (number == 0)
            batch();
        else if (number == 1)
            other();
        else if (unsigned how = rl::rand(3))
            get_both(how - 1, 2 - how);
        else
            get_many();
    }
};

int main(int argc, char **argv) { return run_model<announce>(argc, argv, rl::sched_bound); }
