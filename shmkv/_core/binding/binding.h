/* binding.h: what every file of the binding needs: Python, the module's state, raising.
 *
 * What: the only folder that includes Python.h.  Each method parses (args.h), enters its handle
 *       (inflight.h), calls the engine, leaves, and builds the answer or raises.
 * How:  between handle_enter and handle_leave no Python code can run: objects are made there only
 *       of types that the garbage collector does not track (bytes), and nothing is decoded.  So no
 *       finalizer and no user's codec can close the store under an operation.
 *
 * Concurrency: with the GIL a method is alone in its interpreter until it releases it; on a
 *       free-threaded build every handle is used by any number of threads at once, and nothing in
 *       it changes after __init__ but what inflight.h guards.
 */
#ifndef SKV_BINDING_H
#define SKV_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../atomics.h"
#include "../os.h"
#include "../store.h"

/* Do threads run without the GIL?  Then counting is always atomic (see skv_count).  A test sets it to 1 on a
 * build with the GIL, so that those ways are run on every Python. */
#ifndef SKV_FREE_THREADED
#ifdef Py_GIL_DISABLED
#define SKV_FREE_THREADED 1
#else
#define SKV_FREE_THREADED 0
#endif
#endif

#ifndef Py_BEGIN_CRITICAL_SECTION           /* before 3.13 the GIL is that                       */
#define Py_BEGIN_CRITICAL_SECTION(op) {
#define Py_END_CRITICAL_SECTION() }
#endif

/* From here on a thread that waits for the GIL never gets it: what it is in, it never leaves. */
static inline bool skv_is_ending(void)
{
#if PY_VERSION_HEX >= 0x030d0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

#define SKV_METHOD(name, function, flags, doc) {name, (PyCFunction)(void (*)(void))(function), flags, doc}
#define SKV_KEYWORDS (METH_FASTCALL | METH_KEYWORDS)

/* ---- The module's state ---------------------------------------------------------------- */

/* Classes of shmkv.errors, in the order of the names in module.c. */
enum skv_error {
    SKV_E_STORE_FULL, SKV_E_CORRUPT, SKV_E_LAYOUT_VERSION, SKV_E_CLOSED, SKV_E_KEY_TOO_LARGE, SKV_E_CODEC,
    SKV_E_LOCK_TIMEOUT, SKV_E_READ_ONLY, SKV_E_VALUE_TOO_LARGE, SKV_E_BATCH_TOO_LARGE, SKV_E_STALE,
    SKV_E_TOO_MANY_PROCESSES, SKV_E_FORKED, SKV_E_LOG_FAILED, SKV_E_LIMIT, SKV_E_CLOCK,
    SKV_ERRORS
};

typedef struct module_state {
    PyObject *errors[SKV_ERRORS];
    PyTypeObject *region_type, *handle_type, *versioned_type;
} module_state;

extern struct PyModuleDef skv_module_def;

/* The state of the module that `type`, or a base of it, was made by. */
module_state *skv_state_of_type(PyTypeObject *type);

/* ---- Raising --------------------------------------------------------------------------- */

/* What the functions that wait return besides a skv_status: an exception is set. */
#define SKV_RAISED (-1)

/* Sets the exception of `status` (nothing for SKV_RAISED) and returns NULL.  Call it before anything
 * that may change errno. */
PyObject *skv_raise_status(module_state *state, int status);
PyObject *skv_raise(module_state *state, enum skv_error error, const char *format, ...);
/* Replaces the exception that is set by `error`, which names it as its cause. */
PyObject *skv_raise_from(module_state *state, enum skv_error error, const char *sentence);
PyObject *skv_raise_missing(PyObject *key);     /* KeyError(key), also for a tuple            */

/* Types, made once per module. */
extern PyType_Spec skv_region_spec, skv_handle_spec, skv_log_spec, skv_descriptor_spec;
PyObject *skv_unlink_shared(PyObject *module, PyObject *name);
extern PyStructSequence_Desc skv_versioned_desc;

#endif
