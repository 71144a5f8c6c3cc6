/* writing.h: one step of the engine, tried with the GIL and, where it would wait, repeated without.
 *
 * The first try holds the GIL and never blocks: the usual write costs no release.  A step that has to
 * wait, or has much to do (`is_long`), runs without the GIL in slices; between them this thread holds
 * nothing and lets signal handlers run.  lock_timeout is for the whole call.
 */
#ifndef SKV_WRITING_H
#define SKV_WRITING_H

#include "inflight.h"

/* Calls the engine once.  `job` and all it points to stay as they are until the last call returned. */
typedef skv_status (*writing_step)(skv *store, void *job, skv_wait *wait);

/* A skv_status other than SKV_BUSY and SKV_TIMEOUT, or SKV_RAISED. */
int writing_wait(Handle *handle, skv *store, writing_step step, void *job);

/* For callers that repeat by themselves: lock_timeout as a skv_wait wants it, and LockTimeoutError about the
 * process of `slot`.  The latter runs Python code, inside the operation. */
uint64_t writing_timeout_ns(const Handle *handle);
void writing_raise_timeout(Handle *handle, skv *store, uint32_t slot);

static inline int writing_run(Handle *handle, skv *store, writing_step step, void *job, bool is_long)
{
    if (skv_likely(!is_long && !handle->durable)) {
        skv_wait wait = {.block = false, .shared = SKV_FREE_THREADED, .blamed_slot = SKV_NO_PROC};
        skv_status status = step(store, job, &wait);
        if (skv_likely(status != SKV_BUSY))
            return (int)status;
    }
    return writing_wait(handle, store, step, job);
}

#endif
