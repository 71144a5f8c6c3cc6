/* handle.c: shmkv._core.Handle: its life, and the table of its methods. */
#include "handle.h"

#include <math.h>
#include <time.h>

#include "region.h"
#include "values.h"

/* ---- Refusals -------------------------------------------------------------------------- */

void skv_raise_closed(Handle *handle)
{
    skv_raise(handle->state, SKV_E_CLOSED, "the store is closed in this process: open it again");
}

void skv_raise_read_only(Handle *handle)
{
    skv_raise(handle->state, SKV_E_READ_ONLY, "the store was opened with readonly=True: open it without to change it");
}

PyObject *handle_raise_status(Handle *handle, int status)
{
    if (status == SKV_FULL && handle->durable)
        return skv_raise(handle->state, SKV_E_STORE_FULL,
                         "the store is full, nothing was changed: delete items, or close it everywhere and open it with a "
                         "larger size=");
    if (status == SKV_TOO_LARGE && handle->durable)
        return skv_raise(handle->state, SKV_E_VALUE_TOO_LARGE,
                         "the value is larger than this store takes (a quarter of its size, at most 4 GiB - 1): close it "
                         "everywhere and open it with a larger size=");
    return skv_raise_status(handle->state, status);
}

/* ---- Life ------------------------------------------------------------------------------ */

static PyObject *handle_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    module_state *state = skv_state_of_type(type);
    Handle *self = state ? (Handle *)type->tp_alloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->state = state;
    atomic_init(&self->gate, GATE_CLOSED);
    atomic_init(&self->in_flight, 0);
    handle_list_add(self);
    return (PyObject *)self;
}

static bool take_callable(PyObject *given, enum codec_mode mode, const char *name, PyObject **out)
{
    if (mode == CODEC_SAFE || PyCallable_Check(given)) {
        *out = mode == CODEC_SAFE ? NULL : Py_NewRef(given);
        return true;
    }
    PyErr_Format(PyExc_TypeError, "%s must be callable for this codec, not %.200s", name, Py_TYPE(given)->tp_name);
    return false;
}

static int handle_init(Handle *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"region", "codec", "encode", "decode", "lock_timeout", "readonly", "stable", "follow", NULL};
    PyObject *region, *encode = Py_None, *decode = Py_None, *path = NULL;
    const char *codec = "safe";
    double lock_timeout = 5.0;
    int read_only = 0, stable = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|sOOdppS:Handle", names, &region, &codec, &encode, &decode,
                                     &lock_timeout, &read_only, &stable, &path))
        return -1;
    if (self->region || self->encode) {
        PyErr_SetString(PyExc_TypeError, "a handle is initialised once");
        return -1;
    }
    skv *store = region_store(self->state, region);
    if (!store || !codec_mode_parse(codec, &self->codec))
        return -1;
    if (!(lock_timeout >= 0)) {
        PyErr_SetString(PyExc_ValueError, "lock_timeout must be 0 or more seconds");
        return -1;
    }
    if (!take_callable(encode, self->codec, "encode", &self->encode)
        || !take_callable(decode, self->codec, "decode", &self->decode))
        return -1;
    self->lock_timeout = lock_timeout;
    self->read_only = read_only != 0;
    self->stable = stable != 0;
    self->durable = (skv_fixed_of(store)->flags & SKV_FLAG_DURABLE) != 0;
    self->region = Py_NewRef(region);
    self->path = Py_XNewRef(path);
    self->store = store;
    atomic_store(&self->gate, path ? GATE_NAMED : GATE_OPEN);
    return 0;
}

/* Everybody has left, or only operations of this very thread are inside, which look at `store`. */
static void let_go(Handle *self)
{
    PyObject *region, *left;
    Py_BEGIN_CRITICAL_SECTION(self);
    region = self->region;
    left = self->left;
    self->store = NULL;
    self->region = self->left = NULL;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(region);
    Py_XDECREF(left);
}

