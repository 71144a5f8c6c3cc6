/* decode.c: the "safe" codec, from bytes to a value; codec_format.h has the format.
 *
 * How:  no count is trusted: the bytes that are still promised to items of open containers are not
 *       available to anything else, so that all counts of a value together never exceed its length.
 *
 * Concurrency: needs the GIL, or an attached thread state where there is none; the bytes are a
 * private copy.
 */
#define PY_SSIZE_T_CLEAN
#include "codec.h"

#include <datetime.h>
#include <string.h>

#include "codec_format.h"
#include "zones.h"

int skv_decode_init(void)
{
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}

/* ---- The reader ---------------------------------------------------------------------- */

/* `promised` counts the items that open containers still expect, at a byte each at least.
 * Invariant: promised <= end - at. */
typedef struct reader {
    const uint8_t *at;
    const uint8_t *end;
    size_t promised;
    unsigned depth;             /* open containers                                            */
} reader;

static PyObject *damaged(const char *what)
{
    PyErr_Format(PyExc_ValueError, "damaged value: %s", what);
    return NULL;
}

/* Replaces what Python says of a value that no encoder wrote; anything else (MemoryError,
 * KeyboardInterrupt out of a zone, a BytesWarning made an error) stays. */
static PyObject *damaged_if_refused(const char *what)
{
    if (PyErr_ExceptionMatches(PyExc_ValueError) || PyErr_ExceptionMatches(PyExc_TypeError)
        || PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        return damaged(what);
    }
    return NULL;
}

static inline size_t available(const reader *r)
{
    assert(r->promised <= (size_t)(r->end - r->at));
    return (size_t)(r->end - r->at) - r->promised;
}

/* The next `len` bytes, or NULL with the error set. */
static inline const uint8_t *take(reader *r, size_t len)
{
    if (len > available(r)) {
        damaged("it ends before its last item");
        return NULL;
    }
    const uint8_t *data = r->at;
    r->at += len;
    return data;
}

static int read_varint(reader *r, size_t *value)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < MAX_VARINT; i++) {
        const uint8_t *byte = take(r, 1);
        if (byte == NULL) {
            return -1;
        }
        sum |= (uint64_t)(*byte & 0x7fu) << (7 * i);
        if (*byte & 0x80u) {
            continue;
        }
        if (sum > SKV_MAX_VALUE || (*byte == 0 && i > 0)) {
            break;
        }
        *value = (size_t)sum;
        return 0;
    }
    damaged("a length is not a varint below 2^32 in its shortest form");
    return -1;
}

/* Promises `per_entry` items for each entry. */
static int read_count(reader *r, size_t per_entry, size_t *count)
{
    if (read_varint(r, count) < 0) {
        return -1;
    }
    if (*count > available(r) / per_entry) {
        damaged("a count is larger than what follows");
        return -1;
    }
    r->promised += *count * per_entry;
    return 0;
}

/* ---- Decoding scalars and dates ------------------------------------------------------ */

/* Eight bytes at a time; the last step overlaps the one before it. */
static inline int is_ascii(const uint8_t *data, size_t len)
{
    const uint64_t high = UINT64_C(0x8080808080808080);
    uint64_t any = 0, word;
    if (len < sizeof word) {
        for (size_t i = 0; i < len; i++) {
            any |= data[i];
        }
        return (any & 0x80) == 0;
    }
    for (size_t i = 0; i + sizeof word <= len; i += sizeof word) {
        memcpy(&word, data + i, sizeof word);
        any |= word;
    }
    memcpy(&word, data + len - sizeof word, sizeof word);
    return ((any | word) & high) == 0;
}

/* ASCII is copied at once: PyUnicode_DecodeUTF8 takes twice as long for a short str.  Below
 * two bytes it is asked all the same, because it returns the one object of each such str. */
