/* rebuild.c: the slots of a bucket's table into a new one (skv_replace_table_locked of write.h).
 *
 * How:  homes rise with tags, so that one run through the old table fills the new one about in its order, with some
 *       three steps a slot.  Keys that were chosen so that their hashes meet take steps that grow with the square of
 *       their number, and the bucket is locked meanwhile.  So past a number of steps each filled slot gets a note of
 *       where to look for the next free one, which is shortened on each way (disjoint sets with path halving, Tarjan
 *       and van Leeuwen 1984): from there on every key takes a few steps, whatever its hash.
 *
 * Concurrency: with the bucket's lock; nobody knows the new table yet.
 */
#include <assert.h>
#include <stdlib.h>

#include "ghost.h"
#include "write.h"

#define NOTES_AFTER 16u         /* steps of all insertions, per slot                          */

typedef struct filling {
    skv_slot *to;
    uint64_t  capacity, filled;
    uint64_t  steps;            /* so far, of all                                             */
    uint32_t *next;             /* of a filled slot: where to look, + 1; 0 = behind it; NULL = no notes, or no memory for them */
} filling;

static uint64_t behind(const filling *f, uint64_t at)
{
    if (f->next && f->next[at])
        return f->next[at] - 1;
    return at + 1 == f->capacity ? 0 : at + 1;
}

static bool is_filled(const filling *f, uint64_t at)
{
    return skv_load(&f->to[at].a) != SKV_EMPTY;
}

/* The first free slot from `home` on; capacity if there is none. */
static uint64_t free_slot(filling *f, uint64_t home)
{
    uint64_t at = home;
    for (uint64_t steps = 0; f->filled < f->capacity && steps <= f->capacity; steps++) {
        if (!is_filled(f, at))
            return at;
        uint64_t further = behind(f, at);
        if (f->next && is_filled(f, further))
            f->next[at] = (uint32_t)behind(f, further) + 1;
        at = further;
        f->steps++;
    }
    return f->capacity;
}

static bool put_slot(filling *f, uint64_t a, uint64_t b)
{
    uint64_t at = free_slot(f, skv_home(skv_slot_tag(a), f->capacity));
    if (at == f->capacity)
        return false;
    skv_store(&f->to[at].b, b);
    skv_store(&f->to[at].a, a);
    f->filled++;
    if (!f->next && f->steps > f->capacity * NOTES_AFTER)
        f->next = calloc(f->capacity, sizeof *f->next);
    return true;
}

static bool fill(filling *f, const skv_slot *from, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t a = skv_load(&from[i].a);
        if (skv_slot_is_live(a) && !put_slot(f, a, skv_load(&from[i].b)))
            return false;       /* a damaged count: capacity was chosen for all of them       */
    }
    return true;
}

/* Homes rise with tags in both tables, so the hand goes on among the same items. */
static uint32_t hand_after(const skv_bucket *bucket, uint64_t old_capacity, uint64_t capacity)
{
    return old_capacity ? (uint32_t)(skv_load(&bucket->hand) % old_capacity * capacity / old_capacity) : 0;
}

bool skv_replace_table_locked(skv *store, skv_bucket *bucket, uint64_t new_table, uint64_t capacity)
{
    assert(skv_lock_held(&bucket->lock));
    uint64_t old = skv_load(&bucket->table), word = skv_table_word(capacity, new_table);
    const skv_slot *from = skv_slots(store, old);
    filling f = {.to = skv_slots(store, word), .capacity = capacity};
    bool fits = !from || fill(&f, from, skv_table_capacity(old));
    free(f.next);
    if (!fits)
        return false;
    if (skv_unlikely(store->evict) && from)
        skv_ghost_copy_locked(from, skv_table_capacity(old), f.to, capacity);
    SKV_CRASH("growth.filled");
    skv_publish_table_locked(bucket, word);    /* the commit; pairs with skv_find            */
    SKV_CRASH("growth.published");
    skv_store(&bucket->tombstones, 0);
    skv_store(&bucket->hand, hand_after(bucket, skv_table_capacity(old), capacity));
    skv_bump_locked(bucket);
    return true;
}
