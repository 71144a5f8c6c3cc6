/* encode.c: the "safe" codec, from a value to bytes; codec_format.h has the format.
 *
 * How:  only exact types are taken: a subclass would come back as its base, so it is refused.
 *       Encoding a bytes or str keeps the object and copies nothing; scalars fit skv_encoded.small;
 *       all else is written to a buffer that starts in `small` and moves to the heap when it grows.
 *       A refusal unwinds without an exception set and collects the path to the culprit on its way,
 *       so that the path costs nothing when nothing is wrong.
 *
 * Concurrency: needs the GIL, or an attached thread state where there is none.  Zones and collected
 * garbage may run Python code in the middle of an encoding, and other threads may change a
 * container; so items are held by strong references, sizes are checked again, and a container that
 * changed raises RuntimeError as iteration over it would.  Where there is no GIL, lists are read by
 * PyList_GetItemRef, dicts in a critical section.  The names cached below belong to the main
 * interpreter; subinterpreters are not served.
 */
#define PY_SSIZE_T_CLEAN
#include "codec.h"

#include <datetime.h>
#include <string.h>

#include "codec_format.h"
#include "zones.h"

#define SHOWN_PATH       200    /* characters; a deep or cyclic value has a long one          */

/* Critical sections came with 3.13; before it there always is a GIL. */
#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

int skv_encode_init(void)
{
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}

/* ---- The writer ---------------------------------------------------------------------- */

typedef struct writer {
    uint8_t *data;              /* out->small, or out->heap                                   */
    size_t len;
    size_t cap;                 /* len <= cap <= SKV_MAX_VALUE                                */
    unsigned depth;             /* open containers                                            */
    skv_encoded *out;
    PyObject *refused;          /* what is not taken, or NULL; then no exception is set       */
    PyObject *path;             /* where it is, or NULL for the value itself                  */
} writer;

static int raise_too_large(void)
{
    PyErr_SetString(PyExc_ValueError, "value too large: at most 4 GiB - 1 encoded");
    return -1;
}

