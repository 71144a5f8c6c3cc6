/* age.h: how long ago an item of an evicting store was written, in bytes that were written since.
 *
 * Why:  slots lie in the order of hashes, and a clock hand that knows nothing else takes new items as readily as old ones.
 * How:  the header counts the bytes of all records that are written; an item's word B keeps what the count was when it was
 *       written, in ticks of a 16,384th to an 8,192nd of the store (in other stores hash bits lie there, which nobody needs
 *       to find an item).  After 64 to 128 times the store's size the stamp begins again: an item that is still there counts
 *       as young once more for a six-hundredth of the time, or less.  Each process adds to the header's count in portions, so that puts share no line.
 *
 *       All of it is hints: a process that is killed loses its portion of the count.
 *
 * Concurrency: any thread; a count that two threads add to at once may lose one of the two.
 */
#ifndef SKV_AGE_H
#define SKV_AGE_H

#include "table.h"

#define SKV_AGE_TICKS_SHIFT 13u /* in a store whose size is a power of two: 2^13 ticks        */

static inline uint32_t skv_age_shift_of(uint64_t size)
{
    return 63u - (uint32_t)__builtin_clzll(size) - SKV_AGE_TICKS_SHIFT;
}

static inline uint32_t skv_age_ticks(const skv *store, uint64_t bytes)
{
    return (uint32_t)(bytes >> store->age_shift) & SKV_B_STAMP_MASK;
}

/* Never 0: a word B of zero would be one that readers do not warm. */
static inline uint32_t skv_age_now(const skv *store)
{
    uint32_t now = skv_age_ticks(store, skv_load(&store->header->written));
    return now ? now : 1;
}

static inline uint32_t skv_b_age(uint64_t b, uint32_t now)
{
    return (now - (uint32_t)(b >> SKV_B_HASH_SHIFT)) & SKV_B_STAMP_MASK;
}

static inline void skv_age_count(skv *store, uint64_t bytes)
{
    uint64_t sum = skv_load(&store->written) + bytes;
    if (sum * 2 >> store->age_shift) {          /* half a tick                                */
        atomic_fetch_add_explicit(&store->header->written, sum, memory_order_relaxed);
        sum = 0;
    }
    skv_store(&store->written, sum);
}

/* Word B of an item that is written now. */
static inline uint64_t skv_b_written(const skv *store, uint64_t hash, uint64_t expires_ms)
{
    if (skv_unlikely(store->evict))
        return (uint64_t)skv_age_now(store) << SKV_B_HASH_SHIFT | skv_b_clipped(expires_ms);
    return skv_b_word(hash, expires_ms);
}

#endif
