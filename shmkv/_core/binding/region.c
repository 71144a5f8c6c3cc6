/* region.c: shmkv._core.Region: create, look at and map a region behind a descriptor.
 *
 * Concurrency: immutable after attach; what waits for other processes does so without the GIL.
 */
#include "region.h"

#include <errno.h>
#include <math.h>

typedef struct Region {
    PyObject_HEAD
    skv_region *region;
} Region;

skv *region_store(module_state *state, PyObject *object)
{
    if (PyObject_TypeCheck(object, state->region_type))
        return skv_region_store(((Region *)object)->region);
    PyErr_Format(PyExc_TypeError, "region must be a Region, not %.200s", Py_TYPE(object)->tp_name);
    return NULL;
}

skv_place region_at(PyObject *object, const char *path)
{
    return skv_region_at(((Region *)object)->region, path);
}

static module_state *state_of_class(PyObject *class)
{
    return skv_state_of_type((PyTypeObject *)class);
}

/* What one process with a faked clock stores would expire for all others at the wrong time. */
static bool require_true_clock(module_state *state)
{
    if (!state || skv_os_clock_is_true())
        return state != NULL;
    skv_raise(state, SKV_E_CLOCK,
              "CLOCK_BOOTTIME, by which items expire, is faked in this process: leave that clock as it is (of libfaketime: "
              "FAKETIME_DONT_FAKE_MONOTONIC=1), or run without the library (LD_PRELOAD)");
    return false;
}

/* ---- create, peek, attach -------------------------------------------------------------- */

static PyObject *region_create(PyObject *class, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fd", "size", "evict", "mode", "uid", "uuid", "seed", "fixed_size", "log_uuid", NULL};
    int fd, evict = 0, fixed_size = 0;
    unsigned int mode = 0, uid = 0;
    unsigned long long size, seed = 0;
    Py_buffer uuid = {.buf = NULL}, log_uuid = {.buf = NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iK|$pIIy*Kpz*:create", names, &fd, &size, &evict, &mode, &uid, &uuid,
                                     &seed, &fixed_size, &log_uuid))
        return NULL;
    skv_params params = {.size = size, .flags = evict ? SKV_FLAG_EVICT : 0, .mode = mode, .uid = uid, .hash_seed = seed};
    bool good = uuid.buf && uuid.len == sizeof params.uuid && (!log_uuid.buf || log_uuid.len == sizeof params.log_uuid);
    if (good)
        memcpy(params.uuid, uuid.buf, sizeof params.uuid);
    if (good && log_uuid.buf) {
        memcpy(params.log_uuid, log_uuid.buf, sizeof params.log_uuid);
        params.flags |= SKV_FLAG_DURABLE;
    }
    if (uuid.buf)
        PyBuffer_Release(&uuid);
    if (log_uuid.buf)
        PyBuffer_Release(&log_uuid);
    if (!good)
        return PyErr_Format(PyExc_ValueError, "uuid must have %zu bytes", sizeof params.uuid);
    if (!require_true_clock(state_of_class(class)))
        return NULL;
    if (!skv_os_boot_id(params.boot_id))
        return PyErr_SetFromErrno(PyExc_OSError);
    params.created_boot_ms = skv_os_boot_ms();
    params.created_wall_ms = skv_os_wall_ms();
    params.time_namespace = skv_os_time_namespace();

    bool created = false;
    skv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = skv_region_create(fd, &params, fixed_size != 0, &created);
    Py_END_ALLOW_THREADS
    if (status != SKV_OK) {
        int error = errno;
        module_state *state = state_of_class(class);
        errno = error;
        return state ? skv_raise_status(state, (int)status) : NULL;
    }
    return PyBool_FromLong(created);
}

/* In slices, so that Ctrl-C ends the wait for a creator. */
static skv_status peek_waiting(int fd, double timeout, skv_fixed *fixed, bool *interrupted)
{
    const uint64_t slice_ms = 50;
    uint64_t left_ms = timeout > 0 ? (uint64_t)fmin(ceil(timeout * 1000), 1e12) : 0;
    for (;;) {
        uint64_t now_ms = left_ms < slice_ms ? left_ms : slice_ms;
        skv_status status;
        Py_BEGIN_ALLOW_THREADS
        status = skv_region_peek(fd, (uint32_t)now_ms, fixed);
        Py_END_ALLOW_THREADS
        left_ms -= now_ms;
        if (status != SKV_BUSY || left_ms == 0)
            return status;
        if (PyErr_CheckSignals()) {
            *interrupted = true;
            return SKV_BUSY;
        }
    }
}

static PyObject *region_peek(PyObject *class, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fd", "timeout", NULL};
    int fd;
    double timeout;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "id:peek", names, &fd, &timeout))
        return NULL;
    module_state *state = state_of_class(class);
    if (!state)
        return NULL;
    skv_fixed fixed;
    bool interrupted = false;
    skv_status status = peek_waiting(fd, timeout, &fixed, &interrupted);
    if (interrupted)
        return NULL;
    if (status == SKV_OK)
        return PyBytes_FromStringAndSize((const char *)&fixed, sizeof fixed);
    if (status == SKV_MISSING)
        Py_RETURN_NONE;
    if (status == SKV_BUSY)
        return skv_raise(state, SKV_E_LOCK_TIMEOUT, "the process that creates this store has not finished, try again later");
    return skv_raise_status(state, (int)status);
}

