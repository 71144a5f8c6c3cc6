/* ghost.c: see ghost.h. */
#include "ghost.h"

#define GROUP       32u         /* slots that may remember a key                              */
#define PRINT_BITS  12u
#define PRINT_MASK  UINT64_C(0xfff)
#define PRINTS      5u          /* in a word                                                  */
#define WORD_MASK   ((UINT64_C(1) << PRINTS * PRINT_BITS) - 1)

/* Homes follow from a tag's high bits, so the low ones differ within a group; 0 is no fingerprint. */
static uint64_t print_of(uint32_t tag)
{
    uint64_t print = tag & PRINT_MASK;
    return print ? print : 1;
}

static uint64_t group_of(uint64_t slot)
{
    return slot - slot % GROUP;
}

static uint64_t group_end(uint64_t group, uint64_t capacity)
{
    return group + GROUP < capacity ? group + GROUP : capacity;
}

static bool word_has(uint64_t word, uint64_t print)
{
    for (word &= WORD_MASK; word; word >>= PRINT_BITS)
        if ((word & PRINT_MASK) == print)
            return true;
    return false;
}

/* The newest print is the lowest, so a word with room has none in its highest place. */
static bool word_has_room(uint64_t word)
{
    return word >> (PRINTS - 1) * PRINT_BITS == 0;
}

static bool is_free(const skv_slot *slot)
{
    return !skv_slot_is_live(skv_load(&slot->a));
}

/* A free slot of the group that has room, or, where none has, one of them in turn; `end` if all slots are live. */
static uint64_t place_for_print(const skv_slot *slots, uint64_t group, uint64_t end, bool *has_room)
{
    static _Thread_local uint64_t turn;
    uint64_t found = end, skip = turn++ % GROUP;
    *has_room = true;
    for (uint64_t n = 0; n < end - group; n++) {
        uint64_t i = group + (n + skip) % (end - group);
        if (!is_free(&slots[i]))
            continue;
        if (word_has_room(skv_load(&slots[i].b)))
            return i;
        found = found == end ? i : found;
    }
    *has_room = false;
    return found;
}

static void add_print(skv_slot *slots, uint64_t group, uint64_t capacity, uint64_t print, bool only_into_room)
{
    bool has_room;
    uint64_t end = group_end(group, capacity), at = place_for_print(slots, group, end, &has_room);
    if (at < end && (has_room || !only_into_room))
        skv_store(&slots[at].b, (skv_load(&slots[at].b) << PRINT_BITS & WORD_MASK) | print);
}

void skv_ghost_add_locked(skv_slot *slots, uint64_t capacity, uint32_t tag)
{
    add_print(slots, group_of(skv_home(tag, capacity)), capacity, print_of(tag), false);
}

static bool is_known(const skv_slot *slots, uint64_t capacity, uint32_t tag)
{
    uint64_t group = group_of(skv_home(tag, capacity)), print = print_of(tag);
    for (uint64_t i = group; i < group_end(group, capacity); i++)
        if (is_free(&slots[i]) && word_has(skv_load(&slots[i].b), print))
            return true;
    return false;
}

bool skv_ghost_recall_locked(skv_slot *slots, uint64_t capacity, uint32_t tag, uint64_t at)
{
    bool known = is_known(slots, capacity, tag);
    uint64_t word = skv_load(&slots[at].b) & WORD_MASK;
    skv_store(&slots[at].b, UINT64_MAX);        /* takes none of its own                      */
    for (; word; word >>= PRINT_BITS)
        if (word & PRINT_MASK)
            add_print(slots, group_of(at), capacity, word & PRINT_MASK, true);
    skv_store(&slots[at].b, 0);
    return known;
}

void skv_ghost_copy_locked(const skv_slot *from, uint64_t old_capacity, skv_slot *to, uint64_t capacity)
{
    for (uint64_t i = 0; i < old_capacity; i++) {
        uint64_t group = group_of(i * capacity / old_capacity);
        if (!is_free(&from[i]))
            continue;
        for (uint64_t word = skv_load(&from[i].b) & WORD_MASK; word; word >>= PRINT_BITS)
            if (word & PRINT_MASK)
                add_print(to, group, capacity, word & PRINT_MASK, true);
    }
}
