/* values.c: see values.h. */
#include "values.h"

/* ---- Codecs ---------------------------------------------------------------------------- */

static const char *const mode_names[] = {"safe", "pickle", "json", "object"};

bool codec_mode_parse(const char *name, enum codec_mode *out)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(mode_names); i++) {
        if (strcmp(name, mode_names[i]) == 0) {
            *out = (enum codec_mode)i;
            return true;
        }
    }
    PyErr_Format(PyExc_ValueError, "codec must be \"safe\", \"pickle\", \"json\" or \"object\", not \"%.100s\"", name);
    return false;
}

static uint8_t type_of_mode(enum codec_mode mode)
{
    return mode == CODEC_PICKLE ? SKV_T_PICKLE : mode == CODEC_JSON ? SKV_T_JSON : SKV_T_CODEC;
}

static bool is_native(PyObject *value)
{
    return value == Py_None || PyBool_Check(value) || PyBytes_CheckExact(value) || PyUnicode_CheckExact(value)
        || PyLong_CheckExact(value) || PyFloat_CheckExact(value);
}

/* ---- Encoding -------------------------------------------------------------------------- */

/* The safe codec's ValueError means: longer than any value may be. */
static bool encode_safe(Handle *handle, PyObject *value, skv_encoded *out)
{
    if (skv_likely(skv_encode_safe(value, out) == 0))
        return true;
    if (PyErr_ExceptionMatches(PyExc_ValueError))
        skv_raise_from(handle->state, SKV_E_VALUE_TOO_LARGE, "a value takes at most 4 GiB - 1 encoded");
    return false;
}

static void encoded_as_bytes(skv_encoded *out, uint8_t type, PyObject *bytes)
{
    out->type = type;
    out->data = (const uint8_t *)PyBytes_AS_STRING(bytes);
    out->len = (size_t)PyBytes_GET_SIZE(bytes);
    out->owner = bytes;             /* the reference goes with it                              */
    out->heap = NULL;
}

static bool encode_by_codec(Handle *handle, PyObject *value, skv_encoded *out)
{
    PyObject *bytes = PyObject_CallOneArg(handle->encode, value);
    if (!bytes)
        return false;
    if (!PyBytes_Check(bytes)) {
        PyErr_Format(PyExc_TypeError, "encode() of the codec must return bytes, not %.200s", Py_TYPE(bytes)->tp_name);
        Py_DECREF(bytes);
        return false;
    }
    encoded_as_bytes(out, type_of_mode(handle->codec), bytes);
    return true;
}

/* What the safe codec takes is stored with it under "pickle" too, so that other handles can read
 * it; JSON and a user's codec are asked for everything that is not a scalar. */
bool value_encode(Handle *handle, PyObject *value, skv_encoded *out)
{
    if (skv_likely(handle->codec == CODEC_SAFE))
        return encode_safe(handle, value, out);
    if (is_native(value) || handle->codec == CODEC_PICKLE) {
        if (encode_safe(handle, value, out))
            return true;
        if (handle->codec != CODEC_PICKLE || !PyErr_ExceptionMatches(PyExc_TypeError))
            return false;
        PyErr_Clear();
    }
    return encode_by_codec(handle, value, out);
}

/* Printable only: the type is sent on as an HTTP header, where a line break would end it. */
static const char *content_type_text(PyObject *content_type, Py_ssize_t *len)
{
    if (!PyUnicode_Check(content_type)) {
        PyErr_Format(PyExc_TypeError, "content_type must be str, not %.200s", Py_TYPE(content_type)->tp_name);
        return NULL;
    }
    const char *text = PyUnicode_IS_ASCII(content_type) ? PyUnicode_AsUTF8AndSize(content_type, len) : NULL;
    bool good = text && *len <= 255;
    for (Py_ssize_t i = 0; good && i < *len; i++)
        good = text[i] >= ' ' && text[i] <= '~';
    if (good)
        return text;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "content_type must be printable ASCII, at most 255 characters");
    return NULL;
}