static int grow(writer *w, size_t more)
{
    if (more > SKV_MAX_VALUE - w->len) {
        return raise_too_large();
    }
    size_t needed = w->len + more;
    size_t cap = w->cap * 2 > needed ? w->cap * 2 : needed * 2;
    if (cap > SKV_MAX_VALUE) {
        cap = SKV_MAX_VALUE;
    }
    uint8_t *heap = PyMem_RawRealloc(w->out->heap, cap);
    if (heap == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (w->out->heap == NULL) {
        memcpy(heap, w->out->small, w->len);
    }
    w->out->heap = heap;
    w->data = heap;
    w->cap = cap;
    return 0;
}

static inline int reserve(writer *w, size_t more)
{
    return more <= w->cap - w->len ? 0 : grow(w, more);
}

/* A type byte and a fixed payload of `bytes` bytes. */
static inline int write_fixed(writer *w, uint8_t type, uint64_t value, uint32_t bytes)
{
    if (reserve(w, 1 + bytes) < 0) {
        return -1;
    }
    w->data[w->len] = type;
    skv_put_little(w->data + w->len + 1, value, bytes);
    w->len += 1 + bytes;
    return 0;
}

static inline int write_varint(writer *w, size_t value)
{
    if (value > SKV_MAX_VALUE) {
        return raise_too_large();
    }
    if (reserve(w, MAX_VARINT) < 0) {
        return -1;
    }
    w->len += put_varint(w->data + w->len, value);
    return 0;
}

static inline int write_bytes(writer *w, const void *data, size_t len)
{
    if (reserve(w, len) < 0) {
        return -1;
    }
    memcpy(w->data + w->len, data, len);
    w->len += len;
    return 0;
}

static inline int write_sized(writer *w, uint8_t type, const void *data, size_t len)
{
    if (write_fixed(w, type, 0, 0) < 0 || write_varint(w, len) < 0) {
        return -1;
    }
    return write_bytes(w, data, len);
}

/* ---- Refusals ------------------------------------------------------------------------ */

/* Always -1.  Sets no exception (unless memory fails), so that the path can still be built. */
static int refuse(writer *w, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    w->refused = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    return -1;
}

/* Puts `step` (stolen) before the path.  A path that lacks a step is still better than a
 * MemoryError in place of the refusal. */
static void prepend_step(writer *w, PyObject *step)
{
    if (step == NULL) {
        PyErr_Clear();
        return;
    }
    if (w->path == NULL) {
        w->path = step;
        return;
    }
    PyObject *longer = PyUnicode_Concat(step, w->path);
    Py_DECREF(step);
    if (longer == NULL) {
        PyErr_Clear();
        return;
    }
    Py_SETREF(w->path, longer);
}

static void at_index(writer *w, Py_ssize_t index)
{
    if (w->refused != NULL) {
        prepend_step(w, PyUnicode_FromFormat("[%zd]", index));
    }
}

static void at_key(writer *w, PyObject *key)
{
    if (w->refused == NULL) {
        return;
    }
    PyObject *step = PyUnicode_FromFormat("[%.40R]", key);
    if (step == NULL) {         /* an int of more digits than sys.set_int_max_str_digits allows */
        PyErr_Clear();
        step = PyUnicode_FromString("[...]");
    }
    prepend_step(w, step);
}

static void at_text(writer *w, const char *step)
{
    if (w->refused != NULL) {
        prepend_step(w, PyUnicode_FromString(step));
    }
}

static void raise_refused(PyObject *what, PyObject *path)
{
    const char *advice = "use codec=\"pickle\" or convert it";
    if (path == NULL) {
        PyErr_Format(PyExc_TypeError, "codec=\"safe\" does not take %U: %s", what, advice);
        return;
    }
    const char *more = PyUnicode_GET_LENGTH(path) > SHOWN_PATH ? "..." : "";
    PyErr_Format(PyExc_TypeError, "codec=\"safe\" does not take %U (at %.200U%s): %s", what, path, more, advice);
}

static int raise_changed(const char *type)
{
    PyErr_Format(PyExc_RuntimeError, "%s changed while it was encoded", type);
    return -1;
}

/* ---- Scalars ------------------------------------------------------------------------- */

/* enum skv_type of a value of an exact type, else 0.  INT may still turn out to be a BIGINT. */
static inline uint8_t type_of(PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyUnicode_Type) return SKV_T_STR;
    if (type == &PyLong_Type) return SKV_T_INT;
    if (type == &PyBytes_Type) return SKV_T_BYTES;
    if (type == &PyFloat_Type) return SKV_T_FLOAT;
    if (type == &PyBool_Type) return value == Py_True ? SKV_T_TRUE : SKV_T_FALSE;
    if (value == Py_None) return SKV_T_NONE;
    if (type == &PyDict_Type) return SKV_T_DICT;
    if (type == &PyList_Type) return SKV_T_LIST;
    if (type == &PyTuple_Type) return SKV_T_TUPLE;
    if (type == &PySet_Type) return SKV_T_SET;
    if (type == &PyFrozenSet_Type) return SKV_T_FROZENSET;
    if (type == PyDateTimeAPI->DateTimeType) return SKV_T_DATETIME;
    if (type == PyDateTimeAPI->DateType) return SKV_T_DATE;
    if (type == PyDateTimeAPI->DeltaType) return SKV_T_TIMEDELTA;
    return 0;
}

/* The UTF-8 form, which the str keeps.  ASCII lies in the object itself.  The critical section
 * keeps two of our threads from filling that cache at once: not every 3.13 locks it itself. */
static inline const char *utf8_of(PyObject *text, Py_ssize_t *len)
{
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        *len = PyUnicode_GET_LENGTH(text);
        return (const char *)PyUnicode_1BYTE_DATA(text);
    }
    const char *utf8;
    Py_BEGIN_CRITICAL_SECTION(text);
    utf8 = PyUnicode_AsUTF8AndSize(text, len);
    Py_END_CRITICAL_SECTION();
    return utf8;
}

/* After utf8_of failed: a lone surrogate is a refusal, anything else stays an exception. */
static int refuse_surrogates(writer *w)
{
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        return -1;
    }
    PyErr_Clear();
    return refuse(w, "a str with lone surrogates");
}

static int write_str(writer *w, PyObject *text)
{
    Py_ssize_t len;
    const char *utf8 = utf8_of(text, &len);
    if (utf8 == NULL) {
        return refuse_surrogates(w);
    }
    return write_sized(w, SKV_T_STR, utf8, (size_t)len);
}

