/* reads.c: reading one key: get, [], in, gets, ttl, content_type.  See reads.h. */
#include "reads.h"

#include <stdlib.h>

#include "../read.h"
#include "handle.h"
#include "values.h"

/* ---- Copying out ----------------------------------------------------------------------- */

static void copy_long(void *to, const uint8_t *from, size_t len)
{
    Py_BEGIN_ALLOW_THREADS
    skv_copy_racy(to, from, len);
    Py_END_ALLOW_THREADS
}

void copy_from_region(void *to, const uint8_t *from, size_t len)
{
    if (skv_unlikely(len >= SKV_LONG_VALUE))
        copy_long(to, from, len);
    else
        skv_copy_racy(to, from, len);
}

static inline enum copy_result copy_bytes(const skv_view *view, fetched *out)
{
    out->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)out->len);
    if (skv_unlikely(!out->bytes))
        return COPY_NO_MEMORY;
    copy_from_region(PyBytes_AS_STRING(out->bytes), view->value, out->len);
    return COPY_DONE;
}

static enum copy_result copy_raw(const skv_view *view, fetched *out, bool frozen)
{
    out->data = out->len <= sizeof out->small ? out->small : malloc(out->len);
    if (!out->data)
        return COPY_NO_MEMORY;
    if (frozen)
        skv_copy_racy(out->data, view->value, out->len);
    else
        copy_from_region(out->data, view->value, out->len);
    return COPY_DONE;
}

static inline enum copy_result copy_out(const skv_view *view, fetched *out, bool frozen)
{
    if (skv_unlikely(view->value_len > SKV_TRUSTED_LENGTH) && !skv_validate(view))
        return COPY_TORN;
    out->version = view->version;
    out->expires_ms = view->expires_ms;
    out->type = view->type;
    out->len = view->value_len;
    out->bytes = NULL;
    return skv_likely(view->type == SKV_T_BYTES && !frozen) ? copy_bytes(view, out) : copy_raw(view, out, frozen);
}

void fetched_drop(fetched *item)
{
    if (item->bytes)
        Py_DECREF(item->bytes);
    else if (item->data != item->small)
        free(item->data);
}

PyObject *fetched_value(Handle *handle, fetched *item)
{
    if (skv_likely(item->bytes != NULL))
        return item->bytes;
    PyObject *value = value_decode(handle, item->type, item->data, item->len);
    if (item->data != item->small)
        free(item->data);
    return value;
}

/* ---- Fetching -------------------------------------------------------------------------- */

enum { FETCH_AGAIN = 2 };

/* 1 and a copy, 0 for a miss, -1 without memory, or FETCH_AGAIN. */
static inline int fetch_once(skv *store, const skv_key *key, skv_view *view, fetched *out, bool frozen)
{
    skv_find(store, key, view);
    if (!view->record)
        return skv_likely(skv_validate(view)) ? 0 : FETCH_AGAIN;
    enum copy_result copied = copy_out(view, out, frozen);
    if (skv_unlikely(copied != COPY_DONE))
        return copied == COPY_TORN ? FETCH_AGAIN : -1;
    const bool valid = skv_validate(view);
    if (skv_likely(valid && !skv_is_expired(store, view->expires_ms))) {
        skv_warm(store, view);
        return 1;
    }
    fetched_drop(out);
    return valid ? 0 : FETCH_AGAIN;
}

static int fetch_again(skv *store, const skv_key *key, skv_view *view, fetched *out)
{
    int found = FETCH_AGAIN;
    for (uint32_t tries = 0; found == FETCH_AGAIN; tries++) {
        skv_relax(store, view, tries);
        const bool freeze = tries >= SKV_READ_TRIES;
        skv_frozen *frozen = freeze ? skv_freeze(store, key, 1) : NULL;
        found = fetch_once(store, key, view, out, freeze);
        skv_thaw(store, frozen);
    }
    return found;
}

static inline int fetch_inside(skv *store, const skv_key *key, fetched *out)
{
    skv_view view;
    int found = fetch_once(store, key, &view, out, false);
    if (skv_unlikely(found == FETCH_AGAIN))
        found = fetch_again(store, key, &view, out);
    if (skv_unlikely(found < 0))
        PyErr_NoMemory();
    return found;
}

static inline int fetch(Handle *handle, const key_text *text, fetched *out, bool counted)
{
    skv *store = handle_enter(handle);
    if (skv_unlikely(!store))
        return -1;
    skv_key key = skv_hash_key(store, text->data, text->len, text->is_bytes);
    int found = fetch_inside(store, &key, out);
    if (skv_unlikely(found == 0 && !skv_is_whole(store))) {
        handle_leave(handle);
        skv_raise_status(handle->state, SKV_CORRUPT);
        return -1;
    }
    if (counted && found >= 0 && skv_likely(!handle->read_only))
        skv_count(store, found ? SKV_HITS : SKV_MISSES, 1, SKV_FREE_THREADED);
    handle_leave(handle);
    return found;
}

int item_fetch(Handle *handle, const key_text *key, fetched *out, bool counted)
{
    return fetch(handle, key, out, counted);
}

