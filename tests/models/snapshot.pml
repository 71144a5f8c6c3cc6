/* snapshot.pml: get_many against single writes, each of which bumps after its commit.
 *
 * What: one process changes key 0 again and again: by puts, or with -DTOUCH by changing the expiry word of its record
 * in
 *       place.  Another sees key 0 and then gives key 1 the same number, so key 1 is never ahead of key 0.  A third
 * gets
 *       both at once.  A writer that is stopped or killed between commit and bump is one that is not scheduled any
 * more.
 * Holds: what get_many accepts was so at one instant: key 1 is not ahead.
 * Models: store.c:publish_over_locked store.c:publish store.c:touch_in_place write.h:skv_bump_locked read.h:skv_find
 *       read.h:skv_validate read.c:skv_validate_many read.c:is_same
 * Leaves out: batches (batch.pml), the reuse of blocks (reader.cpp).
 *
 * Both traces were found by models that the first design came with.
 *
 * Mutants: M_SEQ_ONLY: the second pass compares counters only; M_NO_EXPIRY_CHECK: it does not compare the expiry word.
 */
#ifndef CHANGES
#define CHANGES 2
#endif

byte seq[2], lock[2];
byte slot[2];                   /* word A: each record is a number */
byte expiry;                    /* of the record of key 0 */

#ifdef TOUCH
#define NUMBER expiry
#else
#define NUMBER slot[0]
#endif

active proctype Changer() {
    byte n;
    do
    :: n < CHANGES ->
        n++;
        d_step { lock[0] == 0 -> lock[0] = 1 };
#ifdef TOUCH
        /* store.c:touch_in_place `skv_store_release(skv_expiry_word(write->store, skv_slot_offset(hit->a)),
           expires_ms);` */
        expiry = n;
#else
        slot[0] = n;            /* store.c:publish_over_locked `skv_store_release(&hit->slot->a, a);` */
#endif
        seq[0]++;               /* store.c:finish_locked `skv_bump_locked(write->bucket);` */
        lock[0] = 0
    :: else -> break
    od
}

active proctype Follower() {
    byte s, seen, n;
    do
    :: n < CHANGES ->
        n++;
        s = seq[0];
        seen = NUMBER;
        if
        :: seq[0] == s && seen > slot[1] ->     /* read.h:skv_validate */
            d_step { lock[1] == 0 -> lock[1] = 2 };
            slot[1] = seen;
            seq[1]++;
            lock[1] = 0
        :: else
        fi
    :: else -> break
    od
}

inline require(condition) {
    if
    :: condition
    :: else -> goto end
    fi
}

active proctype Reader() {
    byte s[2], a[2], first, second;
    s[0] = seq[0];              /* read.h:skv_find `view->seq = skv_load_acquire(&bucket->seq);` */
    a[0] = slot[0];
    first = NUMBER;             /* read.h:skv_view_hit `view->expires_ms = head->expires_ms;` */
    s[1] = seq[1];
    a[1] = slot[1];
    second = a[1];
#ifndef M_SEQ_ONLY
    require(slot[0] == a[0]);   /* read.c:is_same `if (skv_load_acquire(&view->slot->a) != view->a)` */
 #if defined(TOUCH) && !defined(M_NO_EXPIRY_CHECK)
    require(expiry == first);   /* `skv_load(skv_expiry_word(store, skv_slot_offset(view->a))) != view->expires_ms)` */
 #endif
#endif
    require(seq[0] == s[0]);    /* read.h:skv_validate `return skv_load_acquire(&view->bucket->seq) == view->seq` */
#ifndef M_SEQ_ONLY
    require(slot[1] == a[1]);
#endif
    require(seq[1] == s[1]);
    assert(second <= first);
end: skip
}
