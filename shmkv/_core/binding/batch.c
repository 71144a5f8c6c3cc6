/* batch.c: writing many keys at one instant: put_many, delete_many, clear. */
#include "args.h"
#include "collect.h"
#include "handle.h"
#include "values.h"
#include "writing.h"

#include "../read.h"

/* From so many items on the GIL is released at once. */
#define LONG_BATCH 16u

typedef struct batch {
    skv_scratch *scratch;       /* has both arrays                                            */
    skv_item *items;
    skv_encoded *values;        /* put_many only; never moved, see codec.h                     */
    uint32_t count;
    uint32_t removed;
    uint64_t bytes, largest;    /* values' bytes: in all, of one                               */
} batch;

static bool batch_init(Handle *self, batch *to, size_t room, bool with_values)
{
    const size_t items = room * sizeof *to->items, values = with_values ? room * sizeof *to->values : 0;
    *to = (batch){.scratch = skv_scratch_take(&self->scratch, skv_scratch_size(items) + skv_scratch_size(values))};
    if (!to->scratch) {
        PyErr_NoMemory();
        return false;
    }
    to->items = skv_scratch_part(to->scratch, items);
    to->values = with_values ? skv_scratch_part(to->scratch, values) : NULL;
    return true;
}

static void batch_free(Handle *self, batch *done)
{
    for (uint32_t i = 0; done->values && i < done->count; i++)
        skv_encoded_clear(&done->values[i]);
    skv_scratch_give(&self->scratch, done->scratch);
}

/* The seed is the store's, so keys are hashed inside. */
static void hash_keys(const skv *store, batch *all)
{
    for (uint32_t i = 0; i < all->count; i++) {
        skv_key *key = &all->items[i].key;
        *key = skv_hash_key(store, key->data, key->len, key->is_bytes);
    }
}

/* ---- put_many -------------------------------------------------------------------------- */

/* `ttl_ms` (0 = none) waits in expires_ms until the store's clock is at hand. */
static bool add_item(Handle *self, batch *to, PyObject *key_object, PyObject *value_object, PyObject *content_type,
                     uint64_t ttl_ms)
{
    key_text key;
    skv_encoded *value = &to->values[to->count];
    if (key_parse(self->state, key_object, KEY_TO_STORE, &key) != KEY_GIVEN
        || !value_encode_typed(self, value_object, content_type, value))
        return false;
    to->items[to->count++] = (skv_item){
        .key = {.data = key.data, .len = key.len, .is_bytes = key.is_bytes},
        .value = value->data, .value_len = value->len, .type = value->type, .expires_ms = ttl_ms,
    };
    to->bytes += value->len;
    if (value->len > to->largest)
        to->largest = value->len;
    return true;
}

static bool fits(Handle *self, const skv *store, const batch *all)
{
    const uint64_t most = skv_max_value(store);
    if (all->largest > most)
        skv_raise(self->state, SKV_E_VALUE_TOO_LARGE, "a value of %llu bytes is larger than this store takes (%llu)",
                  (unsigned long long)all->largest, (unsigned long long)most);
    else if (all->bytes > most)
        skv_raise(self->state, SKV_E_BATCH_TOO_LARGE, "a batch of %llu bytes is larger than this store takes (%llu): split it",
                  (unsigned long long)all->bytes, (unsigned long long)most);
    else
        return true;
    return false;
}

static skv_status put_many_step(skv *store, void *context, skv_wait *wait)
{
    batch *all = context;
    return skv_put_many(store, all->items, all->count, wait);
}

static void start_ttls(skv *store, batch *all)
{
    uint64_t now = 0;           /* read once, and only if there is an item with a ttl         */
    for (uint32_t i = 0; i < all->count; i++) {
        if (skv_likely(!all->items[i].expires_ms))
            continue;
        now = now ? now : skv_now_ms(store);
        all->items[i].expires_ms += now;
    }
}

static int put_all(Handle *self, batch *all)
{
    if (!all->count)
        return SKV_OK;
    skv *store = handle_enter(self);
    if (!store)
        return SKV_RAISED;
    int status = SKV_RAISED;
    if (fits(self, store, all)) {
        hash_keys(store, all);
        start_ttls(store, all);
        status = writing_run(self, store, put_many_step, all, all->count >= LONG_BATCH || all->bytes >= SKV_LONG_VALUE);
    }
    handle_leave(self);
    if (status == SKV_TOO_LARGE)
        skv_raise(self->state, SKV_E_BATCH_TOO_LARGE, "the batch is larger than this store takes: split it");
    else if (status != SKV_OK)
        skv_raise_status(self->state, status);
    return status == SKV_OK ? SKV_OK : SKV_RAISED;
}

static int put_pairs(Handle *self, const item_pairs *pairs, uint64_t ttl_ms)
{
    batch all;
    if (!batch_init(self, &all, pairs->count, true))
        return SKV_RAISED;
    bool good = true;
    for (size_t i = 0; good && i < pairs->count; i++)
        good = add_item(self, &all, pairs->objects[2 * i], pairs->objects[2 * i + 1], NULL, ttl_ms);
    int status = good ? put_all(self, &all) : SKV_RAISED;
    batch_free(self, &all);
    return status;
}

