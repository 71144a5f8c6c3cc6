/* writes.c: writing one key: put, add, replace, cas, incr, touch, delete. */
#include "args.h"
#include "handle.h"
#include "storing.h"
#include "values.h"
#include "writing.h"

#include "../read.h"

/* ---- Storing --------------------------------------------------------------------------- */

static skv_status store_step(skv *store, void *context, skv_wait *wait)
{
    storing_job *job = context;
    return skv_put(store, &job->item, job->condition, job->version, wait);
}

int storing_run(Handle *handle, const key_text *key, const skv_encoded *value, uint64_t ttl_ms, storing_job *job)
{
    skv *store = handle_enter(handle);
    if (!store)
        return SKV_RAISED;
    job->item = (skv_item){
        .key = skv_hash_key(store, key->data, key->len, key->is_bytes),
        .value = value->data,
        .value_len = value->len,
        .type = value->type,
        .expires_ms = skv_unlikely(ttl_ms) ? skv_now_ms(store) + ttl_ms : job->item.expires_ms,
        .tell = job->item.tell,
    };
    skv_prefetch_bucket(store, &job->item.key);
    int status = writing_run(handle, store, store_step, job, value->len >= SKV_LONG_VALUE);
    handle_leave(handle);
    return status;
}

/* What put, add, replace and cas were given; ttl and content_type may be NULL. */
typedef struct request {
    PyObject *key, *value, *ttl, *content_type;
} request;

typedef bool value_encoder(Handle *handle, PyObject *value, PyObject *content_type, skv_encoded *out);

/* Parses, encodes, stores: a status, SKV_RAISED included.  Inline, so that a put does not pay for the choice. */
static inline int store_value_by(value_encoder *encode, Handle *self, const request *given, storing_job *job)
{
    key_text key;
    uint64_t ttl_ms;
    skv_encoded value;
    if (!handle_may_write(self) || key_parse(self->state, given->key, KEY_TO_STORE, &key) != KEY_GIVEN
        || !ttl_parse(given->ttl, &ttl_ms) || !encode(self, given->value, given->content_type, &value))
        return SKV_RAISED;
    int status = storing_run(self, &key, &value, ttl_ms, job);
    if (skv_unlikely(status > SKV_CONDITION))
        handle_raise_status(self, status);      /* before errno can change                 */
    skv_encoded_clear(&value);
    return skv_unlikely(status > SKV_CONDITION) ? SKV_RAISED : status;
}

static int store_value(Handle *self, const request *given, storing_job *job)
{
    return store_value_by(value_encode_typed, self, given, job);
}

static PyObject *put(Handle *self, const signature *to, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *given[4];
    if (!args_bind(to, args, nargs, kwnames, given))
        return NULL;
    storing_job job = {.condition = SKV_PUT_ANY};
    int status = store_value(self, &(request){given[0], given[1], given[2], given[3]}, &job);
    if (skv_unlikely(status != SKV_OK))
        return handle_raise_status(self, status);
    Py_RETURN_NONE;
}

PyObject *handle_put(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"put", 2, 3, 4, {"key", "value", "ttl", "content_type"}};
    return put(self, &to, args, nargs, kwnames);
}

PyObject *handle_set(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"set", 2, 3, 4, {"key", "value", "ttl", "content_type"}};
    return put(self, &to, args, nargs, kwnames);
}

/* The bool of a call with a condition; "missing" is one that did not hold. */
static PyObject *held(Handle *self, int status)
{
    if (status == SKV_OK)
        Py_RETURN_TRUE;
    if (status == SKV_CONDITION || status == SKV_MISSING)
        Py_RETURN_FALSE;
    return handle_raise_status(self, status);
}

PyObject *handle_add(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"add", 2, 3, 3, {"key", "value", "ttl"}};
    PyObject *given[3];
    if (!args_bind(&to, args, nargs, kwnames, given))
        return NULL;
    storing_job job = {.condition = SKV_PUT_ABSENT};
    return held(self, store_value(self, &(request){given[0], given[1], given[2], NULL}, &job));
}

PyObject *handle_replace(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"replace", 2, 3, 3, {"key", "value", "ttl"}};
    PyObject *given[3];
    if (!args_bind(&to, args, nargs, kwnames, given))
        return NULL;
    storing_job job = {.condition = SKV_PUT_PRESENT};
    return held(self, store_value(self, &(request){given[0], given[1], given[2], NULL}, &job));
}

