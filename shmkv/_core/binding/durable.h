/* durable.h: the module's functions for durable stores (durable.c), which module.c lists. */
#ifndef SKV_BINDING_DURABLE_H
#define SKV_BINDING_DURABLE_H

#include "binding.h"

#include "../recover.h"

PyObject *module_restored_bytes(PyObject *module, PyObject *unused);
PyObject *module_durable_restore(PyObject *module, PyObject *args);
PyObject *module_durable_begin(PyObject *module, PyObject *args);
PyObject *module_durable_state(PyObject *module, PyObject *region);
PyObject *module_durable_data_bytes(PyObject *module, PyObject *region);
PyObject *module_durable_sync(PyObject *module, PyObject *args);
PyObject *module_durable_vouch(PyObject *module, PyObject *region);
PyObject *module_durable_checkpoint(PyObject *module, PyObject *args);
PyObject *module_durable_holders(PyObject *module, PyObject *region);
PyObject *module_durable_set_wall_clock(PyObject *module, PyObject *args);

/* What is wrong with a file, as the end of a sentence; NULL = nothing. */
const char *skv_damage_sentence(enum skv_damage_kind damage);

#endif