static PyObject *handle_close(Handle *self, PyObject *Py_UNUSED(unused))
{
    atomic_store(&self->gate, GATE_CLOSED);     /* partner: handle_enter                       */
    const struct timespec nap = {0, 200000};
    while (handle_others_inside(self) != 0) {
        if (skv_is_ending())
            Py_RETURN_NONE;                     /* it stays mapped: they may be at work in there */
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&nap, NULL);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals())
            return NULL;                        /* called again, it goes on                    */
    }
    let_go(self);
    Py_RETURN_NONE;
}

/* ---- Handles that follow the name of their store --------------------------------------- */

/* Who entered before goes on in the old region, which `left` keeps. */
static PyObject *handle_move(Handle *self, PyObject *region)
{
    skv *store = region_store(self->state, region);
    PyObject *left = NULL;
    bool moved = false;
    if (!store || !(left = PyList_New(0)))
        return NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (!self->left)
        self->left = Py_NewRef(left);
    if (self->store && PyList_Append(self->left, self->region) == 0) {
        Py_DECREF(self->region);
        self->region = Py_NewRef(region);
        self->store = store;
        moved = true;
    }
    Py_END_CRITICAL_SECTION();
    Py_DECREF(left);
    if (!moved && !PyErr_Occurred())
        skv_raise_closed(self);
    return moved ? Py_NewRef(Py_None) : NULL;
}

/* Outside of the section: the last reference to a region unmaps it. */
static void let_left_regions_go(Handle *self)
{
    PyObject *left = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (atomic_load(&self->in_flight) == 0) {
        left = self->left;
        self->left = NULL;
    }
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(left);
}

/* Python's part of it opens and checks what has the name by now, as any attaching does. */
static bool follow_name(Handle *self)
{
    bool another;
    Py_BEGIN_CRITICAL_SECTION(self);
    another = self->region && region_at(self->region, PyBytes_AS_STRING(self->path)) == SKV_PLACE_ANOTHER;
    Py_END_CRITICAL_SECTION();
    if (another) {
        PyObject *done = PyObject_CallMethod((PyObject *)self, "_follow", NULL);
        if (!done)
            return false;
        Py_DECREF(done);
    }
    if (self->left)
        let_left_regions_go(self);
    return true;
}

skv *handle_enter_by_name(Handle *handle)
{
    if (atomic_load(&handle->gate) == GATE_NAMED && !follow_name(handle))
        return NULL;
    atomic_fetch_add(&handle->in_flight, 1);        /* partner: handle_close                   */
    if (atomic_load(&handle->gate) == GATE_NAMED)
        return handle->store;
    atomic_fetch_sub(&handle->in_flight, 1);
    skv_raise_closed(handle);
    return NULL;
}

/* ---- For the garbage collector ---------------------------------------------------------- */

static int handle_traverse(Handle *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->region);
    Py_VISIT(self->encode);
    Py_VISIT(self->decode);
    Py_VISIT(self->left);
    return 0;
}

/* Nobody refers to it any more, so nobody is inside. */
static int handle_clear_references(Handle *self)
{
    atomic_store(&self->gate, GATE_CLOSED);
    let_go(self);
    Py_CLEAR(self->encode);
    Py_CLEAR(self->decode);
    Py_CLEAR(self->path);
    return 0;
}

