/* move.h: all items of one store into another one, which then goes on as that store.
 *
 * What: keys, values, types, expiries, versions, and what has been counted.
 * How:  bucket by bucket, as scans copy them.  A record is put as any other, and then gets the version that it had:
 *       each bucket's counter is set to the highest one of either store in the end, so that no version is ever given
 *       twice.
 *
 * Concurrency: nobody else has either store.  Killed anywhere, the old one is as it was; the new one is nothing yet.
 */
#ifndef SKV_MOVE_H
#define SKV_MOVE_H

#include "store.h"

/* `to` is new and empty.  SKV_FULL, SKV_TOO_LARGE: they do not fit. */
skv_status skv_move_items(skv *from, skv *to);

#endif
