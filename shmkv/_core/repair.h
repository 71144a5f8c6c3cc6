/* repair.h: putting right what a process left that died while it held a lock. */
#ifndef SKV_REPAIR_H
#define SKV_REPAIR_H

#include "engine.h"

/* A skv_repair for bucket locks; `guarded` is the skv_bucket. */
void skv_repair_bucket(skv *store, void *guarded);
/* For compact_lock. */
void skv_repair_compaction(skv *store, void *unused);
/* Repairs and unlocks the bucket if the dead `slot` (whose liveness byte the caller holds) has it.
 * False if the bucket still refers to an intent of that slot. */
bool skv_sweep_bucket_of_dead(skv *store, skv_bucket *bucket, uint32_t slot);
/* Counts live slots, tombstones, bytes and the earliest expiry of a bucket anew, and mends each
 * word B from its record.  The bucket's lock is held. */
void skv_recount_locked(skv *store, skv_bucket *bucket);

#endif