/* As item_fetch for any object; a key that no store can hold is not there. */
static inline int fetch_object(Handle *handle, PyObject *object, fetched *out)
{
    key_text text;
    enum key_result parsed = key_parse(handle->state, object, KEY_TO_FIND, &text);
    if (skv_unlikely(parsed != KEY_GIVEN))
        return parsed == KEY_ABSENT && handle_is_open(handle) ? 0 : -1;
    return fetch(handle, &text, out, true);
}

/* ---- Values ---------------------------------------------------------------------------- */

PyObject *handle_get(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature get = {"get", 1, 2, 2, {"key", "default"}};
    PyObject *given[2];
    if (skv_unlikely(!args_bind(&get, args, nargs, kwnames, given)))
        return NULL;
    fetched item;
    int found = fetch_object(self, given[0], &item);
    if (skv_likely(found > 0))
        return fetched_value(self, &item);
    return found < 0 ? NULL : Py_NewRef(given[1] ? given[1] : Py_None);
}

PyObject *handle_subscript(Handle *self, PyObject *key)
{
    fetched item;
    int found = fetch_object(self, key, &item);
    if (skv_likely(found > 0))
        return fetched_value(self, &item);
    return found < 0 ? NULL : skv_raise_missing(key);
}

static PyStructSequence_Field versioned_fields[] = {
    {"value", "what is stored"},
    {"version", "for cas: changes with every change of the value"},
    {NULL, NULL},
};

PyStructSequence_Desc skv_versioned_desc = {
    "shmkv.Versioned", "Versioned(value, version), as gets() returns it.", versioned_fields, 2,
};

PyObject *handle_gets(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *key = args_one("gets", "key", args, nargs, kwnames);
    if (!key)
        return NULL;
    fetched item;
    int found = fetch_object(self, key, &item);
    if (found <= 0)
        return found < 0 ? NULL : skv_raise_missing(key);
    PyObject *value = fetched_value(self, &item);
    PyObject *version = value ? PyLong_FromUnsignedLongLong(item.version) : NULL;
    PyObject *pair = version ? PyStructSequence_New(self->state->versioned_type) : NULL;
    if (!pair) {
        Py_XDECREF(value);
        Py_XDECREF(version);
        return NULL;
    }
    PyStructSequence_SetItem(pair, 0, value);
    PyStructSequence_SetItem(pair, 1, version);
    return pair;
}

/* ---- Facts about an item, without its value --------------------------------------------- */

typedef struct item_facts {
    uint64_t expires_ms, now_ms;
    uint8_t type;
    uint32_t head_len;
    uint8_t head[256];          /* the value's first bytes: a content type and its length       */
} item_facts;

static bool facts_inside(skv *store, const skv_key *key, item_facts *out)
{
    for (uint32_t tries = 0;; tries++) {
        skv_view view;
        skv_find(store, key, &view);
        if (view.record) {
            out->expires_ms = view.expires_ms;
            out->type = view.type;
            out->head_len = view.value_len < sizeof out->head ? view.value_len : (uint32_t)sizeof out->head;
            if (view.type == SKV_T_BYTES_TYPED)
                skv_copy_racy(out->head, view.value, out->head_len);
        }
        if (skv_likely(skv_validate(&view))) {
            if (!view.record)
                return false;
            out->now_ms = out->expires_ms ? skv_now_ms(store) : 0;
            return !out->expires_ms || out->now_ms < out->expires_ms;
        }
        skv_relax(store, &view, tries);
    }
}

/* 1, 0 or -1, as item_fetch. */
static int fetch_facts(Handle *handle, PyObject *object, item_facts *out)
{
    key_text text;
    enum key_result parsed = key_parse(handle->state, object, KEY_TO_FIND, &text);
    if (parsed != KEY_GIVEN)
        return parsed == KEY_ABSENT && handle_is_open(handle) ? 0 : -1;
    skv *store = handle_enter(handle);
    if (!store)
        return -1;
    skv_key key = skv_hash_key(store, text.data, text.len, text.is_bytes);
    bool found = facts_inside(store, &key, out), cut = !found && !skv_is_whole(store);
    handle_leave(handle);
    if (cut)
        skv_raise_status(handle->state, SKV_CORRUPT);
    return cut ? -1 : found;
}

int handle_contains(Handle *self, PyObject *key)
{
    item_facts facts;
    return fetch_facts(self, key, &facts);
}

PyObject *handle_ttl(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *key = args_one("ttl", "key", args, nargs, kwnames);
    if (!key)
        return NULL;
    item_facts facts;
    int found = fetch_facts(self, key, &facts);
    if (found <= 0)
        return found < 0 ? NULL : skv_raise_missing(key);
    if (!facts.expires_ms)
        Py_RETURN_NONE;
    return PyFloat_FromDouble((double)(facts.expires_ms - facts.now_ms) / 1000.0);
}

PyObject *handle_content_type(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *key = args_one("content_type", "key", args, nargs, kwnames);
    if (!key)
        return NULL;
    item_facts facts;
    int found = fetch_facts(self, key, &facts);
    if (found < 0)
        return NULL;
    if (!found || facts.type != SKV_T_BYTES_TYPED || !facts.head_len || facts.head[0] >= facts.head_len)
        Py_RETURN_NONE;
    return PyUnicode_DecodeLatin1((const char *)facts.head + 1, facts.head[0], NULL);
}
