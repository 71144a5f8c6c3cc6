/* handle.h: the methods of Handle, by the file that has them; handle.c lists them in one table. */
#ifndef SKV_HANDLE_H
#define SKV_HANDLE_H

#include "inflight.h"

#define SKV_HANDLE_METHOD(name) PyObject *name(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
#define SKV_HANDLE_METHOD_FAST(name) PyObject *name(Handle *self, PyObject *const *args, Py_ssize_t nargs)
#define SKV_HANDLE_METHOD_O(name) PyObject *name(Handle *self, PyObject *argument)
#define SKV_HANDLE_METHOD_0(name) PyObject *name(Handle *self, PyObject *unused)

/* reads.c */
SKV_HANDLE_METHOD(handle_get);
SKV_HANDLE_METHOD(handle_gets);
SKV_HANDLE_METHOD(handle_ttl);
SKV_HANDLE_METHOD(handle_content_type);
PyObject *handle_subscript(Handle *self, PyObject *key);
int handle_contains(Handle *self, PyObject *key);

/* writes.c */
SKV_HANDLE_METHOD(handle_put);
SKV_HANDLE_METHOD(handle_set);
SKV_HANDLE_METHOD(handle_add);
SKV_HANDLE_METHOD(handle_replace);
SKV_HANDLE_METHOD(handle_cas);
SKV_HANDLE_METHOD(handle_incr);
SKV_HANDLE_METHOD(handle_decr);
SKV_HANDLE_METHOD(handle_touch);
SKV_HANDLE_METHOD(handle_persist);
SKV_HANDLE_METHOD(handle_delete);
SKV_HANDLE_METHOD_FAST(handle_delete_version);
SKV_HANDLE_METHOD_FAST(handle_place);
int handle_ass_subscript(Handle *self, PyObject *key, PyObject *value);

/* taking.c */
SKV_HANDLE_METHOD(handle_pop);
SKV_HANDLE_METHOD(handle_setdefault);
SKV_HANDLE_METHOD(handle_change);

/* records.c */
SKV_HANDLE_METHOD_O(handle_fetch);

/* snapshot.c, batch.c */
SKV_HANDLE_METHOD(handle_get_many);
SKV_HANDLE_METHOD_O(handle_fetch_many);
SKV_HANDLE_METHOD(handle_put_many);
SKV_HANDLE_METHOD_O(handle_put_items);
SKV_HANDLE_METHOD_O(handle_put_batches);
SKV_HANDLE_METHOD(handle_delete_many);
SKV_HANDLE_METHOD_0(handle_clear);

/* walk.c */
SKV_HANDLE_METHOD_FAST(handle_walk_keys);
SKV_HANDLE_METHOD_FAST(handle_walk_items);
SKV_HANDLE_METHOD_FAST(handle_walk_facts);
SKV_HANDLE_METHOD_FAST(handle_walk_records);
Py_ssize_t handle_length(Handle *self);

/* upkeep.c */
SKV_HANDLE_METHOD_0(handle_stats);
SKV_HANDLE_METHOD_0(handle_processes);
SKV_HANDLE_METHOD_0(handle_check);
SKV_HANDLE_METHOD_0(handle_compact);
SKV_HANDLE_METHOD_O(handle_sweep);
SKV_HANDLE_METHOD_0(handle_reclaim);
SKV_HANDLE_METHOD_O(handle_set_clock);
SKV_HANDLE_METHOD_0(handle_now_ms);

/* load.c */
SKV_HANDLE_METHOD_FAST(handle_load_tsv);

#endif