static PyObject *region_attach(PyObject *class, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fd", "readonly", NULL};
    int fd, read_only;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ip:attach", names, &fd, &read_only))
        return NULL;
    module_state *state = state_of_class(class);
    if (!require_true_clock(state))
        return NULL;
    skv_region *region = NULL;
    skv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = skv_region_attach(fd, read_only != 0, &region);
    Py_END_ALLOW_THREADS
    if (status == SKV_MISSING)
        return skv_raise(state, SKV_E_CORRUPT, "there is no finished store behind this descriptor");
    if (status != SKV_OK)
        return skv_raise_status(state, (int)status);
    Region *self = PyObject_New(Region, state->region_type);
    if (!self) {
        skv_region_detach(region);
        return NULL;
    }
    self->region = region;
    return (PyObject *)self;
}

static void region_dealloc(Region *self)
{
    PyTypeObject *type = Py_TYPE(self);
    skv_region_detach(self->region);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- Attributes ------------------------------------------------------------------------ */

static const skv_fixed *fixed_of(const Region *self)
{
    return skv_fixed_of(skv_region_store(self->region));
}

static PyObject *get_fd(Region *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(skv_region_fd(self->region));
}

static PyObject *get_uuid(Region *self, void *Py_UNUSED(closure))
{
    return PyBytes_FromStringAndSize((const char *)fixed_of(self)->uuid, sizeof fixed_of(self)->uuid);
}

static PyObject *get_log_uuid(Region *self, void *Py_UNUSED(closure))
{
    if (!(fixed_of(self)->flags & SKV_FLAG_DURABLE))
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)fixed_of(self)->log_uuid, sizeof fixed_of(self)->log_uuid);
}

static PyObject *get_alone(Region *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(skv_region_is_alone(self->region));
}

static PyObject *get_size(Region *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(fixed_of(self)->size);
}

static PyObject *get_evict(Region *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(fixed_of(self)->flags & SKV_FLAG_EVICT);
}

static PyObject *get_mode(Region *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(fixed_of(self)->mode);
}

static PyObject *get_uid(Region *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(fixed_of(self)->uid);
}

static PyObject *get_bucket_count(Region *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(skv_bucket_count(skv_region_store(self->region)));
}

static PyObject *region_is_at(Region *self, PyObject *path)
{
    if (!PyBytes_Check(path))
        return PyErr_Format(PyExc_TypeError, "path must be bytes, not %.200s", Py_TYPE(path)->tp_name);
    skv_place place = skv_region_at(self->region, PyBytes_AS_STRING(path));
    return PyBool_FromLong(place == SKV_PLACE_SAME || place == SKV_PLACE_UNKNOWN);
}

/* True: done; False: somebody else is attached; None: the name means another region by now. */
static PyObject *region_replace(Region *self, PyObject *args)
{
    module_state *state = skv_state_of_type(Py_TYPE(self));
    Region *to;
    skv_paths names;
    if (!state || !PyArg_ParseTuple(args, "O!yy:replace", state->region_type, &to, &names.of_store, &names.of_new))
        return NULL;
    skv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = skv_region_replace(self->region, to->region, &names);
    Py_END_ALLOW_THREADS
    if (status == SKV_MISSING)
        Py_RETURN_NONE;
    if (status == SKV_OK || status == SKV_BUSY)
        return PyBool_FromLong(status == SKV_OK);
    return skv_raise_status(state, (int)status);
}

static PyGetSetDef region_attributes[] = {
    {"fd", (getter)get_fd, NULL, "Descriptor of the shared-memory object, owned by the region.", NULL},
    {"uuid", (getter)get_uuid, NULL, "16 bytes.", NULL},
    {"log_uuid", (getter)get_log_uuid, NULL, "16 bytes, of the log of a durable store; None: it is not durable.", NULL},
    {"alone", (getter)get_alone, NULL, "Is it attached nowhere else, in this process or in another one?", NULL},
    {"size", (getter)get_size, NULL, "Bytes.", NULL},
    {"evict", (getter)get_evict, NULL, "on_full=\"evict\"?", NULL},
    {"mode", (getter)get_mode, NULL, "Permission bits that the creator asked for.", NULL},
    {"uid", (getter)get_uid, NULL, "User id of the creator.", NULL},
    {"bucket_count", (getter)get_bucket_count, NULL, "Buckets, for _bucket_keys and _bucket_items.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef region_methods[] = {
    SKV_METHOD("create", region_create, METH_VARARGS | METH_KEYWORDS | METH_CLASS,
               "create(fd, size, *, evict, mode, uid, uuid, seed, fixed_size)\n--\n\n"
               "Lay a store out behind `fd`.  False: a ready store was there already."),
    SKV_METHOD("peek", region_peek, METH_VARARGS | METH_KEYWORDS | METH_CLASS,
               "peek(fd, timeout)\n--\n\nThe 256 bytes of the fixed header; None if its creator died before it was ready."),
    SKV_METHOD("attach", region_attach, METH_VARARGS | METH_KEYWORDS | METH_CLASS,
               "attach(fd, readonly)\n--\n\nMap the region behind `fd`."),
    SKV_METHOD("replace", region_replace, METH_VARARGS,
               "replace($self, new, path, path_of_new, /)\n--\n\nMove all items to `new` and give it this one's name: True. "
               "False: somebody else is attached.  None: the name means another region by now."),
    SKV_METHOD("is_at", region_is_at, METH_O,
               "is_at($self, path, /)\n--\n\nDoes this path lead to the region?  True where nobody can tell."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot region_slots[] = {
    {Py_tp_doc, "One mapping of a store's region in this process."},
    {Py_tp_dealloc, region_dealloc},
    {Py_tp_getset, region_attributes},
    {Py_tp_methods, region_methods},
    {0, NULL},
};

PyType_Spec skv_region_spec = {
    .name = "shmkv._core.Region",
    .basicsize = sizeof(Region),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = region_slots,
};
