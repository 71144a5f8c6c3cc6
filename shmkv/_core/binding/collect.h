/* collect.h: what Python hands to a batch, as objects with references of their own.
 *
 * Iterating and hashing run Python code, which may change what is iterated: so keys, and the items of a dict, are
 * taken first, and nothing of the caller's is looked at again.  Pairs are taken one at a time, because a generator
 * may have more of them than fit into memory.
 */
#ifndef SKV_COLLECT_H
#define SKV_COLLECT_H

#include "binding.h"

/* A batch has more keys than any batch may have; always NULL. */
void *collect_raise_too_many(module_state *state);

/* A tuple or a list that nobody else has, of at most SKV_MAX_BATCH objects. */
PyObject *collect_keys(module_state *state, PyObject *keys, const char *function);

typedef struct item_pairs {
    PyObject **objects;         /* key, value, key, value, ...: references of its own          */
    size_t count, room;         /* pairs                                                       */
} item_pairs;

/* From an exact dict, at one instant; at most SKV_MAX_BATCH.  False: nothing to free. */
bool collect_dict(module_state *state, PyObject *dict, item_pairs *out);
void free_pairs(item_pairs *pairs);

/* An iterator over the pairs of a mapping, of what has keys() as dict.update() takes it, or of an iterable of pairs.
 * `*known`: how many there are, where they are in memory already; else -1.  NULL: raised. */
PyObject *collect_iterator(module_state *state, PyObject *items, Py_ssize_t *known);
/* A tuple of key and value; `nth` element of what `function` was given. */
PyObject *collect_pair(PyObject *object, const char *function, size_t nth);

#endif
