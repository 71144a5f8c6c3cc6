/* taking.c: calls that read and write: pop, setdefault, change.
 *
 * How:  each reads, lets Python code decode or encode with nothing held, then writes on the condition
 *       that nothing has changed since; if it has, once more.  A value that cannot be decoded stays.
 */
#include "args.h"
#include "handle.h"
#include "reads.h"
#include "storing.h"

#include <time.h>

/* ---- pop ------------------------------------------------------------------------------- */

/* The decoded value, whose very version is gone; NULL and *missing, or NULL raised. */
static PyObject *take(Handle *self, const key_text *key, bool *missing)
{
    for (;;) {
        fetched item;
        int found = item_fetch(self, key, &item, false);
        *missing = found == 0;
        if (found <= 0)
            return NULL;
        const uint64_t version = item.version;
        PyObject *value = fetched_value(self, &item);
        if (!value)
            return NULL;
        int status = removing_run(self, key, version);
        if (status == SKV_OK)
            return value;
        const bool overtaken = status == SKV_CONDITION || status == SKV_MISSING;
        if (!overtaken)
            handle_raise_status(self, status);
        Py_DECREF(value);
        if (!overtaken)
            return NULL;
    }
}

PyObject *handle_pop(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"pop", 1, 2, 2, {"key", "default"}};
    PyObject *given[2];
    key_text key;
    if (!args_bind(&to, args, nargs, kwnames, given) || !handle_may_write(self))
        return NULL;
    enum key_result parsed = key_parse(self->state, given[0], KEY_TO_FIND, &key);
    if (parsed == KEY_RAISED)
        return NULL;
    bool missing = true;
    PyObject *value = parsed == KEY_GIVEN ? take(self, &key, &missing) : NULL;
    if (value || !missing)
        return value;
    return given[1] ? Py_NewRef(given[1]) : skv_raise_missing(given[0]);
}

/* ---- setdefault ------------------------------------------------------------------------ */

/* What add or an earlier item left under the key, decoded. */
static PyObject *add_or_read(Handle *self, const key_text *key, const skv_encoded *value)
{
    for (;;) {
        storing_job job = {.condition = SKV_PUT_ABSENT};
        int status = storing_run(self, key, value, 0, &job);
        if (status == SKV_OK)
            return value_decode(self, value->type, value->data, value->len);
        if (status != SKV_CONDITION)
            return handle_raise_status(self, status);
        fetched item;
        int found = item_fetch(self, key, &item, false);
        if (found != 0)
            return found < 0 ? NULL : fetched_value(self, &item);
    }
}

PyObject *handle_setdefault(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"setdefault", 1, 2, 2, {"key", "default"}};
    PyObject *given[2];
    key_text key;
    if (!args_bind(&to, args, nargs, kwnames, given) || !handle_may_write(self)
        || key_parse(self->state, given[0], KEY_TO_STORE, &key) != KEY_GIVEN)
        return NULL;
    fetched item;
    int found = item_fetch(self, &key, &item, false);
    if (found != 0)
        return found < 0 ? NULL : fetched_value(self, &item);
    skv_encoded value;
    if (!value_encode(self, given[1] ? given[1] : Py_None, &value))
        return NULL;
    PyObject *stored = add_or_read(self, &key, &value);
    skv_encoded_clear(&value);
    return stored;
}

/* ---- change ---------------------------------------------------------------------------- */

/* Others may be faster for a while, a function that itself changes the item always is. */
#define CHANGE_ROUNDS 64u

typedef struct changing {
    PyObject *key_object, *function, *absent;   /* `absent` NULL: KeyError                     */
    key_text key;
    uint64_t ttl_ms;
    uint32_t rounds;
    double give_up_at;          /* seconds, CLOCK_MONOTONIC                                    */
} changing;

