/* room.h: what an allocation does when nothing is free. */
#ifndef SKV_ROOM_H
#define SKV_ROOM_H

#include "engine.h"

/* Bounded work that may free something: SKV_OK = try again; SKV_FULL = nothing left to try; others: what evicting
 * met at the log of a durable store.
 * `round` counts the caller's tries.  No lock is held. */
skv_status skv_make_room(skv *store, uint64_t size, uint32_t round, skv_wait *wait);

#endif
