/* batch.c: writing many keys at one instant: put_many, delete_many, clear. */
#include "args.h"
#include "collect.h"
#include "handle.h"
#include "values.h"
#include "writing.h"

#include "../read.h"

/* From so many items on the GIL is released at once. */
#define LONG_BATCH 16u

/* Arrays for so many items of a generator are kept from one call to the next (scratch.h). */
#define ITEM_BYTES (sizeof(skv_item) + sizeof(skv_encoded) + sizeof(PyObject *))
#define USUAL_ROOM ((SKV_SCRATCH_MOST - 3 * SKV_SCRATCH_ALIGN) / ITEM_BYTES)

typedef struct batch {
    skv_scratch *scratch;       /* has all arrays                                             */
    skv_item *items;
    skv_encoded *values;        /* put_many only; see codec.h for how they are moved          */
    PyObject **keys;            /* put_many only: references that keep the keys' bytes        */
    size_t room;                /* items, of each array                                       */
    uint32_t count;
    uint32_t removed;
    uint64_t most;              /* put_many only: bytes that the store takes in one batch     */
    uint64_t bytes, largest;    /* of the items as records in all, of one value               */
    bool is_over;               /* one more item would have been more than `most`             */
} batch;

static bool batch_arrays(Handle *self, batch *to, size_t room, bool with_values)
{
    const size_t items = room * sizeof *to->items;
    const size_t values = with_values ? room * sizeof *to->values : 0;
    const size_t keys = with_values ? room * sizeof *to->keys : 0;
    to->scratch = skv_scratch_take(&self->scratch,
                                   skv_scratch_size(items) + skv_scratch_size(values) + skv_scratch_size(keys));
    if (!to->scratch) {
        PyErr_NoMemory();
        return false;
    }
    to->items = skv_scratch_part(to->scratch, items);
    to->values = with_values ? skv_scratch_part(to->scratch, values) : NULL;
    to->keys = with_values ? skv_scratch_part(to->scratch, keys) : NULL;
    to->room = room;
    return true;
}

/* For keys alone. */
static bool batch_init(Handle *self, batch *to, size_t room)
{
    *to = (batch){.room = 0};
    return batch_arrays(self, to, room, false);
}

static bool batch_init_to_put(Handle *self, batch *to, size_t room)
{
    *to = (batch){.room = 0};
    skv *store = handle_enter(self);
    if (!store)
        return false;
    to->most = skv_max_value(store);
    handle_leave(self);
    return batch_arrays(self, to, room, true);
}

/* Room for one more.  A batch that outgrows what is usual gets all that a batch may need: it is memory only once it is
 * written to. */
static bool batch_make_room(Handle *self, batch *to)
{
    if (skv_likely(to->count < to->room))
        return true;
    if (to->count >= SKV_MAX_BATCH) {
        collect_raise_too_many(self->state);
        return false;
    }
    batch larger = *to;
    if (!batch_arrays(self, &larger, to->room < USUAL_ROOM ? USUAL_ROOM : SKV_MAX_BATCH, true))
        return false;
    memcpy(larger.items, to->items, to->count * sizeof *to->items);
    memcpy(larger.keys, to->keys, to->count * sizeof *to->keys);
    for (uint32_t i = 0; i < to->count; i++) {
        skv_encoded_move(&larger.values[i], &to->values[i]);
        larger.items[i].value = larger.values[i].data;
    }
    skv_scratch_give(&self->scratch, to->scratch);
    *to = larger;
    return true;
}

/* As after batch_init_to_put. */
static void batch_empty(batch *done)
{
    for (uint32_t i = 0; done->values && i < done->count; i++) {
        skv_encoded_clear(&done->values[i]);
        Py_DECREF(done->keys[i]);
    }
    done->count = 0;
    done->bytes = done->largest = 0;
    done->is_over = false;
}

