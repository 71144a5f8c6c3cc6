/* restore.h: filling a store in memory from its log.
 *
 * What: every frame of the newest snapshot and of the segments after it, in order (recover.h).
 * How:  puts are gathered and made in groups, whose cache misses overlap.  What a snapshot holds may be newer than
 *       its place in the log: operations are absolute, so the frames after it lead to the same end.  Times are
 *       converted to the store's clock; what has expired meanwhile is left out.
 *
 * Concurrency: nobody else has the store yet; `progress` may be read by anybody.
 */
#ifndef SKV_RESTORE_H
#define SKV_RESTORE_H

#include "journal.h"

typedef struct skv_restored {
    skv_recovered found;
    _Atomic uint64_t *bytes;    /* of frames that were applied so far are added to it         */
    uint64_t frames, operations;
    uint64_t evicted;           /* items, of a store that evicts: in the log they are still       */
    skv_status status;          /* of the store, where it is what ended the recovery          */
} skv_restored;

/* 0: see out->found.damage; or minus an errno; or 1, and out->status tells. */
int skv_restore(skv *store, skv_files files, skv_restored *out);

#endif
