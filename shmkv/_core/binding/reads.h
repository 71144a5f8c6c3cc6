/* reads.h: one item copied out of the region; for all that reads single keys.
 *
 * How:  find, copy, validate, and once more if a writer was faster.  A bytes value is copied straight
 *       into its new object, which nobody sees before it is valid; anything else into private memory,
 *       because decoding what another process may be changing is not safe.
 *
 *       A reader that was overtaken SKV_READ_TRIES times freezes the bucket for the next try (see
 *       skv_freeze).  It holds a lock then: no Python memory, no change of the GIL.
 */
#ifndef SKV_READS_H
#define SKV_READS_H

#include "args.h"
#include "inflight.h"

/* Above it the counter is looked at before memory is taken: a torn length may be anything. */
#define SKV_TRUSTED_LENGTH 4096u

typedef struct fetched {
    PyObject *bytes;            /* a bytes value as it is, or NULL:                             */
    uint8_t *data;              /* `small` or malloc'd                                         */
    size_t len;
    uint64_t version, expires_ms;
    uint8_t type;
    uint8_t small[512];
} fetched;

/* 1 found (then fetched_value or fetched_drop), 0 not there, -1 raised.  `counted`: a hit or a miss. */
int item_fetch(Handle *handle, const key_text *key, fetched *out, bool counted);
/* Decodes, and drops in every case. */
PyObject *fetched_value(Handle *handle, fetched *item);
void fetched_drop(fetched *item);

enum copy_result { COPY_NO_MEMORY = -1, COPY_TORN = 0, COPY_DONE = 1 };

/* Copies a value's bytes out of the region, long ones without the GIL (the caller is inside). */
void copy_from_region(void *to, const uint8_t *from, size_t len);

#endif