/* Bytes of two's complement that hold `value`, perhaps one more than needed; 0 = exception. */
static size_t bigint_room(PyObject *value)
{
#if PY_VERSION_HEX >= 0x030D0000
    Py_ssize_t bytes = PyLong_AsNativeBytes(value, NULL, 0, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
    return bytes < 0 ? 0 : (size_t)bytes;
#else
    size_t bits = _PyLong_NumBits(value);
    return bits == (size_t)-1 ? 0 : bits / 8 + 1;
#endif
}

static int bigint_to_bytes(PyObject *value, uint8_t *to, size_t bytes)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_AsNativeBytes(value, to, (Py_ssize_t)bytes, Py_ASNATIVEBYTES_LITTLE_ENDIAN) < 0 ? -1 : 0;
#else
    return _PyLong_AsByteArray((PyLongObject *)value, to, bytes, 1, 1);
#endif
}

/* Only for what does not fit 64 bits.  The length stands before the bytes and is exact only
 * once they are known, so nested ones are written behind the widest varint and moved down. */
static int write_bigint(writer *w, PyObject *value, int nested)
{
    size_t len = bigint_room(value);
    if (len == 0) {
        return -1;
    }
    size_t header = nested ? 1 + MAX_VARINT : 0;
    if (len > SKV_MAX_VALUE) {
        return raise_too_large();
    }
    if (reserve(w, header + len) < 0) {
        return -1;
    }
    uint8_t *start = w->data + w->len;
    if (bigint_to_bytes(value, start + header, len) < 0) {
        return -1;
    }
    len -= (size_t)has_spare_sign(start + header, len);
    assert(len >= 9);
    if (nested) {
        start[0] = SKV_T_BIGINT;
        size_t used = 1 + put_varint(start + 1, len);
        memmove(start + used, start + header, len);
        w->len += used;
    }
    w->len += len;
    return 0;
}

static inline int write_int(writer *w, PyObject *value)
{
    int overflow;
    long long small = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) {
        return write_bigint(w, value, 1);
    }
    return write_fixed(w, SKV_T_INT, (uint64_t)small, 8);
}

/* ---- Dates --------------------------------------------------------------------------- */

static uint64_t date_bits(PyObject *date)
{
    return (uint64_t)PyDateTime_GET_YEAR(date) | (uint64_t)PyDateTime_GET_MONTH(date) << 16
        | (uint64_t)PyDateTime_GET_DAY(date) << 24;
}

static void put_timedelta(uint8_t *to, PyObject *delta)
{
    skv_put_little(to, (uint32_t)PyDateTime_DELTA_GET_DAYS(delta), 4);
    skv_put_little(to + 4, (uint32_t)PyDateTime_DELTA_GET_SECONDS(delta), 4);
    skv_put_little(to + 8, (uint32_t)PyDateTime_DELTA_GET_MICROSECONDS(delta), 4);
}

static int write_timedelta(writer *w, PyObject *delta, int nested)
{
    if (nested && write_fixed(w, SKV_T_TIMEDELTA, 0, 0) < 0) {
        return -1;
    }
    if (reserve(w, TIMEDELTA_SIZE) < 0) {
        return -1;
    }
    put_timedelta(w->data + w->len, delta);
    w->len += TIMEDELTA_SIZE;
    return 0;
}

static int write_date(writer *w, PyObject *date, int nested)
{
    if (nested) {
        return write_fixed(w, SKV_T_DATE, date_bits(date), DATE_SIZE);
    }
    if (reserve(w, DATE_SIZE) < 0) {
        return -1;
    }
    skv_put_little(w->data + w->len, date_bits(date), DATE_SIZE);
    w->len += DATE_SIZE;
    return 0;
}

typedef struct zone {
    uint8_t kind;               /* enum zone_kind                                             */
    int64_t offset_us;
    PyObject *text;             /* name or key, a strong reference that keeps `utf8`, or NULL  */
    const char *utf8;
    size_t len;
} zone;

static int refuse_zone(writer *w, PyObject *tzinfo, const char *why)
{
    return refuse(w, "a datetime whose tzinfo is a %.100s%s", Py_TYPE(tzinfo)->tp_name, why);
}

/* Takes over the reference to `text`. */
static int set_zone_text(writer *w, PyObject *tzinfo, PyObject *text, zone *z)
{
    z->text = text;
    if (!PyUnicode_CheckExact(text)) {
        return refuse_zone(w, tzinfo, " without a plain str for its name");
    }
    Py_ssize_t len;
    z->utf8 = utf8_of(text, &len);
    if (z->utf8 == NULL) {
        return refuse_surrogates(w);
    }
    z->len = (size_t)len;
    return 0;
}

