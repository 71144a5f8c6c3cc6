/* zones.c: the class of time zones that are known by their key.
 *
 * What: zoneinfo.ZoneInfo, and whether an exception of it only says that there is no such zone.
 * How:  imported by the first who meets a zone, because most values hold none and the import takes milliseconds.
 *
 *       Each interpreter of the process has a class of its own, and a dict of its own to keep it in.
 *
 * Concurrency: needs the GIL, or an attached thread state where there is none.
 */
#include "zones.h"

#define KEPT_AS "shmkv.ZoneInfo"

static PyObject *import_class(void)
{
    PyObject *module = PyImport_ImportModule("zoneinfo");
    PyObject *found = module == NULL ? NULL : PyObject_GetAttrString(module, "ZoneInfo");
    Py_XDECREF(module);
    return found;
}

/* Borrowed from the interpreter's dict, where the first one that a thread put there stays. */
PyObject *skv_zoneinfo_class(void)
{
    PyObject *kept = PyInterpreterState_GetDict(PyInterpreterState_Get());
    PyObject *found = kept == NULL ? NULL : PyDict_GetItemString(kept, KEPT_AS);
    if (found != NULL) {
        return found;
    }
    PyObject *imported = import_class(), *name = imported == NULL ? NULL : PyUnicode_FromString(KEPT_AS);
    if (name != NULL && kept != NULL) {
        found = PyDict_SetDefault(kept, name, imported);
    }
    Py_XDECREF(name);
    Py_XDECREF(imported);
    return found != NULL || PyErr_Occurred() ? found : PyErr_NoMemory();
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
