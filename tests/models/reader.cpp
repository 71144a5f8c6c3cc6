/* reader.cpp: a reader against the reuse of a block, under the C11 memory model.
 *
 * What: a writer overwrites a key: it writes a record into a fresh block, publishes it by word A, bumps, and frees the
 *       old block.  Another thread allocates that block and writes another key's record into it.  The reader copies the
 *       record that it finds, two words of it, and validates.
 * Holds: what was validated is one of the key's two records, whole; and who has seen the new one never again sees the
 *       old one.
 * Models: read.h:skv_find read.h:skv_validate table.h:skv_probe_for store.c:skv_write_record
 *       store.c:publish_over_locked write.h:skv_bump_locked free.c:skv_free lease.c:take_bits
 * Leaves out: the lock (one writer), tables and intents (announce.cpp).
 *
 * The first design's model of the same had both fences; allocation and free are new here.
 *
 * Mutants: M_NO_RELEASE_FENCE, M_NO_ACQUIRE_FENCE: the fence is left out; M_FREE_BEFORE_BUMP, M_BUMP_BEFORE_COMMIT: two
 * steps are swapped; M_RELAXED_A, M_RELAXED_ALLOC, M_RELAXED_FREE, M_RELAXED_PROBE: an order is relaxed.
 */
#include "c11.hpp"

struct reader : rl::test_suite<reader, 3> {
    enum { OLD, FRESH, WORDS = 2, OTHER = 9 };
    std::atomic<unsigned> a, seq, bitmap;       /* word A names a block; a bit for each block in use */
    std::atomic<unsigned> block[2][WORDS];      /* each record is its block's number in both words   */

    void before()
    {
        a.store(OLD, RELAXED);
        seq.store(0, RELAXED);
        bitmap.store(1u << OLD | 1u << FRESH, RELAXED);
        write(OLD, OLD, OLD);
        write(FRESH, OTHER, OTHER - 1);         /* of an earlier life */
    }

    void write(unsigned at, unsigned first, unsigned second)
    {
        block[at][0].store(first, RELAXED);
        block[at][1].store(second, RELAXED);
    }

    /* write.h:skv_bump_locked `skv_store_release(&bucket->seq, skv_load(&bucket->seq) + 1);` */
    void bump() { seq.store(1, RELEASE); }

    /* free.c:skv_free `~bit, memory_order_release) & ~bit;` */
    void free_old()
    {
        bitmap.fetch_and(~(1u << OLD), RELEASE_BUT("M_RELAXED_FREE"));
    }

    void writer()
    {
        FENCE(release);    /* store.c:skv_write_record `skv_fence_release();` */
        write(FRESH, FRESH, FRESH);             /* `skv_store(&words[0], first);` and the rest */
        if (is_mutant("M_BUMP_BEFORE_COMMIT"))
            bump();
        /* store.c:publish_over_locked `skv_store_release(&hit->slot->a, a);` */
        a.store(FRESH, RELEASE_BUT("M_RELAXED_A"));
        if (is_mutant("M_FREE_BEFORE_BUMP"))
            free_old();
        if (!is_mutant("M_BUMP_BEFORE_COMMIT"))
            bump();
        if (!is_mutant("M_FREE_BEFORE_BUMP"))
            free_old();
    }

    void other()
    {
        if (bitmap.load(RELAXED) & 1u << OLD)     /* lease.c:alloc_in_page `if (!clear)` */
            return;
        /* lease.c:take_bits `atomic_fetch_or_explicit(bits, taken, memory_order_acquire);` */
        bitmap.fetch_or(1u << OLD, ACQUIRE_BUT("M_RELAXED_ALLOC"));
        if (!is_mutant("M_NO_RELEASE_FENCE"))
            FENCE(release);    /* store.c:skv_write_record `skv_fence_release();` */
        write(OLD, OTHER, OTHER - 1);
    }

    /* One try of a get; false = retry. */
    bool get(unsigned &found)
    {
        unsigned before = seq.load(ACQUIRE);      /* read.h:skv_find `view->seq = skv_load_acquire(&bucket->seq);` */
        /* table.h:skv_probe_for `uint64_t a = skv_load_acquire(&slots[i].a);` */
        found = a.load(ACQUIRE_BUT("M_RELAXED_PROBE"));
        unsigned first = block[found][0].load(RELAXED);
        unsigned second = block[found][1].load(RELAXED);
        if (!is_mutant("M_NO_ACQUIRE_FENCE"))
            FENCE(acquire);    /* read.h:skv_validate `skv_fence_acquire();` */
        /* read.h:skv_validate `return skv_load_acquire(&view->bucket->seq) == view->seq` */
        if (seq.load(ACQUIRE) != before)
            return false;
        RL_ASSERT(first == found && second == found);
        return true;
    }

    void thread(unsigned number)
    {
        unsigned first, second;
        if (number == 0)
            writer();
        else if (number == 1)
            other();
        else if (get(first) && get(second))
            RL_ASSERT(second >= first);
    }
};

int main(int argc, char **argv) { return run_model<reader>(argc, argv); }