static double monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool parse_change(Handle *self, PyObject *const *given, changing *out)
{
    *out = (changing){.key_object = given[0], .function = given[1], .absent = given[2]};
    if (!handle_may_write(self) || key_parse(self->state, given[0], KEY_TO_STORE, &out->key) != KEY_GIVEN
        || !ttl_parse(given[3], &out->ttl_ms))
        return false;
    if (!PyCallable_Check(given[1])) {
        PyErr_Format(PyExc_TypeError, "function must be callable, not %.200s", Py_TYPE(given[1])->tp_name);
        return false;
    }
    out->give_up_at = monotonic_seconds() + self->lock_timeout;
    return true;
}

/* A copy of the default for each call: a function that appends to a list must not find what it appended before. */
static PyObject *copy_of_default(Handle *self, const changing *change)
{
    if (!change->absent)
        return skv_raise_missing(change->key_object);
    skv_encoded value;
    if (!value_encode(self, change->absent, &value))
        return NULL;
    PyObject *copy = value_decode(self, value.type, value.data, value.len);
    skv_encoded_clear(&value);
    return copy;
}

/* What the function is called with, and in `job` what has to be so still when its answer is stored. */
static PyObject *value_before(Handle *self, const changing *change, storing_job *job)
{
    fetched item;
    int found = item_fetch(self, &change->key, &item, false);
    *job = (storing_job){.condition = SKV_PUT_ABSENT};
    if (found <= 0)
        return found < 0 ? NULL : copy_of_default(self, change);
    job->condition = change->ttl_ms ? SKV_PUT_VERSION : SKV_PUT_SAME;
    job->version = item.version;
    job->item.expires_ms = item.expires_ms;
    return fetched_value(self, &item);
}

/* The function's answer; None would be stored by each that changes a list in place and forgets to return it. */
static PyObject *value_after(const changing *change, PyObject *before)
{
    PyObject *after = PyObject_CallOneArg(change->function, before);
    if (after != Py_None)
        return after;
    Py_DECREF(after);
    PyErr_SetString(PyExc_TypeError, "function returned None, nothing was changed: it has to return the new value, also where "
                                     "it changes its argument in place; put() stores a None");
    return NULL;
}

/* A status, with SKV_OK and *after = the new value; SKV_CONDITION: somebody was faster. */
static int change_once(Handle *self, const changing *change, PyObject **after)
{
    storing_job job;
    skv_encoded value;
    PyObject *before = value_before(self, change, &job);
    *after = before ? value_after(change, before) : NULL;
    Py_XDECREF(before);
    int status = SKV_RAISED;
    if (*after && value_encode(self, *after, &value)) {
        status = storing_run(self, &change->key, &value, change->ttl_ms, &job);
        if (status > SKV_CONDITION)
            handle_raise_status(self, status);  /* before errno can change                     */
        skv_encoded_clear(&value);
    }
    if (status != SKV_OK)
        Py_CLEAR(*after);
    return status > SKV_CONDITION ? SKV_RAISED : status;
}

static bool goes_on(Handle *self, changing *change)
{
    if (PyErr_CheckSignals())
        return false;
    if (++change->rounds < CHANGE_ROUNDS || monotonic_seconds() < change->give_up_at)
        return true;
    skv_raise(self->state, SKV_E_LOCK_TIMEOUT,
              "the item was changed each of %u times while the function ran, for longer than lock_timeout; nothing was changed: "
              "make the function shorter, and see that it does not change the item itself",
              (unsigned int)change->rounds);
    return false;
}

PyObject *handle_change(Handle *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const signature to = {"change", 2, 2, 4, {"key", "function", "default", "ttl"}};
    PyObject *given[4], *after;
    changing change;
    if (!args_bind(&to, args, nargs, kwnames, given) || !parse_change(self, given, &change))
        return NULL;
    for (;;) {
        int status = change_once(self, &change, &after);
        if (status == SKV_OK || status == SKV_RAISED)
            return after;
        if (!goes_on(self, &change))
            return NULL;
    }
}