/* timezone has no public accessors for what it was made from, except what pickle uses. */
static int find_offset(writer *w, PyObject *tzinfo, zone *z)
{
    PyObject *made_from = PyObject_CallMethod(tzinfo, "__getinitargs__", NULL);
    if (made_from == NULL) {
        return -1;
    }
    int status = 0;
    Py_ssize_t n = PyTuple_CheckExact(made_from) ? PyTuple_GET_SIZE(made_from) : 0;
    PyObject *offset = n >= 1 ? PyTuple_GET_ITEM(made_from, 0) : NULL;
    if (offset == NULL || !PyDelta_CheckExact(offset)) {
        status = refuse_zone(w, tzinfo, " without a plain timedelta for its offset");
    } else {
        int64_t seconds = (int64_t)PyDateTime_DELTA_GET_DAYS(offset) * DAY_SECONDS
            + PyDateTime_DELTA_GET_SECONDS(offset);
        z->offset_us = seconds * SECOND_US + PyDateTime_DELTA_GET_MICROSECONDS(offset);
        z->kind = n >= 2 ? ZONE_NAMED_OFFSET : ZONE_OFFSET;
        if (n >= 2) {
            PyObject *name = PyTuple_GET_ITEM(made_from, 1);
            Py_INCREF(name);
            status = set_zone_text(w, tzinfo, name, z);
        }
    }
    Py_DECREF(made_from);
    return status;
}

/* A key is enough only if ZoneInfo(key) is this very object: one from from_file() or no_cache()
 * would come back as another, and times in a fold of two different zones are never equal. */
static int find_key(writer *w, PyObject *tzinfo, zone *z)
{
    PyObject *key = PyObject_GetAttrString(tzinfo, "key");
    if (key == NULL) {
        return -1;
    }
    z->kind = ZONE_INFO;
    if (set_zone_text(w, tzinfo, key, z) < 0) {
        return -1;
    }
    PyObject *again = PyObject_CallOneArg(skv_zoneinfo_class(), key);
    if (again == NULL && !skv_zone_is_unknown()) {
        return -1;
    }
    int same = again == tzinfo;
    Py_XDECREF(again);
    return same ? 0 : refuse_zone(w, tzinfo, " that its key does not bring back (from_file, no_cache or clear_cache)");
}

/* On failure too the caller drops z->text. */
static int find_zone(writer *w, PyObject *tzinfo, zone *z)
{
    *z = (zone){.kind = ZONE_NAIVE};
    if (tzinfo == Py_None) {
        return 0;
    }
    if (tzinfo == PyDateTime_TimeZone_UTC) {
        z->kind = ZONE_UTC;
        return 0;
    }
    if (Py_IS_TYPE(tzinfo, Py_TYPE(PyDateTime_TimeZone_UTC))) {
        return find_offset(w, tzinfo, z);
    }
    PyObject *class = skv_zoneinfo_class();
    if (class == NULL && !skv_zone_is_unknown()) {
        return -1;
    }
    if (class != NULL && (PyObject *)Py_TYPE(tzinfo) == class) {
        return find_key(w, tzinfo, z);
    }
    return refuse_zone(w, tzinfo, "");
}

static void put_moment(uint8_t *to, PyObject *moment, uint8_t kind)
{
    skv_put_little(to, date_bits(moment), DATE_SIZE);
    to[4] = (uint8_t)PyDateTime_DATE_GET_HOUR(moment);
    to[5] = (uint8_t)PyDateTime_DATE_GET_MINUTE(moment);
    to[6] = (uint8_t)PyDateTime_DATE_GET_SECOND(moment);
    to[7] = (uint8_t)((unsigned)PyDateTime_DATE_GET_FOLD(moment) << FOLD_SHIFT | kind);
    skv_put_little(to + 8, (uint32_t)PyDateTime_DATE_GET_MICROSECOND(moment), 4);
}

