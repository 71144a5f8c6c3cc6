/* walk.c: a bucket at a time: keys, items, and how many there are in all.
 *
 * The engine copies a bucket without the GIL and asks the filter below for each key; objects are
 * made of the copy, after the handle was left.  Each call answers (next bucket, [...]) of the first bucket
 * that has anything, so that a walk that looks for little makes few calls.
 */
#include "args.h"
#include "handle.h"
#include "records.h"
#include "values.h"

/* ---- Filters --------------------------------------------------------------------------- */

enum key_kind { KEYS_ALL, KEYS_STR, KEYS_BYTES };

/* start <= key < stop, or prefix; len -1 = not given. */
typedef struct key_filter {
    enum key_kind kind;
    bound_text prefix, start, stop;
} key_filter;

static uint64_t first_word(const void *text)
{
    uint64_t word;
    memcpy(&word, text, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return word;
#else
    return __builtin_bswap64(word);     /* so that words are in the order of their bytes       */
#endif
}

static int compare(const uint8_t *key, uint32_t len, const bound_text *bound)
{
    if (skv_likely(len >= 8 && bound->len >= 8)) {      /* decides nearly always, without a call */
        const uint64_t mine = first_word(key), other = first_word(bound->data);
        if (mine != other)
            return mine < other ? -1 : 1;
    }
    size_t shorter = (Py_ssize_t)len < bound->len ? len : (size_t)bound->len;
    int order = shorter ? memcmp(key, bound->data, shorter) : 0;
    return order ? order : ((Py_ssize_t)len > bound->len) - ((Py_ssize_t)len < bound->len);
}

static bool filter_key(void *context, const uint8_t *key, uint32_t len, bool is_bytes)
{
    const key_filter *filter = context;
    if (filter->kind != KEYS_ALL && is_bytes != (filter->kind == KEYS_BYTES))
        return false;
    const bound_text *prefix = &filter->prefix;
    if (prefix->len > 0 && ((Py_ssize_t)len < prefix->len || memcmp(key, prefix->data, (size_t)prefix->len) != 0))
        return false;
    return (filter->start.len < 0 || compare(key, len, &filter->start) >= 0)
        && (filter->stop.len < 0 || compare(key, len, &filter->stop) < 0);
}

/* A bound of one type sees the keys of that type. */
static bool filter_kind(key_filter *filter, const bound_text *bound)
{
    if (bound->len < 0)
        return true;
    enum key_kind kind = bound->is_bytes ? KEYS_BYTES : KEYS_STR;
    if (filter->kind != KEYS_ALL && filter->kind != kind) {
        PyErr_SetString(PyExc_TypeError, "start and stop must both be str or both be bytes");
        return false;
    }
    filter->kind = kind;
    return true;
}

/* ---- Copying --------------------------------------------------------------------------- */

static bool bucket_parse(skv *store, PyObject *number, uint64_t *out)
{
    *out = PyLong_AsUnsignedLongLong(number);
    if (*out == (uint64_t)-1 && PyErr_Occurred())
        return false;
    if (*out < skv_bucket_count(store))
        return true;
    PyErr_SetString(PyExc_IndexError, "no such bucket");
    return false;
}

/* A call looks at no more of them: close() waits for it, and so do signal handlers. */
#define BUCKETS_AT_ONCE 1024u

/* What a call looks for, and where it is. */
typedef struct walk {
    uint64_t bucket;            /* the next one                                                */
    bool with_values;
    key_filter filter;
    skv_copies copies;
} walk;

static skv_status copy_next(skv *store, walk *at)
{
    const uint64_t count = skv_bucket_count(store), end = at->bucket + BUCKETS_AT_ONCE;
    skv_status status = SKV_OK;
    while (status == SKV_OK && at->copies.count == 0 && at->bucket < (end < count ? end : count))
        status = skv_copy_bucket(store, at->bucket++, at->with_values, filter_key, &at->filter, &at->copies);
    return status;
}

/* False: raised, nothing to free. */
static bool walk_on(Handle *self, PyObject *number, walk *at)
{
    skv *store = handle_enter(self);
    if (!store)
        return false;
    int status = SKV_RAISED;
    if (bucket_parse(store, number, &at->bucket)) {
        Py_BEGIN_ALLOW_THREADS
        status = (int)copy_next(store, at);
        Py_END_ALLOW_THREADS
    }
    handle_leave(self);
    if (status == SKV_OK)
        return true;
    skv_raise_status(self->state, status);
    skv_free_items(&at->copies);
    return false;
}

static PyObject *key_of(Handle *self, const skv_copies *from, size_t i)
{
    const skv_copied *item = &from->items[i];
    return key_from_record(self->state, from->bytes + item->key_at, item->key_len, item->is_bytes);
}

static PyObject *item_of(Handle *self, const skv_copies *from, size_t i)
{
    const skv_copied *item = &from->items[i];
    PyObject *key = key_of(self, from, i);
    PyObject *value = key ? value_decode(self, item->type, from->bytes + item->value_at, item->value_len) : NULL;
    if (!value) {
        Py_XDECREF(key);
        return NULL;
    }
    return Py_BuildValue("(NNK)", key, value, (unsigned long long)item->version);
}

static PyObject *record_of(Handle *self, const skv_copies *from, size_t i)
{
    const skv_copied *item = &from->items[i];
    const stored_value stored = {item->type, from->bytes + item->value_at, item->value_len, item->version, item->expires_ms};
    PyObject *key = key_of(self, from, i);
    PyObject *record = key ? record_new(&stored, NULL) : NULL;
    if (!record) {
        Py_XDECREF(key);
        return NULL;
    }
    return Py_BuildValue("(NN)", key, record);
}

static PyObject *facts_of(Handle *self, const skv_copies *from, size_t i)
{
    const skv_copied *item = &from->items[i];
    PyObject *key = key_of(self, from, i);
    return key ? Py_BuildValue("(NBIK)", key, item->type, item->value_len, (unsigned long long)item->expires_ms) : NULL;
}

typedef PyObject *(*make_one)(Handle *self, const skv_copies *from, size_t i);

/* (next bucket, [one, ...]); frees the copies in every case. */
static PyObject *walked(Handle *self, walk *at, make_one make)
{
    PyObject *list = PyList_New((Py_ssize_t)at->copies.count);
    for (size_t i = 0; list && i < at->copies.count; i++) {
        PyObject *one = make(self, &at->copies, i);
        if (one)
            PyList_SET_ITEM(list, (Py_ssize_t)i, one);
        else
            Py_CLEAR(list);
    }
    skv_free_items(&at->copies);
    return list ? Py_BuildValue("(KN)", (unsigned long long)at->bucket, list) : NULL;
}

/* ---- Methods --------------------------------------------------------------------------- */

static PyObject *walk_prefix(Handle *self, const signature *to, PyObject *const *args, Py_ssize_t nargs, make_one make)
{
    PyObject *given[2];
    walk at = {.filter = {.kind = KEYS_ALL, .start.len = -1, .stop.len = -1}};
    key_filter *filter = &at.filter;
    if (!args_bind(to, args, nargs, NULL, given) || !bound_parse(given[1], "prefix", &filter->prefix)
        || !filter_kind(filter, &filter->prefix) || !walk_on(self, given[0], &at))
        return NULL;
    return walked(self, &at, make);
}

PyObject *handle_walk_keys(Handle *self, PyObject *const *args, Py_ssize_t nargs)
{
    static const signature to = {"_walk_keys", 2, 2, 2, {"bucket", "prefix"}};
    return walk_prefix(self, &to, args, nargs, key_of);
}

PyObject *handle_walk_facts(Handle *self, PyObject *const *args, Py_ssize_t nargs)
{
    static const signature to = {"_walk_facts", 2, 2, 2, {"bucket", "prefix"}};
    return walk_prefix(self, &to, args, nargs, facts_of);
}

static PyObject *walk_range(Handle *self, const signature *to, PyObject *const *args, Py_ssize_t nargs, make_one make)
{
    PyObject *given[3];
    walk at = {.with_values = true, .filter = {.kind = KEYS_ALL, .prefix.len = -1}};
    key_filter *filter = &at.filter;
    if (!args_bind(to, args, nargs, NULL, given) || !bound_parse(given[1], "start", &filter->start)
        || !bound_parse(given[2], "stop", &filter->stop) || !filter_kind(filter, &filter->start)
        || !filter_kind(filter, &filter->stop) || !walk_on(self, given[0], &at))
        return NULL;
    return walked(self, &at, make);
}

PyObject *handle_walk_items(Handle *self, PyObject *const *args, Py_ssize_t nargs)
{
    static const signature to = {"_walk_items", 3, 3, 3, {"bucket", "start", "stop"}};
    return walk_range(self, &to, args, nargs, item_of);
}

PyObject *handle_walk_records(Handle *self, PyObject *const *args, Py_ssize_t nargs)
{
    static const signature to = {"_walk_records", 3, 3, 3, {"bucket", "start", "stop"}};
    return walk_range(self, &to, args, nargs, record_of);
}

Py_ssize_t handle_length(Handle *self)
{
    skv *store = handle_enter(self);
    if (!store)
        return -1;
    uint64_t items;
    Py_BEGIN_ALLOW_THREADS
    items = skv_count_items(store);
    Py_END_ALLOW_THREADS
    const bool cut = !skv_is_whole(store);
    handle_leave(self);
    if (cut) {
        skv_raise_status(self->state, SKV_CORRUPT);
        return -1;
    }
    return items > PY_SSIZE_T_MAX ? PY_SSIZE_T_MAX : (Py_ssize_t)items;
}