PyObject *handle_cas(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"cas", 3, 4, 4, {"key", "value", "version", "ttl"}};
    PyObject *given[4];
    storing_job job = {.condition = SKV_PUT_VERSION};
    if (!args_bind(&to, args, nargs, kwnames, given) || !version_parse(given[2], &job.version))
        return NULL;
    request what = {given[0], given[1], given[3], NULL};
    if (job.version)
        return held(self, store_value(self, &what, &job));
    key_text key;           /* no item has version 0, but a wrong call is wrong all the same   */
    uint64_t ttl_ms;
    if (!handle_may_write(self) || key_parse(self->state, what.key, KEY_TO_STORE, &key) != KEY_GIVEN
        || !ttl_parse(what.ttl, &ttl_ms))
        return NULL;
    Py_RETURN_FALSE;
}

/* Any of these, for those who want to know what became of it (the server): None, or (version, replaced). */
PyObject *handle_place(Handle *self, PyObject *const *args, Py_ssize_t nargs)
{
    static const signature to = {"_place", 6, 6, 6, {"key", "value", "ttl", "content_type", "condition", "version"}};
    PyObject *given[6];
    int64_t condition = 0;
    storing_job job = {.item.tell = true};
    if (!args_bind(&to, args, nargs, NULL, given) || !int64_parse(given[4], "condition", &condition)
        || !version_parse(given[5], &job.version))
        return NULL;
    if (condition < SKV_PUT_ANY || condition > SKV_PUT_VERSION)
        return PyErr_Format(PyExc_ValueError, "condition is 0 to %d", SKV_PUT_VERSION);
    job.condition = (enum skv_put_condition)condition;
    int status = store_value_by(value_encode_item, self, &(request){given[0], given[1], given[2], given[3]}, &job);
    if (status == SKV_CONDITION)
        Py_RETURN_NONE;
    if (status != SKV_OK)
        return handle_raise_status(self, status);
    return Py_BuildValue("(KO)", (unsigned long long)job.item.version, job.item.replaced ? Py_True : Py_False);
}

int handle_ass_subscript(Handle *self, PyObject *key, PyObject *value)
{
    if (skv_likely(value != NULL)) {
        storing_job job = {.condition = SKV_PUT_ANY};
        int status = store_value(self, &(request){key, value, NULL, NULL}, &job);
        if (skv_likely(status == SKV_OK))
            return 0;
        handle_raise_status(self, status);
        return -1;
    }
    int status = removing_run_object(self, key);
    if (status == SKV_OK)
        return 0;
    if (status == SKV_MISSING)
        skv_raise_missing(key);
    else
        handle_raise_status(self, status);
    return -1;
}

/* ---- Removing -------------------------------------------------------------------------- */

typedef struct removing_job {
    skv_key key;
    uint64_t version;
} removing_job;

static skv_status remove_step(skv *store, void *context, skv_wait *wait)
{
    removing_job *job = context;
    return skv_delete(store, &job->key, job->version, wait);
}

int removing_run(Handle *handle, const key_text *key, uint64_t version)
{
    skv *store = handle_enter(handle);
    if (!store)
        return SKV_RAISED;
    removing_job job = {skv_hash_key(store, key->data, key->len, key->is_bytes), version};
    int status = writing_run(handle, store, remove_step, &job, false);
    handle_leave(handle);
    return status;
}

/* For calls that only remove or change what is there: a key that cannot be is missing. */
static int parse_present_key(Handle *self, PyObject *object, key_text *key)
{
    if (!handle_may_write(self))
        return SKV_RAISED;
    enum key_result parsed = key_parse(self->state, object, KEY_TO_FIND, key);
    return parsed == KEY_GIVEN ? SKV_OK : parsed == KEY_ABSENT ? SKV_MISSING : SKV_RAISED;
}

int removing_run_object(Handle *handle, PyObject *object)
{
    key_text key;
    int status = parse_present_key(handle, object, &key);
    return status == SKV_OK ? removing_run(handle, &key, 0) : status;
}

PyObject *handle_delete(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *key = args_one("delete", "key", args, nargs, kwnames);
    return key ? held(self, removing_run_object(self, key)) : NULL;
}

PyObject *handle_delete_version(Handle *self, PyObject *const *args, Py_ssize_t nargs)
{
    static const signature to = {"_delete_version", 2, 2, 2, {"key", "version"}};
    PyObject *given[2];
    uint64_t version;
    if (!args_bind(&to, args, nargs, NULL, given) || !version_parse(given[1], &version))
        return NULL;
    key_text key;
    int status = parse_present_key(self, given[0], &key);
    if (status == SKV_OK)
        status = version ? removing_run(self, &key, version) : SKV_CONDITION;
    return held(self, status);
}