static PyObject *decode_str(const uint8_t *data, size_t len)
{
    PyObject *text;
    if (len >= 2 && is_ascii(data, len)) {
        text = PyUnicode_New((Py_ssize_t)len, 0x7f);
        if (text != NULL) {
            memcpy(PyUnicode_1BYTE_DATA(text), data, len);
        }
        return text;
    }
    text = PyUnicode_DecodeUTF8((const char *)data, (Py_ssize_t)len, NULL);
    return text != NULL ? text : damaged_if_refused("a str is not UTF-8");
}

static PyObject *decode_bigint(const uint8_t *data, size_t len)
{
    if (len < 9 || has_spare_sign(data, len)) {
        return damaged("a large int is not in its shortest form");
    }
#if PY_VERSION_HEX >= 0x030D0000
    return PyLong_FromNativeBytes(data, len, Py_ASNATIVEBYTES_LITTLE_ENDIAN);
#else
    return _PyLong_FromByteArray(data, len, 1, 1);
#endif
}

static PyObject *decode_date(const uint8_t *data)
{
    PyObject *date = PyDateTimeAPI->Date_FromDate(
        (int)skv_get_little(data, 2), data[2], data[3], PyDateTimeAPI->DateType);
    return date != NULL ? date : damaged_if_refused("a date is not in the calendar");
}

static PyObject *decode_timedelta(const uint8_t *data)
{
    int64_t days = (int32_t)(uint32_t)skv_get_little(data, 4);
    uint64_t seconds = skv_get_little(data + 4, 4), microseconds = skv_get_little(data + 8, 4);
    if (days < -MAX_DELTA_DAYS || days > MAX_DELTA_DAYS || seconds >= DAY_SECONDS || microseconds >= SECOND_US) {
        return damaged("a timedelta is out of range");
    }
    return PyDateTimeAPI->Delta_FromDelta(
        (int)days, (int)seconds, (int)microseconds, 0, PyDateTimeAPI->DeltaType);
}

static PyObject *make_offset(int64_t offset_us)
{
    const int64_t day_us = (int64_t)DAY_SECONDS * SECOND_US;
    if (offset_us <= -day_us || offset_us >= day_us) {
        return damaged("an offset is not less than a day");
    }
    int days = offset_us < 0 ? -1 : 0;      /* a timedelta's other fields are never negative  */
    int64_t rest = offset_us - days * day_us;
    return PyDateTimeAPI->Delta_FromDelta(
        days, (int)(rest / SECOND_US), (int)(rest % SECOND_US), 0, PyDateTimeAPI->DeltaType);
}

static PyObject *decode_offset(uint8_t kind, const uint8_t *data, size_t len)
{
    if (len < 8 || (kind == ZONE_OFFSET && len != 8)) {
        return damaged("a datetime has the wrong length");
    }
    PyObject *offset = make_offset((int64_t)skv_get_little(data, 8));
    if (offset == NULL) {
        return NULL;
    }
    PyObject *name = kind == ZONE_NAMED_OFFSET ? decode_str(data + 8, len - 8) : NULL;
    PyObject *tzinfo = NULL;
    if (name != NULL || kind == ZONE_OFFSET) {
        tzinfo = PyDateTimeAPI->TimeZone_FromTimeZone(offset, name);
    }
    Py_XDECREF(name);
    Py_DECREF(offset);
    return tzinfo;
}

static PyObject *decode_key(const uint8_t *data, size_t len)
{
    PyObject *key = decode_str(data, len);
    if (key == NULL) {
        return NULL;
    }
    PyObject *class = skv_zoneinfo_class();
    PyObject *tzinfo = class != NULL ? PyObject_CallOneArg(class, key) : NULL;
    if (tzinfo == NULL && skv_zone_is_unknown()) {
        PyErr_Format(PyExc_ValueError, "damaged value: this Python knows no time zone %.100R", key);
    }
    Py_DECREF(key);
    return tzinfo;
}

static PyObject *decode_zone(uint8_t kind, const uint8_t *data, size_t len)
{
    if (kind == ZONE_OFFSET || kind == ZONE_NAMED_OFFSET) {
        return decode_offset(kind, data, len);
    }
    if (kind == ZONE_INFO) {
        return decode_key(data, len);
    }
    if (kind > ZONE_INFO) {
        return damaged("a datetime has a zone of an unknown kind");
    }
    if (len != 0) {
        return damaged("a datetime has the wrong length");
    }
    PyObject *tzinfo = kind == ZONE_UTC ? PyDateTime_TimeZone_UTC : Py_None;
    Py_INCREF(tzinfo);
    return tzinfo;
}

