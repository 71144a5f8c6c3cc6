/* module.c: the module, the table from status to exception, and the functions that need no store. */
#include "binding.h"

#include <errno.h>
#include <stdarg.h>

#include "../hash.h"
#include "args.h"
#include "codec.h"
#include "durable.h"
#include "inflight.h"

/* ---- Statuses and exceptions ----------------------------------------------------------- */

/* In the order of enum skv_error. */
static const char *const error_names[SKV_ERRORS] = {
    "StoreFullError", "CorruptStoreError", "LayoutVersionError", "ClosedStoreError", "KeyTooLargeError", "CodecError",
    "LockTimeoutError", "ReadOnlyStoreError", "ValueTooLargeError", "BatchTooLargeError", "StaleStoreError",
    "TooManyProcessesError", "ForkedError", "LogFailedError", "LimitError", "ClockError",
};

/* The one table from status to exception.  Statuses that are an answer of some call (missing,
 * condition, not an int) are handled by that call and stand here as a safety net. */
static const struct {
    PyObject **builtin;         /* NULL: `error` of shmkv.errors                               */
    enum skv_error error;
    const char *sentence;
} of_status[] = {
    [SKV_MISSING] = {&PyExc_KeyError, 0, "no such item"},
    [SKV_CONDITION] = {&PyExc_RuntimeError, 0, "the condition did not hold, nothing was changed"},
    [SKV_BUSY] = {NULL, SKV_E_LOCK_TIMEOUT, "another process is still at work on the store, try again later"},
    [SKV_TIMEOUT] = {NULL, SKV_E_LOCK_TIMEOUT, "a lock was held for longer than lock_timeout, nothing was changed"},
    [SKV_FULL] = {NULL, SKV_E_STORE_FULL,
                  "the store is full, nothing was changed: delete items, or give it a larger size= or on_full=\"evict\" "
                  "(Store.resize, where it exists already)"},
    [SKV_NO_SPACE] = {NULL, SKV_E_STORE_FULL,
                      "the file system of shared memory (/dev/shm) is full, nothing was changed: remove what is not needed "
                      "there, or enlarge it (docker run --shm-size=2g, or mount -o remount,size=2g /dev/shm)"},
    [SKV_CGROUP_FULL] = {NULL, SKV_E_STORE_FULL,
                         "the memory limit of this container (its control group) is nearly reached, nothing was changed: "
                         "raise the limit (docker run --memory) or create a store with a smaller size="},
    [SKV_TOO_LARGE] = {NULL, SKV_E_VALUE_TOO_LARGE,
                       "the value is larger than this store takes (a quarter of its size, at most 4 GiB - 1): give it a larger "
                       "size= (Store.resize, where it exists already)"},
    [SKV_NOT_INT] = {&PyExc_TypeError, 0, "the value is not an int, nothing was changed"},
    [SKV_OVERFLOW] = {&PyExc_OverflowError, 0, "the number does not fit in 64 signed bits, nothing was changed"},
    [SKV_CORRUPT] = {NULL, SKV_E_CORRUPT, "the store is damaged, or is none: unlink it and create it again"},
    [SKV_VERSION] = {NULL, SKV_E_LAYOUT_VERSION,
                     "the store was made by another version of shmkv or on another byte order: use that version, or "
                     "unlink the store"},
    [SKV_STALE] = {NULL, SKV_E_STALE,
                   "the store belongs to another boot of the machine or to another time namespace: unlink it and "
                   "create it again"},
    [SKV_NO_SLOT] = {NULL, SKV_E_TOO_MANY_PROCESSES,
                     "the store is open in 1,023 processes, and no more can write to it: close some"},
    [SKV_READ_ONLY] = {NULL, SKV_E_READ_ONLY, "the store was opened with readonly=True"},
    [SKV_NO_MEMORY] = {&PyExc_MemoryError, 0, "this process has no memory left, nothing was changed"},
    [SKV_DISK_FULL] = {NULL, SKV_E_STORE_FULL, "the disk that the log is on is full, nothing was changed: make room on it"},
    [SKV_LOG_ERROR] = {NULL, SKV_E_LOG_FAILED, "the log could not be written, nothing was changed"},
    [SKV_NOT_STABLE] = {NULL, SKV_E_LOG_FAILED,
                        "the change was made, but the log could not be brought to stable storage: sync() tries again"},
    [SKV_LOG_FAILED] = {NULL, SKV_E_LOG_FAILED,
                        "a write or a sync of the log failed, and nobody knows what of the last changes is on the disk: close the "
                        "store in all processes, see to the disk, and open it again"},
    [SKV_FORKED] = {NULL, SKV_E_FORKED, "this process was forked after the right to open the store was given up (by another user, another root directory or a "
                    "sandbox), so it cannot prove to others that it lives, and may only read; nothing was changed: fork first and give "
                    "the right up in the child"},
};

