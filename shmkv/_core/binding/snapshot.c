/* snapshot.c: get_many: many keys as they were at one instant.
 *
 * How:  all keys are found with their cache misses overlapped, all values copied, and then all is
 *       looked at again (the double collect of skv_validate_many).  bytes go straight into their
 *       objects, everything else into one arena, and is decoded when it is known to be right.  A reader
 *       that was overtaken SKV_READ_TRIES times freezes the buckets; then the arena takes all values,
 *       because no Python memory is taken under a lock.
 */
#include <stdlib.h>

#include "../read.h"
#include "args.h"
#include "collect.h"
#include "handle.h"
#include "reads.h"
#include "records.h"
#include "values.h"

/* What was copied for a key. */
typedef struct copied {
    PyObject *name;             /* the key's object, borrowed from the caller's sequence       */
    PyObject *bytes;            /* the value, or NULL: it lies in the arena, or there is none  */
    size_t at;                  /* where in the arena                                          */
} copied;

typedef struct snapshot {
    skv_key *keys;
    skv_view *views;
    copied *copies;
    uint32_t count;
    uint64_t now_ms;            /* one for all; 0 = no item has an expiry                      */
    uint8_t *arena;
    size_t used, room;
} snapshot;

/* One block for the three arrays, all of them of 8-byte words. */
static bool snapshot_init(snapshot *to, size_t room)
{
    *to = (snapshot){.keys = malloc((room ? room : 1) * (sizeof *to->keys + sizeof *to->views + sizeof *to->copies))};
    if (!to->keys) {
        PyErr_NoMemory();
        return false;
    }
    to->views = (skv_view *)(void *)(to->keys + room);
    to->copies = (copied *)(void *)(to->views + room);
    return true;
}

static void snapshot_drop_copies(snapshot *from)
{
    for (uint32_t i = 0; i < from->count; i++)
        Py_CLEAR(from->copies[i].bytes);
    from->used = 0;
}

static void snapshot_free(snapshot *done)
{
    snapshot_drop_copies(done);
    free(done->arena);
    free(done->keys);
}

/* Keys that no store can hold are left out. */
static bool take_keys(Handle *self, snapshot *to, PyObject *sequence)
{
    PyObject **objects = PySequence_Fast_ITEMS(sequence);
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(sequence);
    for (Py_ssize_t i = 0; i < n; i++) {
        key_text key;
        enum key_result parsed = key_parse(self->state, objects[i], KEY_TO_FIND, &key);
        if (skv_unlikely(parsed == KEY_RAISED))
            return false;
        if (skv_unlikely(parsed == KEY_ABSENT))
            continue;
        to->keys[to->count] = (skv_key){.data = key.data, .len = key.len, .is_bytes = key.is_bytes};
        to->copies[to->count++] = (copied){objects[i], NULL, 0};
    }
    return true;
}

/* ---- Copying --------------------------------------------------------------------------- */

static bool arena_reserve(snapshot *in, size_t len)
{
    if (skv_likely(len < in->room - in->used))      /* less: the arena is never NULL then       */
        return true;
    size_t room = in->used + len >= 2 * in->room ? in->used + len + 1 : 2 * in->room;
    if (room < 1024)
        room = 1024;
    uint8_t *arena = realloc(in->arena, room);
    if (!arena)
        return false;
    in->arena = arena;
    in->room = room;
    return true;
}

static inline enum copy_result copy_one(snapshot *in, uint32_t i, bool frozen)
{
    const skv_view *view = &in->views[i];
    copied *to = &in->copies[i];
    const size_t len = view->value_len;
    if (skv_unlikely(len > SKV_TRUSTED_LENGTH) && !skv_validate(view))
        return COPY_TORN;
    if (skv_likely(view->type == SKV_T_BYTES && !frozen)) {
        to->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
        if (!to->bytes)
            return COPY_NO_MEMORY;
        skv_copy_racy(PyBytes_AS_STRING(to->bytes), view->value, len);
        return COPY_DONE;
    }
    if (!arena_reserve(in, len))
        return COPY_NO_MEMORY;
    to->at = in->used;
    skv_copy_racy(in->arena + to->at, view->value, len);
    in->used += len;
    return COPY_DONE;
}

static enum copy_result collect_once(skv *store, snapshot *in, bool frozen)
{
    skv_find_many(store, in->keys, in->views, in->count);
    for (uint32_t i = 0; i < in->count; i++) {
        enum copy_result result = in->views[i].record ? copy_one(in, i, frozen) : COPY_DONE;
        if (skv_unlikely(result != COPY_DONE))
            return result;
    }
    return skv_validate_many(store, in->keys, in->views, in->count) ? COPY_DONE : COPY_TORN;
}

