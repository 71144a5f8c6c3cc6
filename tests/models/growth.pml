/* growth.pml: two writers who both find the table too small, beside one who overwrites and one who reads.
 *
 * What: a bucket whose table has one slot, with key 1.  Two writers insert keys 2 and 3: each finds no room, unlocks,
 *       prepares a table of the size that it needs then, locks and looks again.  A third overwrites key 1.  With
 * -DREADERS
 *       somebody gets key 1, beside one of those who insert.  One who inserts may be killed at any step; who finds its
 * lock
 *       takes it over.  A table that is free holds garbage or nothing.
 * Holds: key 1 is always found, and never older than before; what was inserted is there; no block is freed twice.
 * Models: store.c:skv_write_run store.c:run_step_locked store.c:install_table_locked store.c:prepare_spare
 *       store.c:skv_prepare_table rebuild.c:skv_replace_table_locked store.c:publish_new_locked
 * store.c:publish_over_locked
 *       store.c:skv_write_end store.c:skv_wanted_capacity table.h:skv_publish_table_locked table.h:skv_place_locked
 *       table.h:skv_probe_for read.h:skv_find repair.c:skv_recount_locked
 * Leaves out: records (reader.cpp, batch.pml), tombstones, weak memory (announce.cpp).
 *
 * Mutants: M_FREE_BEFORE_BUMP: the old table is freed before the bump; M_PUBLISH_BEFORE_FILL; M_FILL_UNLOCKED: the new
 * table is filled before the lock is taken again; M_MISS_UNCHECKED: a reader does not validate a miss; M_NO_RECOUNT: a
 * takeover does not count anew.
 */
#define TABLES   3
#define SLOTS    3              /* of the largest table */
#define WORD(t, capacity) ((t) * 4 + (capacity))        /* a table word: both change in one store */
#define TABLE(word)       ((word) / 4)
#define CAPACITY(word)    ((word) % 4)
#define ITEM(key, number) ((key) * 4 + (number))        /* a slot; 0 = empty */
#define KEY(item)         ((item) / 4)
#define NUMBER(item)      ((item) % 4)
#define OTHER    ITEM(1, 3)     /* what lies in a block of another life looks like key 1 with a number never written */

typedef slots { byte item[SLOTS] };
slots tables[TABLES];
bool used[TABLES] = { true, false, false };
byte current = WORD(0, 1);
byte seq, count = 1;            /* `count` is derived */
byte lock;
bool dead[4];
bool returned[4];
byte running = 3;

inline free(word) {
    atomic {
        assert(used[TABLE(word)] && TABLE(word) != TABLE(current));
        used[TABLE(word)] = false;
        if                      /* a record, or a table that is being prepared: both may come at once */
        :: tables[TABLE(word)].item[0] = OTHER
        :: tables[TABLE(word)].item[0] = 0
        fi;
        tables[TABLE(word)].item[1] = 0;
        tables[TABLE(word)].item[2] = 0
    }
}

/* repair.c:skv_recount_locked, within d_step */
inline recount() {
    at = 0;
    count = 0;
    do
    :: at < CAPACITY(current) -> count = count + (tables[TABLE(current)].item[at] > 0); at++
    :: else -> break
    od;
    at = 0
}

inline lock_bucket(me) {
    d_step {
        (lock == 0 || dead[lock]) ->
        if
        :: lock ->
#ifndef M_NO_RECOUNT
            recount();          /* repair.c:skv_repair_bucket `skv_recount_locked(store, bucket);` */
#endif
            seq++               /* `skv_bump_locked(bucket);` */
        :: else
        fi;
        lock = me
    }
}

/* rebuild.c:put_slot, for each slot of the smaller table: that is full, so none is skipped */
inline fill(to) {
    i = 0;
    do
    :: i < CAPACITY(current) ->
        assert(i < CAPACITY(to));               /* `if (at == f->capacity)` */
        tables[TABLE(to)].item[i] = tables[TABLE(current)].item[i];     /* `skv_store(&f->to[at].a, a);` */
        i++
    :: else -> break
    od;
    i = 0
}

