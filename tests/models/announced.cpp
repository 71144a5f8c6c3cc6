/* announced.cpp: an operation that begins and a grace period that begins, under the C11 memory model.
 *
 * What: an operation adds itself to the count of its parity, looks at the epoch again, and takes a block if the page is
 *       open.  An auditor closes the page, moves the epoch on twice, waits each time for the old parity's count, and
 *       frees what is in use and not named.  The operation publishes its block after that, or ends first.
 * Holds: a block in the hands of an operation is never freed by the audit.
 * Models: procs.h:skv_busy_enter procs.h:skv_busy_exit procs.c:wait_for_parity procs.c:row_drained
 *       procs.c:skv_grace_period compact.c:close_batch compact.c:note_bucket lease.c:take_bits
 * Leaves out: deaths, the second grace period, parities of more than two epochs (grace.pml).
 *
 * The page's word stands for all ways to learn that a page is closed; its real readers hold pages_lock or own the page.
 *
 * Mutants: M_NO_SECOND_LOOK: the epoch is not looked at again; M_WEAK_ENTER: the operation's add and load are acquire
 * and
 * release only; M_WEAK_DRAIN: the auditor's are; M_RELAXED_EXIT: the end of an operation releases nothing.
 */
#include "c11.hpp"

struct announced : rl::test_suite<announced, 2> {
    std::atomic<unsigned> epoch, busy[2], closed, bitmap, slot;

    void before()
    {
        epoch.store(0, RELAXED);
        busy[0].store(0, RELAXED);
        busy[1].store(0, RELAXED);
        closed.store(0, RELAXED);
        bitmap.store(0, RELAXED);
        slot.store(0, RELAXED);
    }

    /* procs.h:skv_busy_enter */
    unsigned enter()
    {
        for (;;) {
            /* `uint64_t epoch = skv_load_acquire(&store->header->epoch);` */
            unsigned now = epoch.load(ACQUIRE);
            /* `atomic_fetch_add_explicit(&proc->busy[entered & 1], 1, memory_order_seq_cst);` */
            busy[now & 1].fetch_add(1, SEQ_CST_BUT("M_WEAK_ENTER"));
            /* `atomic_load_explicit(&store->header->epoch, memory_order_seq_cst) == epoch` */
            if (is_mutant("M_NO_SECOND_LOOK"))
                return now & 1;
            if (is_mutant("M_WEAK_ENTER") ? epoch.load(ACQUIRE) == now : epoch.load(SEQ_CST) == now)
                return now & 1;
            leave(now & 1);
        }
    }

    /* procs.h:skv_busy_exit `atomic_fetch_sub_explicit(&proc->busy[entered & 1], 1, memory_order_release);` */
    void leave(unsigned parity) { busy[parity].fetch_sub(1, RELEASE_BUT("M_RELAXED_EXIT")); }

    void operation()
    {
        unsigned parity = enter();
        if (!closed.load(RELAXED)) {
            /* lease.c:take_bits `atomic_fetch_or_explicit(bits, taken, memory_order_acquire);` */
            bitmap.fetch_or(1, ACQUIRE);
            /* store.c:publish_new_locked `skv_store_release(&slots[at].a, a);` */
            slot.store(1, RELEASE);
        }
        leave(parity);
    }

    /* procs.c:wait_for_parity; a wait in vain ends the audit, as in compact.c:audit_batch */
    bool drain()
    {
        unsigned old = epoch.fetch_add(1, SEQ_CST_BUT("M_WEAK_DRAIN")) & 1;
        for (unsigned tries = 0; tries < 2; tries++) {
            /* procs.c:row_drained `(atomic_load_explicit(&proc->busy[parity], memory_order_seq_cst) == 0` */
            if ((is_mutant("M_WEAK_DRAIN") ? busy[old].load(ACQUIRE) : busy[old].load(SEQ_CST)) == 0)
                return true;
        }
        return false;
    }

    void audit()
    {
        /* compact.c:close_batch; pages.h:skv_page_set_word `skv_store_release(&store->pages[page].word, word);` */
        closed.store(1, RELEASE);
        /* procs.c:skv_grace_period `return wait_for_parity(store, deadline) && wait_for_parity(store, deadline);` */
        if (!drain() || !drain())
            return;
        /* compact.c:note_bucket `uint64_t a = skv_load_acquire(&slots[i].a);` */
        bool named = slot.load(ACQUIRE);
        RL_ASSERT(named || !bitmap.load(RELAXED));      /* compact.c:note_suspect: it would be freed */
    }

    void thread(unsigned number)
    {
        if (number == 0)
            operation();
        else
            audit();
    }
};

int main(int argc, char **argv) { return run_model<announced>(argc, argv, rl::sched_bound); }