/* What a log says with ESTALE, whatever was asked of it. */
static const char gone[] =
    "the directory of the store, or the log in it, was removed, or another was put in its place: nothing was changed or "
    "brought to stable storage, and what was written lately is in memory only.  Reads go on: save what you need, and put the "
    "directory back as it was, or close the store in all processes and open it again";

/* As every OSError: errno and strerror are attributes. */
static PyObject *raise_with_errno(PyObject *class, int error, const char *sentence)
{
    PyObject *arguments = error ? Py_BuildValue("(is)", error, sentence) : Py_BuildValue("(s)", sentence);
    if (arguments) {
        PyErr_SetObject(class, arguments);
        Py_DECREF(arguments);
    }
    return NULL;
}

/* What a limit of this process is the reason of; NULL: errno is for somebody else to explain. */
static const char *sentence_of_limit(int error)
{
    switch (error) {
    case EFBIG:
        return "the region or its log may not become that large here, nothing was changed: raise the limit for files (ulimit -f)";
    case ENOMEM:
        return "this process may not map that much memory, nothing was changed: raise the limit (ulimit -v), or say a smaller size=";
    case EMFILE:
    case ENFILE:
        return "as many files are open as may be, nothing was changed: close some, or raise the limit (ulimit -n)";
    default:
        return NULL;
    }
}

PyObject *skv_raise_status(module_state *state, int status)
{
    if (status == SKV_RAISED)
        return NULL;
    const char *limit = status == SKV_OS_ERROR || status == SKV_LOG_ERROR ? sentence_of_limit(errno) : NULL;
    if (limit)
        return raise_with_errno(state->errors[SKV_E_LIMIT], errno, limit);
    if (status == SKV_OS_ERROR && errno != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (status <= SKV_OK || status >= (int)Py_ARRAY_LENGTH(of_status) || !of_status[status].sentence) {
        PyErr_Format(PyExc_SystemError, "shmkv: status %d of the engine", status);
        return NULL;
    }
    PyObject *class = of_status[status].builtin ? *of_status[status].builtin : state->errors[of_status[status].error];
    if (!of_status[status].builtin && of_status[status].error == SKV_E_LOG_FAILED)
        return raise_with_errno(class, errno, errno == ESTALE ? gone : of_status[status].sentence);
    PyErr_SetString(class, of_status[status].sentence);
    return NULL;
}

PyObject *skv_raise(module_state *state, enum skv_error error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyErr_FormatV(state->errors[error], format, arguments);
    va_end(arguments);
    return NULL;
}

/* Takes the exception that is set, normalized; a new reference. */
static PyObject *take_exception(void)
{
#if PY_VERSION_HEX >= 0x030c0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

static void set_exception(PyObject *exception)
{
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
}

/* `sentence` NULL: that of the cause. */
PyObject *skv_raise_from(module_state *state, enum skv_error error, const char *sentence)
{
    PyObject *cause = take_exception();
    PyObject *text = sentence ? PyUnicode_FromString(sentence) : PyObject_Str(cause);
    PyObject *raised = text ? PyObject_CallOneArg(state->errors[error], text) : NULL;
    Py_XDECREF(text);
    if (!raised) {
        Py_DECREF(cause);
        return NULL;
    }
    PyException_SetContext(raised, Py_NewRef(cause));
    PyException_SetCause(raised, cause);
    set_exception(raised);
    return NULL;
}

/* In a tuple of one, because a tuple as the value would become the exception's arguments. */
PyObject *skv_raise_missing(PyObject *key)
{
    PyObject *arguments = PyTuple_Pack(1, key);
    if (arguments) {
        PyErr_SetObject(PyExc_KeyError, arguments);
        Py_DECREF(arguments);
    }
    return NULL;
}

/* ---- Functions ------------------------------------------------------------------------- */

static PyObject *module_xxh3_64(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"data", "seed", NULL};
    Py_buffer data;
    PyObject *seed_object = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*|O!:xxh3_64", names, &data, &PyLong_Type, &seed_object))
        return NULL;
    uint64_t seed = seed_object ? PyLong_AsUnsignedLongLong(seed_object) : 0;
    PyObject *hash = PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(skv_xxh3_64(data.buf, (size_t)data.len, seed));
    PyBuffer_Release(&data);
    return hash;
}

static PyObject *module_encode_safe(PyObject *Py_UNUSED(module), PyObject *value)
{
    skv_encoded encoded;
    if (skv_encode_safe(value, &encoded) < 0)
        return NULL;
    PyObject *pair = Py_BuildValue("iy#", (int)encoded.type, (const char *)encoded.data, (Py_ssize_t)encoded.len);
    skv_encoded_clear(&encoded);
    return pair;
}

static PyObject *module_decode_safe(PyObject *module, PyObject *args)
{
    unsigned char type;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "by*:decode_safe", &type, &data))
        return NULL;
    PyObject *value = skv_decode_safe(type, data.buf, (size_t)data.len);
    if (!value && PyErr_ExceptionMatches(PyExc_ValueError))
        skv_raise_from(PyModule_GetState(module), SKV_E_CODEC, NULL);
    PyBuffer_Release(&data);
    return value;
}

