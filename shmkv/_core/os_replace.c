/* os_replace.c: a store gives its name to another region, which has all its items.
 *
 * How:  the new region was made under a name of its own, which tells that its maker lives (a private store's).  While
 *       nobody else is attached to the old one, and nobody can attach, its items are moved, and rename(2) puts the new
 *       region in its place: at every instant the name means one whole store.  A kill before that leaves the old
 *       store as it was, and a private store of a dead process, which the next one collects.
 *       All in one call, because a fork waits until the old region may be attached to again, and holds the GIL.
 *
 * Concurrency: any thread.
 */
#include <errno.h>
#include <stdio.h>

#include "move.h"
#include "os_region.h"

static skv_status move_and_rename(skv_region *from, skv_region *to, const skv_paths *names)
{
    if (skv_region_at(from, names->of_store) != SKV_PLACE_SAME)
        return SKV_MISSING;
    skv_status status = skv_move_items(from->store, to->store);
    if (status == SKV_OK && rename(names->of_new, names->of_store) < 0)
        status = SKV_OS_ERROR;
    return status;
}

skv_status skv_region_replace(skv_region *from, skv_region *to, const skv_paths *names)
{
    if (!skv_region_reserve(from))
        return SKV_BUSY;
    skv_status status = move_and_rename(from, to, names);
    int saved = errno;
    skv_region_unreserve(from);
    errno = saved;
    return status;
}