static void handle_dealloc(Handle *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    handle_list_remove(self);
    handle_clear_references(self);
    skv_scratch_free(atomic_load(&self->scratch));
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *get_closed(Handle *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(atomic_load(&self->gate) == GATE_CLOSED);
}

/* ---- The type -------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    SKV_METHOD("get", handle_get, SKV_KEYWORDS, "get($self, key, default=None)\n--\n\nThe value, or `default`."),
    SKV_METHOD("gets", handle_gets, SKV_KEYWORDS, "gets($self, key)\n--\n\nVersioned(value, version); KeyError if missing."),
    SKV_METHOD("ttl", handle_ttl, SKV_KEYWORDS, "ttl($self, key)\n--\n\nSeconds left, or None for no expiry; KeyError if missing."),
    SKV_METHOD("content_type", handle_content_type, SKV_KEYWORDS,
               "content_type($self, key)\n--\n\nThe content type of a bytes value, or None."),
    SKV_METHOD("put", handle_put, SKV_KEYWORDS,
               "put($self, key, value, ttl=None, *, content_type=None)\n--\n\nStore a value; an earlier ttl is cleared."),
    SKV_METHOD("set", handle_set, SKV_KEYWORDS,
               "set($self, key, value, ttl=None, *, content_type=None)\n--\n\nThe same as put."),
    SKV_METHOD("add", handle_add, SKV_KEYWORDS,
               "add($self, key, value, ttl=None)\n--\n\nStore only if absent: was it stored?"),
    SKV_METHOD("replace", handle_replace, SKV_KEYWORDS,
               "replace($self, key, value, ttl=None)\n--\n\nStore only if present: was it stored?"),
    SKV_METHOD("cas", handle_cas, SKV_KEYWORDS,
               "cas($self, key, value, version, ttl=None)\n--\n\nStore only if the version is unchanged: was it stored?"),
    SKV_METHOD("delete", handle_delete, SKV_KEYWORDS, "delete($self, key)\n--\n\nRemove an item: was it there?"),
    SKV_METHOD("pop", handle_pop, SKV_KEYWORDS,
               "pop(key[, default])\n\nRemove an item and return its value; KeyError if missing and no default is given."),
    SKV_METHOD("setdefault", handle_setdefault, SKV_KEYWORDS,
               "setdefault($self, key, default=None)\n--\n\nThe stored value; stores `default` first if there is none."),
    SKV_METHOD("change", handle_change, SKV_KEYWORDS,
               "change(key, function, *[, default], ttl=None)\n\nStore function(value) in the place of that very value; it is "
               "returned.  The function may be called several times."),
    SKV_METHOD("incr", handle_incr, SKV_KEYWORDS,
               "incr($self, key, delta=1, initial=0, ttl=None)\n--\n\nAdd to an int, or create it; the new value."),
    SKV_METHOD("decr", handle_decr, SKV_KEYWORDS,
               "decr($self, key, delta=1, initial=0, ttl=None)\n--\n\nSubtract from an int, or create it; the new value."),
    SKV_METHOD("touch", handle_touch, SKV_KEYWORDS, "touch($self, key, ttl)\n--\n\nGive an item a new ttl: was it there?"),
    SKV_METHOD("persist", handle_persist, SKV_KEYWORDS, "persist($self, key)\n--\n\nTake an item's ttl away: did it have one?"),
    SKV_METHOD("get_many", handle_get_many, SKV_KEYWORDS,
               "get_many($self, keys)\n--\n\nDict of those present, one snapshot of all."),
    SKV_METHOD("put_many", handle_put_many, SKV_KEYWORDS,
               "put_many($self, items, ttl=None)\n--\n\nStore all items of a mapping or of pairs, at one instant."),
    SKV_METHOD("delete_many", handle_delete_many, SKV_KEYWORDS,
               "delete_many($self, keys)\n--\n\nRemove keys at one instant: how many."),
    SKV_METHOD("clear", handle_clear, METH_NOARGS, "clear($self, /)\n--\n\nRemove everything at one instant."),
    SKV_METHOD("close", handle_close, METH_NOARGS,
               "close($self, /)\n--\n\nLet running operations of other threads finish and detach; idempotent."),
    SKV_METHOD("_walk_keys", handle_walk_keys, METH_FASTCALL,
               "_walk_keys($self, bucket, prefix, /)\n--\n\n(next bucket, [key])."),
    SKV_METHOD("_walk_facts", handle_walk_facts, METH_FASTCALL,
               "_walk_facts($self, bucket, prefix, /)\n--\n\n(next bucket, [(key, type, value_len, expires_ms)])."),
    SKV_METHOD("_walk_items", handle_walk_items, METH_FASTCALL,
               "_walk_items($self, bucket, start, stop, /)\n--\n\n(next bucket, [(key, value, version)])."),
    SKV_METHOD("_walk_records", handle_walk_records, METH_FASTCALL,
               "_walk_records($self, bucket, start, stop, /)\n--\n\n(next bucket, [(key, record)])."),
    SKV_METHOD("_fetch", handle_fetch, METH_O,
               "_fetch($self, key, /)\n--\n\n(type, payload, content_type, version, expires_ms), or None."),
    SKV_METHOD("_fetch_many", handle_fetch_many, METH_O,
               "_fetch_many($self, keys, /)\n--\n\nDict of the records of those present, one snapshot of all."),
    SKV_METHOD("_place", handle_place, METH_FASTCALL,
               "_place($self, key, value, ttl, content_type, condition, version, /)\n--\n\n"
               "(version, replaced), or None: the condition did not hold."),
    SKV_METHOD("_put_items", handle_put_items, METH_O,
               "_put_items($self, items, /)\n--\n\nput_many of (key, value, ttl, content_type)."),
    SKV_METHOD("_put_batches", handle_put_batches, METH_O,
               "_put_batches($self, pairs, /)\n--\n\nStore pairs in as few batches as they need, each at one instant."),
    SKV_METHOD("_delete_version", handle_delete_version, METH_FASTCALL,
               "_delete_version($self, key, version, /)\n--\n\nRemove that very version: was it there?"),
    SKV_METHOD("_move", handle_move, METH_O,
               "_move($self, region, /)\n--\n\nGo over to another region; who is inside finishes in the old one."),
    SKV_METHOD("_stats", handle_stats, METH_NOARGS, "_stats($self, /)\n--\n\nNumbers of struct skv_stats."),
    SKV_METHOD("_processes", handle_processes, METH_NOARGS,
               "_processes($self, /)\n--\n\n(slot, pid, pid namespace, start time, this process)."),
    SKV_METHOD("_check", handle_check, METH_NOARGS, "_check($self, /)\n--\n\n([(invariant, sentence)], numbers)."),
    SKV_METHOD("_compact", handle_compact, METH_NOARGS, "_compact($self, /)\n--\n\nNumbers of struct skv_compact_report."),
    SKV_METHOD("_sweep", handle_sweep, METH_O,
               "_sweep($self, buckets, /)\n--\n\nDrop what has expired in the next buckets: how many."),
    SKV_METHOD("_reclaim", handle_reclaim, METH_NOARGS,
               "_reclaim($self, /)\n--\n\nFree the slots of dead processes: how many."),
    SKV_METHOD("_set_clock", handle_set_clock, METH_O, "_set_clock($self, now_ms, /)\n--\n\nFor tests; 0 = the real clock."),
    SKV_METHOD("_now_ms", handle_now_ms, METH_NOARGS, "_now_ms($self, /)\n--\n\nThe clock of expiry."),
    SKV_METHOD("_load_tsv", handle_load_tsv, METH_FASTCALL,
               "_load_tsv($self, buffer, on_bad, first_line, ttl_ms, /)\n--\n\n(stored, lines, consumed, [(line, reason)])."),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"closed", (getter)get_closed, NULL, "Has close() been called?", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, "Every operation that touches items; see shmkv.Store."},
    {Py_tp_new, handle_new},
    {Py_tp_init, handle_init},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear_references},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_mp_length, handle_length},
    {Py_mp_subscript, handle_subscript},
    {Py_mp_ass_subscript, handle_ass_subscript},
    {Py_sq_contains, handle_contains},
    {0, NULL},
};

PyType_Spec skv_handle_spec = {
    .name = "shmkv._core.Handle",
    .basicsize = sizeof(Handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = handle_slots,
};
