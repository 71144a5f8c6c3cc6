/* zones.h: the class of time zones that are known by their key; see zones.c. */
#ifndef SKV_ZONES_H
#define SKV_ZONES_H

#include <Python.h>

/* Borrowed; NULL with an exception set. */
PyObject *skv_zoneinfo_class(void);
/* True, and the exception cleared, if it only says that there is no such zone. */
int skv_zone_is_unknown(void);

#endif