static PyObject *decode_datetime(const uint8_t *data, size_t len)
{
    if (len < MOMENT_SIZE) {
        return damaged("a datetime has the wrong length");
    }
    uint64_t microsecond = skv_get_little(data + 8, 4);
    if (microsecond >= SECOND_US) {
        return damaged("a datetime is not in the calendar");
    }
    PyObject *tzinfo = decode_zone(data[7] & ZONE_KIND_MASK, data + MOMENT_SIZE, len - MOMENT_SIZE);
    if (tzinfo == NULL) {
        return NULL;
    }
    PyObject *moment = PyDateTimeAPI->DateTime_FromDateAndTimeAndFold(
        (int)skv_get_little(data, 2), data[2], data[3], data[4], data[5], data[6], (int)microsecond,
        tzinfo, data[7] >> FOLD_SHIFT, PyDateTimeAPI->DateTimeType);
    Py_DECREF(tzinfo);
    return moment != NULL ? moment : damaged_if_refused("a datetime is not in the calendar");
}

/* ---- Decoding by type ---------------------------------------------------------------- */

/* Bytes of a type that has one size, else -1. */
static inline int fixed_size(uint8_t type)
{
    switch (type) {
    case SKV_T_INT:
    case SKV_T_FLOAT:
        return 8;
    case SKV_T_FALSE:
    case SKV_T_TRUE:
    case SKV_T_NONE:
        return 0;
    case SKV_T_DATE:
        return DATE_SIZE;
    case SKV_T_TIMEDELTA:
        return TIMEDELTA_SIZE;
    default:
        return -1;
    }
}

static inline PyObject *new_reference(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

/* `data` has fixed_size(type) bytes. */
static inline PyObject *decode_fixed(uint8_t type, const uint8_t *data)
{
    switch (type) {
    case SKV_T_INT:
        return PyLong_FromLongLong((int64_t)skv_get_little(data, 8));
    case SKV_T_FLOAT:
        return PyFloat_FromDouble(bits_float(skv_get_little(data, 8)));
    case SKV_T_FALSE:
        return new_reference(Py_False);
    case SKV_T_TRUE:
        return new_reference(Py_True);
    case SKV_T_NONE:
        return new_reference(Py_None);
    case SKV_T_DATE:
        return decode_date(data);
    default:
        assert(type == SKV_T_TIMEDELTA);
        return decode_timedelta(data);
    }
}

static inline int is_sized(uint8_t type)
{
    return type == SKV_T_STR || type == SKV_T_BYTES || type == SKV_T_BIGINT || type == SKV_T_DATETIME;
}

static inline PyObject *decode_sized(uint8_t type, const uint8_t *data, size_t len)
{
    switch (type) {
    case SKV_T_STR:
        return decode_str(data, len);
    case SKV_T_BYTES:
        return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
    case SKV_T_BIGINT:
        return decode_bigint(data, len);
    default:
        assert(type == SKV_T_DATETIME);
        return decode_datetime(data, len);
    }
}

static PyObject *read_item(reader *r);

static PyObject *read_list(reader *r)
{
    size_t count;
    if (read_count(r, 1, &count) < 0) {
        return NULL;
    }
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *item = read_item(r);
        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *read_tuple(reader *r)
{
    size_t count;
    if (read_count(r, 1, &count) < 0) {
        return NULL;
    }
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *item = read_item(r);
        if (item == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, item);
    }
    return tuple;
}

static int read_entry(reader *r, PyObject *dict)
{
    PyObject *key = read_item(r);
    if (key == NULL) {
        return -1;
    }
    PyObject *value = read_item(r);
    int status = value != NULL ? PyDict_SetItem(dict, key, value) : -1;
    if (status < 0 && value != NULL) {
        damaged_if_refused("a key of a dict cannot be hashed");
    }
    Py_XDECREF(value);
    Py_DECREF(key);
    return status;
}

static PyObject *read_dict(reader *r)
{
    size_t count;
    if (read_count(r, 2, &count) < 0) {
        return NULL;
    }
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < count; i++) {
        if (read_entry(r, dict) < 0) {
            Py_CLEAR(dict);
        }
    }
    return dict;
}