static PyObject *module_fail_commit(PyObject *Py_UNUSED(module), PyObject *nth_object)
{
    unsigned long nth = PyLong_AsUnsignedLong(nth_object);
    if (nth == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    skv_os_fail_commit(nth > UINT32_MAX ? UINT32_MAX : (uint32_t)nth);
    Py_RETURN_NONE;
}

static PyObject *module_give_back(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    Py_BEGIN_ALLOW_THREADS
    skv_regions_give_back();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    SKV_METHOD("xxh3_64", module_xxh3_64, METH_VARARGS | METH_KEYWORDS,
               "xxh3_64(data, seed=0)\n--\n\nThe engine's own XXH3-64."),
    SKV_METHOD("encode_safe", module_encode_safe, METH_O,
               "encode_safe(value)\n--\n\n(type code, payload) of the \"safe\" codec."),
    SKV_METHOD("decode_safe", module_decode_safe, METH_VARARGS,
               "decode_safe(type_code, payload)\n--\n\nThe value; CodecError if the bytes are damaged."),
    SKV_METHOD("give_back", module_give_back, METH_NOARGS,
               "give_back()\n--\n\nWhat this process keeps for its next write goes back to its stores."),
    SKV_METHOD("fail_commit", module_fail_commit, METH_O,
               "fail_commit(nth)\n--\n\nFor tests: the nth commit of memory from now on fails; 0 = off."),
    SKV_METHOD("durable_restore", module_durable_restore, METH_VARARGS,
               "durable_restore(region, folder, /)\n--\n\nFill an empty region from the log in a folder: what was found."),
    SKV_METHOD("durable_begin", module_durable_begin, METH_VARARGS,
               "durable_begin(region, folder, uuid, state=b'', number=0, seconds=-1.0, /)\n--\n\nFrom now on every change goes through the log."),
    SKV_METHOD("durable_state", module_durable_state, METH_O,
               "durable_state(region, /)\n--\n\nHow far the log and the disk are."),
    SKV_METHOD("durable_data_bytes", module_durable_data_bytes, METH_O,
               "durable_data_bytes(region, /)\n--\n\nAbout what a snapshot would take."),
    SKV_METHOD("durable_vouch", module_durable_vouch, METH_O,
               "durable_vouch(region, /)\n--\n\nThe log says that all of it is on stable storage, if nobody writes to it: did it say so now?"),
    SKV_METHOD("durable_sync", module_durable_sync, METH_VARARGS,
               "durable_sync(region, seconds=-1.0, /)\n--\n\nReturns when the log is on stable storage; waits so long behind "
               "an append that makes no end (below 0: five seconds)."),
    SKV_METHOD("durable_checkpoint", module_durable_checkpoint, METH_VARARGS,
               "durable_checkpoint(region, seconds=-1.0, /)\n--\n\nWrite a snapshot: (number, items, bytes); None: another process "
               "does."),
    SKV_METHOD("durable_holders", module_durable_holders, METH_O,
               "durable_holders(region, /)\n--\n\nWho appends to the log, and who writes a snapshot: (pid, start, pid namespace, "
               "does it live?), or None."),
    SKV_METHOD("durable_set_wall_clock", module_durable_set_wall_clock, METH_VARARGS,
               "durable_set_wall_clock(region, now_ms, /)\n--\n\nFor tests; 0 = the real clock."),
    SKV_METHOD("unlink_shared", skv_unlink_shared, METH_O,
               "unlink_shared(name, /)\n--\n\nRemove the name of an object of shared memory: shm_unlink(3)."),
    SKV_METHOD("restored_bytes", module_restored_bytes, METH_NOARGS,
               "restored_bytes()\n--\n\nBytes of frames that the recovery in this process has applied."),
    {NULL, NULL, 0, NULL},
};

/* ---- The module ------------------------------------------------------------------------ */

module_state *skv_state_of_type(PyTypeObject *type)
{
    for (; type; type = type->tp_base) {
        if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
            continue;
        PyObject *module = PyType_GetModule(type);
        if (!module)
            PyErr_Clear();
        else if (PyModule_GetDef(module) == &skv_module_def)
            return PyModule_GetState(module);
    }
    PyErr_SetString(PyExc_SystemError, "shmkv: a type without its module");
    return NULL;
}

static int load_errors(module_state *state)
{
    PyObject *errors = PyImport_ImportModule("shmkv.errors");
    for (size_t i = 0; errors && i < SKV_ERRORS; i++) {
        state->errors[i] = PyObject_GetAttrString(errors, error_names[i]);
        if (!state->errors[i])
            Py_CLEAR(errors);
    }
    Py_XDECREF(errors);
    return errors ? 0 : -1;
}

static int add_type(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    int added = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
    Py_XDECREF(type);
    return added;
}

static int add_types(PyObject *module, module_state *state)
{
    state->region_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &skv_region_spec, NULL);
    if (!state->region_type || PyModule_AddType(module, state->region_type) < 0)
        return -1;
    state->handle_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &skv_handle_spec, NULL);
    if (!state->handle_type || PyModule_AddType(module, state->handle_type) < 0)
        return -1;
    if (add_type(module, &skv_log_spec) < 0 || add_type(module, &skv_descriptor_spec) < 0)
        return -1;
    state->versioned_type = PyStructSequence_NewType(&skv_versioned_desc);
    return state->versioned_type ? PyModule_AddType(module, state->versioned_type) : -1;
}

