/* sweep.h: taking out what has expired, and, in evicting stores, what is cold. */
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

/* Evicts cold items from buckets at the clock hand until about `bytes` are free or each bucket was visited; how many items. */
uint64_t skv_evict_some(skv *store, uint64_t bytes);

#endif