static int write_datetime(writer *w, PyObject *moment, int nested)
{
    zone z;
    uint8_t head[MOMENT_SIZE + 8];
    int status = find_zone(w, PyDateTime_DATE_GET_TZINFO(moment), &z);
    if (status == 0) {
        size_t head_len = MOMENT_SIZE;
        put_moment(head, moment, z.kind);
        if (z.kind == ZONE_OFFSET || z.kind == ZONE_NAMED_OFFSET) {
            skv_put_little(head + MOMENT_SIZE, (uint64_t)z.offset_us, 8);
            head_len += 8;
        }
        if (nested) {
            status = write_fixed(w, SKV_T_DATETIME, 0, 0) < 0 ? -1 : write_varint(w, head_len + z.len);
        }
        if (status == 0) {
            status = write_bytes(w, head, head_len);
        }
        if (status == 0 && z.len > 0) {
            status = write_bytes(w, z.utf8, z.len);
        }
    }
    Py_XDECREF(z.text);
    return status;
}

/* ---- Containers ---------------------------------------------------------------------- */

static int write_item(writer *w, PyObject *value);

/* A strong reference, or NULL if the list has become shorter. */
static inline PyObject *list_item(PyObject *list, Py_ssize_t index)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyList_GetItemRef(list, index);
#else
    if (index >= PyList_GET_SIZE(list)) {
        return NULL;
    }
    PyObject *item = PyList_GET_ITEM(list, index);
    Py_INCREF(item);
    return item;
#endif
}

static int write_list(writer *w, PyObject *list)
{
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (write_varint(w, (size_t)count) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = list_item(list, i);
        if (item == NULL) {
            return raise_changed("list");
        }
        int status = write_item(w, item);
        Py_DECREF(item);
        if (status < 0) {
            at_index(w, i);
            return -1;
        }
    }
    return PyList_GET_SIZE(list) == count ? 0 : raise_changed("list");
}

static int write_tuple(writer *w, PyObject *tuple)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    if (write_varint(w, (size_t)count) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (write_item(w, PyTuple_GET_ITEM(tuple, i)) < 0) {
            at_index(w, i);
            return -1;
        }
    }
    return 0;
}

/* As PyDict_Next, but with strong references. */
static inline int dict_step(PyObject *dict, Py_ssize_t *position, PyObject **key, PyObject **value)
{
    int more;
    Py_BEGIN_CRITICAL_SECTION(dict);
    more = PyDict_Next(dict, position, key, value);
    if (more) {
        Py_INCREF(*key);
        Py_INCREF(*value);
    }
    Py_END_CRITICAL_SECTION();
    return more;
}

static int write_entry(writer *w, PyObject *key, PyObject *value)
{
    if (write_item(w, key) < 0) {
        at_text(w, "<key>");
        return -1;
    }
    if (write_item(w, value) < 0) {
        at_key(w, key);
        return -1;
    }
    return 0;
}

static int write_dict(writer *w, PyObject *dict)
{
    Py_ssize_t count = PyDict_GET_SIZE(dict), position = 0, done = 0;
    PyObject *key, *value;
    if (write_varint(w, (size_t)count) < 0) {
        return -1;
    }
    for (; dict_step(dict, &position, &key, &value); done++) {
        int status = done < count ? write_entry(w, key, value) : raise_changed("dict");
        Py_DECREF(key);
        Py_DECREF(value);
        if (status < 0) {
            return -1;
        }
    }
    return done == count ? 0 : raise_changed("dict");
}

/* Sets and frozensets.  The iterator is the only public way through a set; it raises
 * RuntimeError itself when the set changes its size. */
static int write_set(writer *w, PyObject *set)
{
    Py_ssize_t count = PySet_GET_SIZE(set), done = 0;
    if (write_varint(w, (size_t)count) < 0) {
        return -1;
    }
    PyObject *iterator = PyObject_GetIter(set);
    if (iterator == NULL) {
        return -1;
    }
    int status = 0;
    PyObject *item;
    while (status == 0 && (item = PyIter_Next(iterator)) != NULL) {
        status = done++ < count ? write_item(w, item) : raise_changed("set");
        Py_DECREF(item);
    }
    Py_DECREF(iterator);
    if (status < 0) {
        at_text(w, "<item>");
        return -1;
    }
    if (PyErr_Occurred()) {
        return -1;
    }
    return done == count ? 0 : raise_changed("set");
}

/* From the count on, so that it serves the top as well as items. */
static int write_container(writer *w, uint8_t type, PyObject *value)
{
    int status;
    if (w->depth == MAX_DEPTH) {
        return refuse(w, "more than %u levels of nesting", MAX_DEPTH);
    }
    w->depth++;
    switch (type) {
    case SKV_T_LIST:
        status = write_list(w, value);
        break;
    case SKV_T_TUPLE:
        status = write_tuple(w, value);
        break;
    case SKV_T_DICT:
        status = write_dict(w, value);
        break;
    default:
        assert(type == SKV_T_SET || type == SKV_T_FROZENSET);
        status = write_set(w, value);
    }
    w->depth--;
    return status;
}

