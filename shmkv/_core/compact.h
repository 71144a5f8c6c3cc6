/* compact.h: the audit that finds leaked blocks. */
#ifndef SKV_COMPACT_H
#define SKV_COMPACT_H

#include "engine.h"

/* Frees blocks that no slot, table word or intent names; the caller is in no operation and holds
 * no lock.  `*freed` counts them. */
skv_status skv_audit(skv *store, uint64_t *freed, skv_wait *wait);

/* A bit for each 16 bytes of the pages: set where a slot, a table word or an intent names a block. */
typedef struct skv_names {
    uint64_t *bits;
    uint64_t units;             /* bits in use                                                */
} skv_names;
bool skv_names_collect(skv *store, skv_names *names);
bool skv_is_named(const skv *store, const skv_names *names, uint64_t offset);

#endif
