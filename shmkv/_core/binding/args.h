/* args.h: arguments: positions and names, keys, times to live, whole numbers.
 *
 * How: METH_FASTCALL by hand, because PyArg_ParseTuple costs more than a whole lookup.  The usual
 *      call (no keywords) is inline; the rest is in args.c.
 */
#ifndef SKV_ARGS_H
#define SKV_ARGS_H

#include "binding.h"

/* ---- Positions and names --------------------------------------------------------------- */

#define SKV_MAX_ARGS 6

typedef struct signature {
    const char *function;
    Py_ssize_t required, positional, total;     /* the first `positional` may go without name  */
    const char *names[SKV_MAX_ARGS];
} signature;

bool args_bind_named(const signature *to, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **out);

/* Fills out[0..total), NULL where nothing was given. */
static inline bool args_bind(const signature *to, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                             PyObject **out)
{
    if (skv_unlikely(kwnames || nargs < to->required || nargs > to->positional))
        return args_bind_named(to, args, nargs, kwnames, out);
    for (Py_ssize_t i = 0; i < to->total; i++)
        out[i] = i < nargs ? args[i] : NULL;
    return true;
}

/* The one argument of `function(name)`; NULL with TypeError. */
static inline PyObject *args_one(const char *function, const char *name, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames)
{
    if (skv_likely(!kwnames && nargs == 1))
        return args[0];
    const signature to = {function, 1, 1, 1, {name}};
    PyObject *given[1];
    return args_bind_named(&to, args, nargs, kwnames, given) ? given[0] : NULL;
}

/* ---- Keys ------------------------------------------------------------------------------ */

enum key_use { KEY_TO_STORE, KEY_TO_FIND };
enum key_result { KEY_RAISED = -1, KEY_ABSENT = 0, KEY_GIVEN = 1 };

/* A key's bytes, owned by its object; hashed once the store is entered. */
typedef struct key_text {
    const char *data;
    uint32_t len;
    bool is_bytes;
} key_text;

enum key_result key_parse_slow(module_state *state, PyObject *key, enum key_use use, key_text *out);

/* KEY_ABSENT (with KEY_TO_FIND only): no store can hold it, nothing is raised. */
static inline enum key_result key_parse(module_state *state, PyObject *key, enum key_use use, key_text *out)
{
    if (skv_likely(PyUnicode_CheckExact(key) && PyUnicode_IS_COMPACT_ASCII(key)
                   && PyUnicode_GET_LENGTH(key) <= (Py_ssize_t)SKV_MAX_KEY)) {
        *out = (key_text){(const char *)PyUnicode_1BYTE_DATA(key), (uint32_t)PyUnicode_GET_LENGTH(key), false};
        return KEY_GIVEN;
    }
    return key_parse_slow(state, key, use, out);
}

/* A str or bytes that is compared with keys but need not be one (any length); None gives len -1. */
typedef struct bound_text {
    const char *data;
    Py_ssize_t len;
    bool is_bytes;
} bound_text;
bool bound_parse(PyObject *bound, const char *what, bound_text *out);

/* The key as an exact str or bytes, as dicts that are handed out have it. */
PyObject *key_as_base(PyObject *key);
/* The key that a record holds; invalid UTF-8 (a damaged region) is CorruptStoreError. */
PyObject *key_from_record(module_state *state, const uint8_t *data, uint32_t len, bool is_bytes);

/* ---- Numbers and times ----------------------------------------------------------------- */

#define SKV_MAX_TTL_MS (UINT64_C(946728000) * 1000)     /* 30 years of 365.25 days              */

/* NULL and None: 0, no expiry.  Else milliseconds, rounded up. */
bool ttl_parse(PyObject *ttl, uint64_t *ms);
/* An exact int of signed 64 bits; NULL leaves *out. */
bool int64_parse(PyObject *number, const char *what, int64_t *out);
/* 0 where no item can have that version. */
bool version_parse(PyObject *number, uint64_t *out);
bool args_init(void);       /* the C API of datetime                                           */

#endif