static int write_item(writer *w, PyObject *value)
{
    uint8_t type = type_of(value);
    switch (type) {
    case SKV_T_STR:
        return write_str(w, value);
    case SKV_T_INT:
        return write_int(w, value);
    case SKV_T_BYTES:
        return write_sized(w, SKV_T_BYTES, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value));
    case SKV_T_FLOAT:
        return write_fixed(w, SKV_T_FLOAT, float_bits(PyFloat_AS_DOUBLE(value)), 8);
    case SKV_T_FALSE:
    case SKV_T_TRUE:
    case SKV_T_NONE:
        return write_fixed(w, type, 0, 0);
    case SKV_T_DATETIME:
        return write_datetime(w, value, 1);
    case SKV_T_DATE:
        return write_date(w, value, 1);
    case SKV_T_TIMEDELTA:
        return write_timedelta(w, value, 1);
    case 0:
        return refuse(w, "%.100s", Py_TYPE(value)->tp_name);
    default:
        return write_fixed(w, type, 0, 0) < 0 ? -1 : write_container(w, type, value);
    }
}

/* ---- Encoding at the top ------------------------------------------------------------- */

/* The payloads that are written rather than pointed at.  Sets out->type. */
static int write_top(writer *w, uint8_t type, PyObject *value)
{
    w->out->type = type;
    switch (type) {
    case SKV_T_INT:
        w->out->type = SKV_T_BIGINT;
        return write_bigint(w, value, 0);
    case SKV_T_DATETIME:
        return write_datetime(w, value, 0);
    case SKV_T_DATE:
        return write_date(w, value, 0);
    case SKV_T_TIMEDELTA:
        return write_timedelta(w, value, 0);
    case SKV_T_STR:             /* comes here only when it has no UTF-8 form                  */
        return refuse_surrogates(w);
    case 0:
        return refuse(w, "%.100s", Py_TYPE(value)->tp_name);
    default:
        return write_container(w, type, value);
    }
}

static int encode_slow(uint8_t type, PyObject *value, skv_encoded *out)
{
    writer w = {.data = out->small, .cap = sizeof out->small, .out = out};
    if (write_top(&w, type, value) < 0) {
        if (w.refused != NULL) {
            raise_refused(w.refused, w.path);
        }
        Py_XDECREF(w.refused);
        Py_XDECREF(w.path);
        skv_encoded_clear(out);
        return -1;
    }
    out->data = w.data;
    out->len = w.len;
    return 0;
}

static inline int encode_small(skv_encoded *out, uint64_t value, size_t len)
{
    skv_put_little(out->small, value, 8);
    out->data = out->small;
    out->len = len;
    return 0;
}

static inline int encode_owned(skv_encoded *out, PyObject *owner, const char *data, Py_ssize_t len)
{
    if ((size_t)len > SKV_MAX_VALUE) {
        return raise_too_large();
    }
    Py_INCREF(owner);
    out->owner = owner;
    out->data = (const uint8_t *)data;
    out->len = (size_t)len;
    return 0;
}

int skv_encode_safe(PyObject *value, skv_encoded *out)
{
    uint8_t type = type_of(value);
    out->type = type;
    out->owner = NULL;
    out->heap = NULL;
    if (type == SKV_T_STR) {
        Py_ssize_t len;
        const char *utf8 = utf8_of(value, &len);
        if (utf8 != NULL) {
            return encode_owned(out, value, utf8, len);
        }
    } else if (type == SKV_T_INT) {
        int overflow;
        long long small = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (!overflow) {
            return encode_small(out, (uint64_t)small, 8);
        }
    } else if (type == SKV_T_BYTES) {
        return encode_owned(out, value, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
    } else if (type == SKV_T_FLOAT) {
        return encode_small(out, float_bits(PyFloat_AS_DOUBLE(value)), 8);
    } else if (type == SKV_T_FALSE || type == SKV_T_TRUE || type == SKV_T_NONE) {
        return encode_small(out, 0, 0);
    }
    return encode_slow(type, value, out);
}

void skv_encoded_clear(skv_encoded *e)
{
    Py_CLEAR(e->owner);
    PyMem_RawFree(e->heap);
    e->heap = NULL;
}
