/* collect.h: what Python hands to a batch, as arrays with references of their own.
 *
 * Iterating and hashing run Python code, which may change what is iterated: so everything is taken
 * first, and nothing of the caller's is looked at again.
 */
#ifndef SKV_COLLECT_H
#define SKV_COLLECT_H

#include "binding.h"

/* A tuple or a list that nobody else has, of at most SKV_MAX_BATCH objects. */
PyObject *collect_keys(module_state *state, PyObject *keys, const char *function);

typedef struct item_pairs {
    PyObject **objects;         /* key, value, key, value, ...: references of its own          */
    size_t count, room;         /* pairs                                                       */
} item_pairs;

/* From a mapping or an iterable of pairs; at most SKV_MAX_BATCH.  False: nothing to free. */
bool collect_pairs(module_state *state, PyObject *items, item_pairs *out);
void free_pairs(item_pairs *pairs);

#endif
