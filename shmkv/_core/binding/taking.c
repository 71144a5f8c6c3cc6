/* taking.c: calls that read and write: pop, setdefault.
 *
 * How:  each reads, lets Python code decode or encode with nothing held, then writes on the condition
 *       that nothing has changed since; if it has, once more.  A value that cannot be decoded stays.
 */
#include "args.h"
#include "handle.h"
#include "reads.h"
#include "storing.h"

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
