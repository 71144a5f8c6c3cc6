/* zones.c: the class of time zones that are known by their key.
 *
 * What: zoneinfo.ZoneInfo, and whether an exception of it only says that there is no such zone.
 * How:  imported by the first who meets a zone, because most values hold none and the import takes milliseconds.
 *
 * Concurrency: needs the GIL, or an attached thread state where there is none.  The class belongs to the main
 * interpreter; subinterpreters are not served.
 */
#include "zones.h"

#include <stdatomic.h>

static _Atomic(PyObject *) zoneinfo_class;  /* set once, by the first who meets a zone         */

PyObject *skv_zoneinfo_class(void)
{
    PyObject *cached = atomic_load_explicit(&zoneinfo_class, memory_order_acquire);
    if (cached != NULL) {
        return cached;
    }
    PyObject *module = PyImport_ImportModule("zoneinfo");
    if (module == NULL) {
        return NULL;
    }
    PyObject *found = PyObject_GetAttrString(module, "ZoneInfo");
    Py_DECREF(module);
    if (found != NULL && !atomic_compare_exchange_strong(&zoneinfo_class, &cached, found)) {
        Py_DECREF(found);
        found = cached;
    }
    return found;
}

int skv_zone_is_unknown(void)
{
    int unknown = PyErr_ExceptionMatches(PyExc_KeyError) || PyErr_ExceptionMatches(PyExc_ValueError)
        || PyErr_ExceptionMatches(PyExc_OSError) || PyErr_ExceptionMatches(PyExc_ImportError)
        || PyErr_ExceptionMatches(PyExc_TypeError);
    if (unknown) {
        PyErr_Clear();
    }
    return unknown;
}
