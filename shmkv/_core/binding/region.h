/* region.h: the Python object that keeps a region mapped. */
#ifndef SKV_BINDING_REGION_H
#define SKV_BINDING_REGION_H

#include "binding.h"

/* The store of a Region; NULL with TypeError if `object` is none. */
skv *region_store(module_state *state, PyObject *object);

/* Where a path leads, asked of the system (1.3 us). */
skv_place region_at(PyObject *region, const char *path);

#endif
