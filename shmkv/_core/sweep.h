/* sweep.h: taking out what has expired. */
#ifndef SKV_SWEEP_H
#define SKV_SWEEP_H

#include "write.h"

/* A few slots of the bucket that a writer has locked anyway; freed with the write. */
void skv_sweep_few_slow_locked(skv_write *write);

static inline void skv_sweep_few_locked(skv_write *write)
{
    uint64_t earliest = skv_load(&write->bucket->earliest_expiry);
    if (skv_unlikely(earliest != 0) && skv_now_ms(write->store) >= earliest)
        skv_sweep_few_slow_locked(write);
}

/* When a live slot's item expires, from its words; 0 = never. */
static inline uint64_t skv_slot_expiry(const skv *store, uint64_t a, uint64_t b)
{
    skv_head head;
    if (skv_unlikely(skv_b_expiry(b) == SKV_MAX_EXPIRY) && skv_read_head(store, skv_slot_offset(a), &head))
        return head.expires_ms;
    return skv_b_expiry(b);
}

#endif