static bool collect_inside(skv *store, snapshot *in)
{
    for (uint32_t i = 0; i < in->count; i++)
        in->keys[i] = skv_hash_key(store, in->keys[i].data, in->keys[i].len, in->keys[i].is_bytes);
    for (uint32_t tries = 0;; tries++) {
        const bool freeze = tries >= SKV_READ_TRIES;
        skv_frozen *frozen = freeze ? skv_freeze(store, in->keys, in->count) : NULL;
        enum copy_result result = collect_once(store, in, freeze);
        skv_thaw(store, frozen);
        if (skv_likely(result == COPY_DONE))
            return true;
        snapshot_drop_copies(in);
        if (result == COPY_NO_MEMORY) {
            PyErr_NoMemory();
            return false;
        }
        skv_relax(store, &in->views[0], tries);
    }
}

/* ---- Counting and building -------------------------------------------------------------- */

static bool is_there(const snapshot *in, uint32_t i)
{
    const skv_view *view = &in->views[i];
    return view->record && (skv_likely(!view->expires_ms) || in->now_ms < view->expires_ms);
}

static void count_and_warm(Handle *self, skv *store, snapshot *in)
{
    in->now_ms = 0;
    for (uint32_t i = 0; i < in->count && !in->now_ms; i++)
        if (in->views[i].record && in->views[i].expires_ms)
            in->now_ms = skv_now_ms(store);
    uint32_t hits = 0;
    for (uint32_t i = 0; i < in->count; i++) {
        if (!is_there(in, i))
            continue;
        hits++;
        skv_warm(store, &in->views[i]);
    }
    if (self->read_only)
        return;
    skv_count(store, SKV_HITS, hits, SKV_FREE_THREADED);
    skv_count(store, SKV_MISSES, in->count - hits, SKV_FREE_THREADED);
}

/* What the dict has for a key. */
typedef PyObject *(*make_one)(Handle *self, const snapshot *from, uint32_t i);

static PyObject *make_value(Handle *self, const snapshot *from, uint32_t i)
{
    const copied *copy = &from->copies[i];
    const skv_view *view = &from->views[i];
    return copy->bytes ? Py_NewRef(copy->bytes) : value_decode(self, view->type, from->arena + copy->at, view->value_len);
}

static PyObject *make_record(Handle *Py_UNUSED(self), const snapshot *from, uint32_t i)
{
    const copied *copy = &from->copies[i];
    const skv_view *view = &from->views[i];
    const uint8_t *data = copy->bytes ? (const uint8_t *)PyBytes_AS_STRING(copy->bytes) : from->arena + copy->at;
    return record_new(&(stored_value){view->type, data, view->value_len, view->version, view->expires_ms}, copy->bytes);
}

static bool add_to_dict(Handle *self, snapshot *from, uint32_t i, make_one make, PyObject *dict)
{
    copied *copy = &from->copies[i];
    PyObject *value = make(self, from, i);
    Py_CLEAR(copy->bytes);
    PyObject *name = value ? key_as_base(copy->name) : NULL;
    bool good = name && PyDict_SetItem(dict, name, value) == 0;
    Py_XDECREF(name);
    Py_XDECREF(value);
    return good;
}

static PyObject *build_dict(Handle *self, snapshot *from, make_one make)
{
    PyObject *dict = PyDict_New();
    for (uint32_t i = 0; dict && i < from->count; i++)
        if (is_there(from, i) && !add_to_dict(self, from, i, make, dict))
            Py_CLEAR(dict);
    return dict;
}

static PyObject *get_sequence(Handle *self, PyObject *sequence, make_one make)
{
    snapshot all;
    if (!snapshot_init(&all, (size_t)PySequence_Fast_GET_SIZE(sequence)))
        return NULL;
    PyObject *dict = NULL;
    skv *store = take_keys(self, &all, sequence) ? handle_enter(self) : NULL;
    if (store) {
        bool good = !all.count || collect_inside(store, &all);
        if (good)
            count_and_warm(self, store, &all);
        const bool cut = good && !skv_is_whole(store);
        handle_leave(self);
        if (cut)
            skv_raise_status(self->state, SKV_CORRUPT);
        good = good && !cut;
        if (good)
            dict = build_dict(self, &all, make);
    }
    snapshot_free(&all);
    return dict;
}

static PyObject *get_keys(Handle *self, PyObject *keys, const char *function, make_one make)
{
    if (!keys || !handle_is_open(self))
        return NULL;
    PyObject *sequence = collect_keys(self->state, keys, function);
    if (!sequence)
        return NULL;
    PyObject *dict = get_sequence(self, sequence, make);
    Py_DECREF(sequence);
    return dict;
}

PyObject *handle_get_many(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return get_keys(self, args_one("get_many", "keys", args, nargs, kwnames), "get_many", make_value);
}

PyObject *handle_fetch_many(Handle *self, PyObject *keys)
{
    return get_keys(self, keys, "_fetch_many", make_record);
}
