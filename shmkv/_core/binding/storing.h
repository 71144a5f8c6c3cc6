/* storing.h: one item written or removed, for the calls that do more than that. */
#ifndef SKV_STORING_H
#define SKV_STORING_H

#include "args.h"
#include "values.h"

typedef struct storing_job {
    skv_item item;
    enum skv_put_condition condition;
    uint64_t version;           /* with SKV_PUT_VERSION and SKV_PUT_SAME                       */
} storing_job;

/* Takes `job` with its condition, `item.tell` if the answer is wanted, and with `ttl_ms` 0 `item.expires_ms`.  A status: SKV_OK, SKV_MISSING or SKV_CONDITION, an error, or SKV_RAISED. */
int storing_run(Handle *handle, const key_text *key, const skv_encoded *value, uint64_t ttl_ms, storing_job *job);
/* With `version` 0 any version. */
int removing_run(Handle *handle, const key_text *key, uint64_t version);
/* As removing_run for any object, as Python gives it. */
int removing_run_object(Handle *handle, PyObject *object);

#endif