static int module_exec(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    if (!handle_list_init()) {
        PyErr_NoMemory();
        return -1;
    }
    if (!args_init() || skv_encode_init() < 0 || skv_decode_init() < 0)
        return -1;
    if (load_errors(state) < 0 || add_types(module, state) < 0)
        return -1;
    if (PyModule_AddIntConstant(module, "LAYOUT_VERSION", (long)SKV_LAYOUT_VERSION) < 0)
        return -1;
    return PyModule_AddObjectRef(module, "FREE_THREADED", SKV_FREE_THREADED ? Py_True : Py_False);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = PyModule_GetState(module);
    for (size_t i = 0; i < SKV_ERRORS; i++)
        Py_VISIT(state->errors[i]);
    Py_VISIT(state->region_type);
    Py_VISIT(state->handle_type);
    Py_VISIT(state->versioned_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    for (size_t i = 0; i < SKV_ERRORS; i++)
        Py_CLEAR(state->errors[i]);
    Py_CLEAR(state->region_type);
    Py_CLEAR(state->handle_type);
    Py_CLEAR(state->versioned_type);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters     /* the codec's caches and the counters belong to one GIL   */
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

struct PyModuleDef skv_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shmkv._core",
    .m_doc = "The C extension: the engine's binding.  Use `shmkv.Store`, not this.",
    .m_size = sizeof(module_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&skv_module_def);
}