bool value_encode_typed(Handle *handle, PyObject *value, PyObject *content_type, skv_encoded *out)
{
    if (skv_likely(!content_type || content_type == Py_None))
        return value_encode(handle, value, out);
    Py_ssize_t n;
    const char *text = content_type_text(content_type, &n);
    if (!text)
        return false;
    if (!PyBytes_CheckExact(value)) {
        PyErr_Format(PyExc_TypeError, "only a bytes value may have a content_type, this one is %.200s",
                     Py_TYPE(value)->tp_name);
        return false;
    }
    Py_ssize_t len = PyBytes_GET_SIZE(value);
    PyObject *payload = PyBytes_FromStringAndSize(NULL, 1 + n + len);
    if (!payload)
        return false;
    char *to = PyBytes_AS_STRING(payload);
    *to = (char)n;
    memcpy(to + 1, text, (size_t)n);
    memcpy(to + 1 + n, PyBytes_AS_STRING(value), (size_t)len);
    encoded_as_bytes(out, SKV_T_BYTES_TYPED, payload);
    return true;
}

/* Of a codec nobody here can judge the bytes.  Those of the safe codec are decoded once, so that no record is ever
 * written that no handle can read; a content type is said in words, which value_encode_typed judges. */
static bool is_payload_of(long type, PyObject *bytes)
{
    if (type == SKV_T_PICKLE || type == SKV_T_JSON || type == SKV_T_CODEC)
        return true;
    if (type < 0 || type > UINT8_MAX || !skv_is_known_type((uint8_t)type) || type == SKV_T_BYTES_TYPED) {
        PyErr_Format(PyExc_ValueError, "there is no type %ld of values", type);
        return false;
    }
    PyObject *value = skv_decode_safe((uint8_t)type, (const uint8_t *)PyBytes_AS_STRING(bytes),
                                      (size_t)PyBytes_GET_SIZE(bytes));
    Py_XDECREF(value);
    return value != NULL;
}

static bool encode_stored(PyObject *bytes, PyObject *type, skv_encoded *out)
{
    if (!PyBytes_CheckExact(bytes)) {
        PyErr_Format(PyExc_TypeError, "what is stored is bytes, not %.200s", Py_TYPE(bytes)->tp_name);
        return false;
    }
    const long number = PyLong_AsLong(type);
    if ((number == -1 && PyErr_Occurred()) || !is_payload_of(number, bytes))
        return false;
    encoded_as_bytes(out, (uint8_t)number, Py_NewRef(bytes));
    return true;
}

bool value_encode_item(Handle *handle, PyObject *value, PyObject *content_type, skv_encoded *out)
{
    if (skv_unlikely(content_type && PyLong_CheckExact(content_type)))
        return encode_stored(value, content_type, out);
    return value_encode_typed(handle, value, content_type, out);
}

/* ---- Decoding -------------------------------------------------------------------------- */

static PyObject *decode_by_codec(Handle *handle, const uint8_t *data, size_t len)
{
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)len);
    if (!bytes)
        return NULL;
    PyObject *value = PyObject_CallOneArg(handle->decode, bytes);
    Py_DECREF(bytes);
    if (!value && PyErr_ExceptionMatches(PyExc_Exception) && !PyErr_ExceptionMatches(PyExc_MemoryError))
        skv_raise_from(handle->state, SKV_E_CODEC, "decode() of the codec failed on a stored value");
    return value;
}

static PyObject *refuse_foreign(Handle *handle, uint8_t type)
{
    const char *how = "by a codec object: open the store with that codec=";
    if (type == SKV_T_PICKLE)
        how = "with pickle: open the store with codec=\"pickle\" (only if you trust all who write to it)";
    else if (type == SKV_T_JSON)
        how = "as JSON: open the store with codec=\"json\"";
    return skv_raise(handle->state, SKV_E_CODEC, "the value was stored %s", how);
}

PyObject *value_decode(Handle *handle, uint8_t type, const uint8_t *data, size_t len)
{
    if (skv_unlikely(type == SKV_T_PICKLE || type == SKV_T_JSON || type == SKV_T_CODEC)) {
        if (handle->codec == CODEC_SAFE || type != type_of_mode(handle->codec))
            return refuse_foreign(handle, type);
        return decode_by_codec(handle, data, len);
    }
    PyObject *value = skv_decode_safe(type, data, len);
    if (skv_unlikely(!value) && PyErr_ExceptionMatches(PyExc_ValueError))
        skv_raise_from(handle->state, SKV_E_CODEC, NULL);
    return value;
}