static void batch_free(Handle *self, batch *done)
{
    batch_empty(done);
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

/* An item that makes the batch too large is measured and not kept.  `ttl_ms` (0 = none) waits in expires_ms until the
 * store's clock is at hand.  There is room for it. */
static bool add_item(Handle *self, batch *to, PyObject *key_object, PyObject *value_object, PyObject *content_type,
                     uint64_t ttl_ms)
{
    key_text key;
    skv_encoded *value = &to->values[to->count];
    if (key_parse(self->state, key_object, KEY_TO_STORE, &key) != KEY_GIVEN
        || !value_encode_item(self, value_object, content_type, value))
        return false;
    skv_item *item = &to->items[to->count];
    *item = (skv_item){
        .key = {.data = key.data, .len = key.len, .is_bytes = key.is_bytes},
        .value = value->data, .value_len = value->len, .type = value->type, .expires_ms = ttl_ms,
    };
    to->bytes += skv_item_size(item);
    if (value->len > to->largest)
        to->largest = value->len;
    if (skv_unlikely(to->count > 0 && to->bytes > to->most)) {
        to->is_over = true;
        skv_encoded_clear(value);
        return true;
    }
    to->keys[to->count++] = Py_NewRef(key_object);
    return true;
}

/* Sets the exception if not. */
static bool fits(Handle *self, const batch *all)
{
    if (all->largest > all->most)
        skv_raise(self->state, SKV_E_VALUE_TOO_LARGE, "a value of %llu bytes is larger than this store takes (%llu)",
                  (unsigned long long)all->largest, (unsigned long long)all->most);
    else if (all->is_over)
        skv_raise(self->state, SKV_E_BATCH_TOO_LARGE, "a batch of %llu bytes is larger than this store takes (%llu): split it",
                  (unsigned long long)all->bytes, (unsigned long long)all->most);
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

/* What fits, and all of it. */
static int put_all(Handle *self, batch *all)
{
    if (!all->count)
        return SKV_OK;
    skv *store = handle_enter(self);
    if (!store)
        return SKV_RAISED;
    hash_keys(store, all);
    start_ttls(store, all);
    int status = writing_run(self, store, put_many_step, all, all->count >= LONG_BATCH || all->bytes >= SKV_LONG_VALUE);
    handle_leave(self);
    if (status != SKV_OK)
        handle_raise_status(self, status);
    return status == SKV_OK ? SKV_OK : SKV_RAISED;
}

static bool add_pair(Handle *self, batch *to, PyObject *object, const char *function, size_t nth, uint64_t ttl_ms)
{
    PyObject *pair = collect_pair(object, function, nth);
    if (!pair)
        return false;
    bool good = batch_make_room(self, to)
        && add_item(self, to, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1), NULL, ttl_ms);
    Py_DECREF(pair);
    return good;
}

static bool take_dict(Handle *self, PyObject *dict, batch *to, uint64_t ttl_ms)
{
    item_pairs pairs;
    bool good = collect_dict(self->state, dict, &pairs) && batch_init_to_put(self, to, pairs.count);
    for (size_t i = 0; good && i < pairs.count; i++)
        good = add_item(self, to, pairs.objects[2 * i], pairs.objects[2 * i + 1], NULL, ttl_ms);
    free_pairs(&pairs);
    return good;
}

/* What is in memory already is measured to its end, and a value that is too large found wherever it is; from an
 * iterator nothing is taken any more once it is too much. */
static bool take_pairs(Handle *self, PyObject *items, batch *to, uint64_t ttl_ms)
{
    Py_ssize_t known;
    PyObject *iterator = collect_iterator(self->state, items, &known);
    bool good = iterator && batch_init_to_put(self, to, known >= 0 ? (size_t)known : USUAL_ROOM);
    PyObject *object;
    for (size_t nth = 0; good && (known >= 0 || !to->is_over) && (object = PyIter_Next(iterator)); nth++) {
        good = add_pair(self, to, object, "put_many", nth, ttl_ms);
        Py_DECREF(object);
    }
    Py_XDECREF(iterator);
    return good && !PyErr_Occurred();
}

PyObject *handle_put_many(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"put_many", 1, 2, 2, {"items", "ttl"}};
    PyObject *given[2];
    uint64_t ttl_ms;
    if (!args_bind(&to, args, nargs, kwnames, given) || !handle_may_write(self) || !ttl_parse(given[1], &ttl_ms))
        return NULL;
    batch all = {.room = 0};
    bool good = PyDict_CheckExact(given[0]) ? take_dict(self, given[0], &all, ttl_ms)
                                            : take_pairs(self, given[0], &all, ttl_ms);
    int status = good && fits(self, &all) ? put_all(self, &all) : SKV_RAISED;
    batch_free(self, &all);
    if (status != SKV_OK)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- Pairs without an end: update ------------------------------------------------------- */

/* Fills a batch from `iterator`.  `*next`, a reference or NULL, is the pair to begin with, and afterwards the one that the
 * batch had no room for. */
static bool take_batch(Handle *self, PyObject *iterator, batch *to, PyObject **next)
{
    bool good = true;
    PyObject *object = *next ? *next : PyIter_Next(iterator);
    *next = NULL;
    while (good && object) {
        good = add_pair(self, to, object, "update", to->count, 0);
        if (to->is_over) {
            *next = object;
            break;
        }
        Py_DECREF(object);
        object = good && to->count < SKV_MAX_BATCH ? PyIter_Next(iterator) : NULL;
    }
    return good && !PyErr_Occurred();
}

static int put_batches(Handle *self, PyObject *iterator, batch *all)
{
    PyObject *next = NULL;
    int status = SKV_OK;
    do {
        batch_empty(all);
        bool good = take_batch(self, iterator, all, &next);
        all->is_over = false;           /* the next batch has what was too much for this one      */
        status = good && fits(self, all) ? put_all(self, all) : SKV_RAISED;
    } while (status == SKV_OK && (next || all->count == SKV_MAX_BATCH));
    Py_XDECREF(next);
    return status;
}

/* Each batch is as large as one may be, and stored before more is asked for. */
PyObject *handle_put_batches(Handle *self, PyObject *pairs)
{
    PyObject *iterator = handle_may_write(self) ? PyObject_GetIter(pairs) : NULL;
    if (!iterator)
        return NULL;
    batch all = {.room = 0};
    int status = batch_init_to_put(self, &all, USUAL_ROOM) ? put_batches(self, iterator, &all) : SKV_RAISED;
    batch_free(self, &all);
    Py_DECREF(iterator);
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
    if (batch_init_to_put(self, &all, (size_t)PySequence_Fast_GET_SIZE(tuples))) {
        bool good = true;
        for (Py_ssize_t i = 0; good && i < PySequence_Fast_GET_SIZE(tuples); i++)
            good = add_tuple(self, &all, PySequence_Fast_ITEMS(tuples)[i]);
        status = good && fits(self, &all) ? put_all(self, &all) : SKV_RAISED;
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
        handle_raise_status(self, status);
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
    if (batch_init(self, &all, (size_t)PySequence_Fast_GET_SIZE(sequence))) {
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
        return handle_raise_status(self, status);
    Py_RETURN_NONE;
}