/* ---- Counting -------------------------------------------------------------------------- */

typedef struct counting_job {
    skv_key key;
    int64_t delta, create_value, result;
    uint64_t expires_ms;
} counting_job;

static skv_status count_step(skv *store, void *context, skv_wait *wait)
{
    counting_job *job = context;
    return skv_incr(store, &job->key, job->delta, job->create_value, job->expires_ms, &job->result, wait);
}

static bool parse_numbers(PyObject *const *given, bool down, counting_job *job)
{
    int64_t delta = 1, initial = 0;
    if (!int64_parse(given[1], "delta", &delta) || !int64_parse(given[2], "initial", &initial))
        return false;
    if (down ? __builtin_sub_overflow(INT64_C(0), delta, &job->delta) : (job->delta = delta, false)) {
        PyErr_SetString(PyExc_OverflowError, "-delta does not fit in 64 signed bits");
        return false;
    }
    if (__builtin_add_overflow(initial, job->delta, &job->create_value)) {
        PyErr_SetString(PyExc_OverflowError, "initial and delta together do not fit in 64 signed bits");
        return false;
    }
    return true;
}

static PyObject *count_by(Handle *self, PyObject *const *given, bool down)
{
    counting_job job;
    key_text key;
    uint64_t ttl_ms;
    if (!handle_may_write(self) || key_parse(self->state, given[0], KEY_TO_STORE, &key) != KEY_GIVEN
        || !parse_numbers(given, down, &job) || !ttl_parse(given[3], &ttl_ms))
        return NULL;
    skv *store = handle_enter(self);
    if (!store)
        return NULL;
    job.key = skv_hash_key(store, key.data, key.len, key.is_bytes);
    job.expires_ms = ttl_ms ? skv_now_ms(store) + ttl_ms : 0;
    int status = writing_run(self, store, count_step, &job, false);
    handle_leave(self);
    return status == SKV_OK ? PyLong_FromLongLong(job.result) : handle_raise_status(self, status);
}

PyObject *handle_incr(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"incr", 1, 4, 4, {"key", "delta", "initial", "ttl"}};
    PyObject *given[4];
    return args_bind(&to, args, nargs, kwnames, given) ? count_by(self, given, false) : NULL;
}

PyObject *handle_decr(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"decr", 1, 4, 4, {"key", "delta", "initial", "ttl"}};
    PyObject *given[4];
    return args_bind(&to, args, nargs, kwnames, given) ? count_by(self, given, true) : NULL;
}

/* ---- Expiry ---------------------------------------------------------------------------- */

typedef struct expiry_job {
    skv_key key;
    uint64_t expires_ms;
    bool had_expiry;
} expiry_job;

static skv_status expiry_step(skv *store, void *context, skv_wait *wait)
{
    expiry_job *job = context;
    return skv_touch(store, &job->key, job->expires_ms, &job->had_expiry, wait);
}

/* ttl_ms 0 takes the expiry away. */
static int set_expiry(Handle *self, PyObject *object, uint64_t ttl_ms, bool *had_expiry)
{
    key_text key;
    int status = parse_present_key(self, object, &key);
    if (status != SKV_OK)
        return status;
    skv *store = handle_enter(self);
    if (!store)
        return SKV_RAISED;
    expiry_job job = {skv_hash_key(store, key.data, key.len, key.is_bytes), ttl_ms ? skv_now_ms(store) + ttl_ms : 0, false};
    status = writing_run(self, store, expiry_step, &job, false);
    handle_leave(self);
    *had_expiry = job.had_expiry;
    return status;
}

PyObject *handle_touch(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"touch", 2, 2, 2, {"key", "ttl"}};
    PyObject *given[2];
    uint64_t ttl_ms;
    if (!args_bind(&to, args, nargs, kwnames, given) || !ttl_parse(given[1], &ttl_ms))
        return NULL;
    if (!ttl_ms) {
        PyErr_SetString(PyExc_TypeError, "touch() needs a ttl; persist() takes it away");
        return NULL;
    }
    bool had_expiry;
    return held(self, set_expiry(self, given[0], ttl_ms, &had_expiry));
}

PyObject *handle_persist(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *key = args_one("persist", "key", args, nargs, kwnames);
    if (!key)
        return NULL;
    bool had_expiry = false;
    int status = set_expiry(self, key, 0, &had_expiry);
    return held(self, status == SKV_OK && !had_expiry ? SKV_CONDITION : status);
}