/* A frozenset may be added to while nobody else has seen it. */
static PyObject *read_set(reader *r, uint8_t type)
{
    size_t count;
    if (read_count(r, 1, &count) < 0) {
        return NULL;
    }
    PyObject *set = type == SKV_T_SET ? PySet_New(NULL) : PyFrozenSet_New(NULL);
    for (size_t i = 0; set != NULL && i < count; i++) {
        PyObject *item = read_item(r);
        int status = item != NULL ? PySet_Add(set, item) : -1;
        if (status < 0 && item != NULL) {
            damaged_if_refused("an item of a set cannot be hashed");
        }
        Py_XDECREF(item);
        if (status < 0) {
            Py_CLEAR(set);
        }
    }
    return set;
}

/* From the count on; also the place where an unknown type ends. */
static PyObject *read_container(reader *r, uint8_t type)
{
    if (type < SKV_T_LIST || type > SKV_T_FROZENSET) {
        PyErr_Format(PyExc_ValueError, "damaged value: type %d is unknown", type);
        return NULL;
    }
    if (r->depth == MAX_DEPTH) {
        return damaged("it nests too deep");
    }
    r->depth++;
    PyObject *value = type == SKV_T_LIST ? read_list(r)
        : type == SKV_T_TUPLE            ? read_tuple(r)
        : type == SKV_T_DICT             ? read_dict(r)
                                         : read_set(r, type);
    r->depth--;
    return value;
}

static_assert(SKV_T_FROZENSET - SKV_T_LIST == 4, "the containers are neighbours");

/* Redeems one promised item. */
static PyObject *read_item(reader *r)
{
    assert(r->promised > 0);
    r->promised--;
    const uint8_t *byte = take(r, 1);
    if (byte == NULL) {
        return NULL;
    }
    int size = fixed_size(*byte);
    if (size >= 0) {
        const uint8_t *data = take(r, (size_t)size);
        return data != NULL ? decode_fixed(*byte, data) : NULL;
    }
    if (is_sized(*byte)) {
        size_t len;
        if (read_varint(r, &len) < 0) {
            return NULL;
        }
        const uint8_t *data = take(r, len);
        return data != NULL ? decode_sized(*byte, data, len) : NULL;
    }
    return read_container(r, *byte);
}

/* ---- Decoding at the top ------------------------------------------------------------- */

static PyObject *decode_typed_bytes(const uint8_t *data, size_t len)
{
    if (len == 0 || data[0] > len - 1) {
        return damaged("its content type is longer than the value");
    }
    size_t skipped = 1u + data[0];
    return PyBytes_FromStringAndSize((const char *)data + skipped, (Py_ssize_t)(len - skipped));
}

static PyObject *decode_container(uint8_t type, const uint8_t *data, size_t len)
{
    reader r = {.at = data, .end = data + len};
    PyObject *value = read_container(&r, type);
    if (value != NULL && r.at != r.end) {
        Py_DECREF(value);
        return damaged("bytes are left over behind it");
    }
    return value;
}

PyObject *skv_decode_safe(uint8_t type, const uint8_t *data, size_t len)
{
    if (data == NULL) {
        assert(len == 0);
        data = (const uint8_t *)"";
    }
    if (len > PY_SSIZE_T_MAX) {
        return damaged("it is longer than memory");
    }
    if (is_sized(type)) {
        return decode_sized(type, data, len);
    }
    int size = fixed_size(type);
    if (size >= 0) {
        return len == (size_t)size ? decode_fixed(type, data) : damaged("its length is not that of its type");
    }
    if (type == SKV_T_BYTES_TYPED) {
        return decode_typed_bytes(data, len);
    }
    return decode_container(type, data, len);
}