PyObject *handle_put_many(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"put_many", 1, 2, 2, {"items", "ttl"}};
    PyObject *given[2];
    uint64_t ttl_ms;
    item_pairs pairs;
    if (!args_bind(&to, args, nargs, kwnames, given) || !handle_may_write(self) || !ttl_parse(given[1], &ttl_ms)
        || !collect_pairs(self->state, given[0], &pairs))
        return NULL;
    int status = put_pairs(self, &pairs, ttl_ms);
    free_pairs(&pairs);
    if (status != SKV_OK)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- put_many where each item has more than a key and a value ----------------------------- */

static bool add_tuple(Handle *self, batch *to, PyObject *item)
{
    uint64_t ttl_ms;
    if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 4) {
        PyErr_SetString(PyExc_TypeError, "_put_items() takes tuples (key, value, ttl, content_type)");
        return false;
    }
    return ttl_parse(PyTuple_GET_ITEM(item, 2), &ttl_ms)
        && add_item(self, to, PyTuple_GET_ITEM(item, 0), PyTuple_GET_ITEM(item, 1), PyTuple_GET_ITEM(item, 3), ttl_ms);
}

PyObject *handle_put_items(Handle *self, PyObject *items)
{
    PyObject *tuples = handle_may_write(self) ? collect_keys(self->state, items, "_put_items") : NULL;
    if (!tuples)
        return NULL;
    batch all;
    int status = SKV_RAISED;
    if (batch_init(self, &all, (size_t)PySequence_Fast_GET_SIZE(tuples), true)) {
        bool good = true;
        for (Py_ssize_t i = 0; good && i < PySequence_Fast_GET_SIZE(tuples); i++)
            good = add_tuple(self, &all, PySequence_Fast_ITEMS(tuples)[i]);
        status = good ? put_all(self, &all) : SKV_RAISED;
        batch_free(self, &all);
    }
    Py_DECREF(tuples);
    if (status != SKV_OK)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- delete_many ----------------------------------------------------------------------- */

static skv_status delete_many_step(skv *store, void *context, skv_wait *wait)
{
    batch *all = context;
    return skv_delete_many(store, all->items, all->count, &all->removed, wait);
}

static int delete_all(Handle *self, batch *all)
{
    skv *store = handle_enter(self);
    if (!store)
        return SKV_RAISED;
    hash_keys(store, all);
    int status = all->count ? writing_run(self, store, delete_many_step, all, all->count >= LONG_BATCH) : SKV_OK;
    handle_leave(self);
    if (status != SKV_OK && status != SKV_MISSING)
        skv_raise_status(self->state, status);
    return status == SKV_OK || status == SKV_MISSING ? SKV_OK : SKV_RAISED;
}

/* Keys that no store can hold are left out. */
static bool add_keys(Handle *self, batch *to, PyObject *sequence)
{
    PyObject **objects = PySequence_Fast_ITEMS(sequence);
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(sequence);
    for (Py_ssize_t i = 0; i < n; i++) {
        key_text key;
        enum key_result parsed = key_parse(self->state, objects[i], KEY_TO_FIND, &key);
        if (parsed == KEY_RAISED)
            return false;
        if (parsed == KEY_GIVEN)
            to->items[to->count++] = (skv_item){.key = {.data = key.data, .len = key.len, .is_bytes = key.is_bytes}};
    }
    return true;
}

PyObject *handle_delete_many(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *keys = args_one("delete_many", "keys", args, nargs, kwnames);
    if (!keys || !handle_may_write(self))
        return NULL;
    PyObject *sequence = collect_keys(self->state, keys, "delete_many");
    if (!sequence)
        return NULL;
    batch all;
    int status = SKV_RAISED;
    if (batch_init(self, &all, (size_t)PySequence_Fast_GET_SIZE(sequence), false)) {
        status = add_keys(self, &all, sequence) ? delete_all(self, &all) : SKV_RAISED;
        batch_free(self, &all);
    }
    Py_DECREF(sequence);
    return status == SKV_OK ? PyLong_FromUnsignedLong(all.removed) : NULL;
}

/* ---- clear ----------------------------------------------------------------------------- */

static skv_status clear_step(skv *store, void *Py_UNUSED(context), skv_wait *wait)
{
    return skv_clear(store, wait);
}

PyObject *handle_clear(Handle *self, PyObject *Py_UNUSED(unused))
{
    if (!handle_may_write(self))
        return NULL;
    skv *store = handle_enter(self);
    if (!store)
        return NULL;
    int status = writing_run(self, store, clear_step, NULL, true);
    handle_leave(self);
    if (status != SKV_OK)
        return skv_raise_status(self->state, status);
    Py_RETURN_NONE;
}
