/* args.c: see args.h. */
#include "args.h"

#include <datetime.h>
#include <math.h>

/* ---- Positions and names --------------------------------------------------------------- */

static bool refuse(const signature *to, const char *problem, PyObject *name)
{
    if (name)
        PyErr_Format(PyExc_TypeError, "%s() %s '%S'", to->function, problem, name);
    else
        PyErr_Format(PyExc_TypeError, "%s() %s", to->function, problem);
    return false;
}

static bool bind_keyword(const signature *to, PyObject *name, PyObject *value, PyObject **out)
{
    for (Py_ssize_t i = 0; i < to->total; i++) {
        if (PyUnicode_CompareWithASCIIString(name, to->names[i]) != 0)
            continue;
        if (out[i])
            return refuse(to, "got multiple values for argument", name);
        out[i] = value;
        return true;
    }
    return refuse(to, "got an unexpected keyword argument", name);
}

bool args_bind_named(const signature *to, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **out)
{
    if (nargs > to->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd positional arguments (%zd given)", to->function,
                     to->positional, nargs);
        return false;
    }
    for (Py_ssize_t i = 0; i < to->total; i++)
        out[i] = i < nargs ? args[i] : NULL;
    Py_ssize_t named = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t i = 0; i < named; i++)
        if (!bind_keyword(to, PyTuple_GET_ITEM(kwnames, i), args[nargs + i], out))
            return false;
    for (Py_ssize_t i = 0; i < to->required; i++) {
        if (!out[i]) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s'", to->function, to->names[i]);
            return false;
        }
    }
    return true;
}

/* ---- Keys ------------------------------------------------------------------------------ */

static enum key_result parse_str(PyObject *key, enum key_use use, const char **data, Py_ssize_t *len)
{
    *data = PyUnicode_AsUTF8AndSize(key, len);
    if (*data)
        return KEY_GIVEN;
    if (use == KEY_TO_STORE || !PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        return KEY_RAISED;
    PyErr_Clear();          /* lone surrogates: no key has them                                */
    return KEY_ABSENT;
}

/* Neither str nor bytes: as in a dict, what cannot be hashed is an error everywhere. */
static enum key_result parse_other(PyObject *key, enum key_use use)
{
    if (PyObject_Hash(key) == -1)
        return KEY_RAISED;
    if (use == KEY_TO_FIND)
        return KEY_ABSENT;
    PyErr_Format(PyExc_TypeError, "a key must be str or bytes, not %.200s", Py_TYPE(key)->tp_name);
    return KEY_RAISED;
}

enum key_result key_parse_slow(module_state *state, PyObject *key, enum key_use use, key_text *out)
{
    const char *data;
    Py_ssize_t len;
    bool is_bytes = PyBytes_Check(key);
    if (is_bytes) {
        data = PyBytes_AS_STRING(key);
        len = PyBytes_GET_SIZE(key);
    } else {
        enum key_result result = PyUnicode_Check(key) ? parse_str(key, use, &data, &len) : parse_other(key, use);
        if (result != KEY_GIVEN)
            return result;
    }
    if (len > (Py_ssize_t)SKV_MAX_KEY) {
        if (use == KEY_TO_FIND)
            return KEY_ABSENT;
        skv_raise(state, SKV_E_KEY_TOO_LARGE, "a key takes at most %u bytes as UTF-8, this one has %zd", SKV_MAX_KEY, len);
        return KEY_RAISED;
    }
    *out = (key_text){data, (uint32_t)len, is_bytes};
    return KEY_GIVEN;
}

bool bound_parse(PyObject *bound, const char *what, bound_text *out)
{
    *out = (bound_text){NULL, -1, false};
    if (bound == Py_None)
        return true;
    if (PyBytes_Check(bound)) {
        *out = (bound_text){PyBytes_AS_STRING(bound), PyBytes_GET_SIZE(bound), true};
        return true;
    }
    if (PyUnicode_Check(bound)) {
        out->data = PyUnicode_AsUTF8AndSize(bound, &out->len);
        return out->data != NULL;
    }
    PyErr_Format(PyExc_TypeError, "%s must be str, bytes or None, not %.200s", what, Py_TYPE(bound)->tp_name);
    return false;
}

PyObject *key_as_base(PyObject *key)
{
    if (PyUnicode_CheckExact(key) || PyBytes_CheckExact(key))
        return Py_NewRef(key);
    if (PyUnicode_Check(key))
        return PyUnicode_FromObject(key);
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key));
}