/* store.c:skv_write_run; key 2 or 3 */
proctype Inserter(byte me) {
    byte mine, old, wanted, i, at;              /* mine: a spare table, 0 = none */
    {
        do
        :: lock_bucket(me);     /* `skv_status status = skv_lock_bucket(store, write->bucket, write->wait);` */
           wanted = count + 1;  /* store.c:skv_wanted_capacity `uint64_t live = skv_load(&bucket->count) + more;` */
           if
           /* store.c:install_table_locked `if (!write->table || write->capacity != capacity)` */
           :: wanted > CAPACITY(current) && CAPACITY(mine) == wanted ->
               old = current;
#ifdef M_PUBLISH_BEFORE_FILL
               current = mine;
               tables[TABLE(mine)].item[0] = tables[TABLE(old)].item[0];
               tables[TABLE(mine)].item[1] = (CAPACITY(old) > 1 -> tables[TABLE(old)].item[1] : 0);
#else
 #ifndef M_FILL_UNLOCKED
               fill(mine);
 #endif
               current = mine;  /* table.h:skv_publish_table_locked `skv_store_release(&bucket->table, word);` */
#endif
               mine = 0;        /* store.c:install_table_locked `write->table = 0;` */
#ifdef M_FREE_BEFORE_BUMP
               free(old);
               old = 0;
#endif
               seq++            /* rebuild.c:skv_replace_table_locked `skv_bump_locked(bucket);` */
           :: else
           fi;
           if
           /* store.c:publish_new_locked `skv_wanted_capacity(store, bucket, 1) != 0` */
           :: wanted <= CAPACITY(current) ->
               at = 0;
               do               /* table.h:skv_place_locked */
               :: at < CAPACITY(current) && tables[TABLE(current)].item[at] -> at++
               :: else -> break
               od;
               assert(at < CAPACITY(current));
               /* store.c:publish_new_locked `skv_store_release(&slots[at].a, a);` */
               tables[TABLE(current)].item[at] = ITEM(me, 1);
               at = 0;
               count++;         /* `skv_store(&bucket->count, skv_load(&bucket->count) + 1);` */
               seq++;           /* store.c:finish_locked `skv_bump_locked(write->bucket);` */
               lock = 0;
               break
           :: else -> lock = 0  /* store.c:skv_write_run `if (status != SKV_NEEDS_TABLE)` */
           fi;
#ifndef READERS                 /* with one who inserts it is always the right size */
           if                   /* store.c:prepare_spare */
           :: mine -> free(mine)                /* `skv_free(store, write->table);` */
           :: else
           fi;
           mine = 0;
#endif
           d_step {             /* store.c:skv_prepare_table: nobody sees these steps */
               !(used[0] && used[1] && used[2]) ->
               do
               :: used[TABLE(mine)] -> mine = mine + 4
               :: else -> break
               od;
               used[TABLE(mine)] = true;
               tables[TABLE(mine)].item[0] = 0;
               tables[TABLE(mine)].item[1] = 0; /* `skv_clear_racy(` */
               mine = mine + wanted
           };
#ifdef M_FILL_UNLOCKED
           fill(mine)
#endif
        od;
        if                      /* store.c:skv_write_end */
        :: old -> free(old)     /* `skv_free(store, write->freed[i]);` */
        :: else
        fi;
#ifndef READERS
        if
        :: mine -> free(mine)   /* `skv_free(store, write->table);` */
        :: else
        fi;
#endif
        returned[me] = true
    } unless { dead[me] };
    running--
}

/* store.c:publish_over_locked */
proctype Overwriter() {
    byte at;
    lock_bucket(1);
    tables[TABLE(current)].item[0] = ITEM(1, 1);        /* `skv_store_release(&hit->slot->a, a);` */
    seq++;                      /* store.c:finish_locked `skv_bump_locked(write->bucket);` */
    lock = 0;
    returned[1] = true;
    running--
}

#ifdef READERS
/* read.h:skv_find and table.h:skv_probe_for; a retry is a reader that begins later */
proctype Reader() {
    byte s, word, item; bool after;
    after = returned[1];
    s = seq;                    /* read.h:skv_find `view->seq = skv_load_acquire(&bucket->seq);` */
    word = current;             /* `uint64_t table = skv_load_acquire(&bucket->table);` */
    /* table.h:skv_probe_for `uint64_t a = skv_load_acquire(&slots[i].a);`: its home */
    item = tables[TABLE(word)].item[0];
    if
#ifdef M_MISS_UNCHECKED
    :: item == 0 || seq == s -> assert(item && NUMBER(item) <= 1 && (!after || NUMBER(item) == 1))
#else
    :: seq == s -> assert(item && NUMBER(item) <= 1 && (!after || NUMBER(item) == 1))   /* read.h:skv_validate */
#endif
    :: else
    fi;
    running--
}
#endif

init {
    byte at, found;
    tables[0].item[0] = ITEM(1, 0);
    atomic {
        run Inserter(2);
        run Overwriter();
#ifdef READERS
        run Reader()
#else
        run Inserter(3)
#endif
    };
    if
    :: dead[2] = true
    :: skip
    fi;
    running == 0;
    lock_bucket(1);
    for (at : 0 .. CAPACITY(current) - 1) {
        found = found | 1 << KEY(tables[TABLE(current)].item[at])
    }
    assert(KEY(tables[TABLE(current)].item[0]) == 1 && NUMBER(tables[TABLE(current)].item[0]) == 1);
    assert((!returned[2] || found & 4) && (!returned[3] || found & 8));
    assert(count == (found >> 1 & 1) + (found >> 2 & 1) + (found >> 3 & 1))
}