PyObject *key_from_record(module_state *state, const uint8_t *data, uint32_t len, bool is_bytes)
{
    if (is_bytes)
        return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
    PyObject *key = PyUnicode_DecodeUTF8((const char *)data, (Py_ssize_t)len, NULL);
    if (!key && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        skv_raise_from(state, SKV_E_CORRUPT, "the store is damaged: the key of an item is not UTF-8");
    return key;
}

/* ---- Numbers and times ----------------------------------------------------------------- */

static bool ttl_out_of_range(void)
{
    PyErr_SetString(PyExc_ValueError, "ttl must be more than 0 and at most 30 years (946,728,000 seconds)");
    return false;
}

/* Days are checked first: a timedelta may have 10^9 of them, whose microseconds overflow. */
static bool ttl_from_timedelta(PyObject *ttl, uint64_t *ms)
{
    int64_t days = PyDateTime_DELTA_GET_DAYS(ttl);
    if (days < 0 || days > 30 * 366)
        return ttl_out_of_range();
    int64_t us = (days * 86400 + PyDateTime_DELTA_GET_SECONDS(ttl)) * 1000000 + PyDateTime_DELTA_GET_MICROSECONDS(ttl);
    if (us == 0 || us > (int64_t)(SKV_MAX_TTL_MS * 1000))
        return ttl_out_of_range();
    *ms = ((uint64_t)us + 999) / 1000;
    return true;
}

static bool ttl_from_int(PyObject *ttl, uint64_t *ms)
{
    int overflow;
    long long seconds = PyLong_AsLongLongAndOverflow(ttl, &overflow);
    if (seconds == -1 && PyErr_Occurred())
        return false;
    if (overflow || seconds <= 0 || seconds > (long long)(SKV_MAX_TTL_MS / 1000))
        return ttl_out_of_range();
    *ms = (uint64_t)seconds * 1000;
    return true;
}

/* Up to the next millisecond, less what is only the rounding of a product (0.07 * 1000 > 70). */
static bool ttl_from_float(double seconds, uint64_t *ms)
{
    if (!(seconds > 0 && seconds <= (double)(SKV_MAX_TTL_MS / 1000)))      /* NaN is neither     */
        return ttl_out_of_range();
    double whole = ceil(seconds * 1000 - 1e-6);
    *ms = whole < 1 ? 1 : (uint64_t)whole;
    return true;
}

bool ttl_parse(PyObject *ttl, uint64_t *ms)
{
    *ms = 0;
    if (!ttl || ttl == Py_None)
        return true;
    if (PyFloat_Check(ttl))
        return ttl_from_float(PyFloat_AS_DOUBLE(ttl), ms);
    if (PyLong_Check(ttl) && !PyBool_Check(ttl))
        return ttl_from_int(ttl, ms);
    if (PyDelta_Check(ttl))
        return ttl_from_timedelta(ttl, ms);
    PyErr_Format(PyExc_TypeError, "ttl must be seconds as int or float, a timedelta, or None, not %.200s",
                 Py_TYPE(ttl)->tp_name);
    return false;
}

bool int64_parse(PyObject *number, const char *what, int64_t *out)
{
    if (!number)
        return true;
    if (!PyLong_CheckExact(number)) {
        PyErr_Format(PyExc_TypeError, "%s must be an int, not %.200s", what, Py_TYPE(number)->tp_name);
        return false;
    }
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow) {
        PyErr_Format(PyExc_OverflowError, "%s does not fit in 64 signed bits", what);
        return false;
    }
    *out = (int64_t)value;
    return true;
}

bool version_parse(PyObject *number, uint64_t *out)
{
    *out = 0;
    if (!PyLong_Check(number)) {
        PyErr_Format(PyExc_TypeError, "version must be an int, as gets() returns it, not %.200s", Py_TYPE(number)->tp_name);
        return false;
    }
    unsigned long long version = PyLong_AsUnsignedLongLong(number);
    if (version == (unsigned long long)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return false;
        PyErr_Clear();
        version = 0;
    }
    *out = version;
    return true;
}

bool args_init(void)
{
    PyDateTime_IMPORT;
    return PyDateTimeAPI != NULL;
}
