/* records.c: items as they are stored.  See records.h. */
#include "records.h"

#include "args.h"
#include "handle.h"
#include "reads.h"
#include "values.h"

/* A typed value: one byte n, n bytes of content type, the bytes.  0: it is none, or a damaged one. */
static size_t content_type_len(const stored_value *stored)
{
    const bool typed = stored->type == SKV_T_BYTES_TYPED && stored->len > 0 && stored->data[0] < stored->len;
    return typed ? stored->data[0] : 0;
}

static PyObject *content_type_of(const stored_value *stored)
{
    const size_t len = content_type_len(stored);
    return len ? PyUnicode_DecodeLatin1((const char *)stored->data + 1, (Py_ssize_t)len, NULL) : Py_NewRef(Py_None);
}

static PyObject *payload_of(const stored_value *stored, PyObject *bytes)
{
    const size_t before = stored->type == SKV_T_BYTES_TYPED && stored->len > 0 ? 1 + content_type_len(stored) : 0;
    if (bytes && !before)
        return Py_NewRef(bytes);
    return PyBytes_FromStringAndSize((const char *)stored->data + before, (Py_ssize_t)(stored->len - before));
}

PyObject *record_new(const stored_value *stored, PyObject *bytes)
{
    PyObject *payload = payload_of(stored, bytes);
    PyObject *content_type = payload ? content_type_of(stored) : NULL;
    if (!content_type) {
        Py_XDECREF(payload);
        return NULL;
    }
    return Py_BuildValue("(BNNKK)", stored->type, payload, content_type, (unsigned long long)stored->version,
                         (unsigned long long)stored->expires_ms);
}

PyObject *handle_fetch(Handle *self, PyObject *key)
{
    key_text text;
    enum key_result parsed = key_parse(self->state, key, KEY_TO_FIND, &text);
    if (parsed == KEY_RAISED || !handle_is_open(self))
        return NULL;
    fetched item;
    int found = parsed == KEY_GIVEN ? item_fetch(self, &text, &item, true) : 0;
    if (found < 0)
        return NULL;
    if (!found)
        Py_RETURN_NONE;
    const uint8_t *data = item.bytes ? (const uint8_t *)PyBytes_AS_STRING(item.bytes) : item.data;
    PyObject *record = record_new(&(stored_value){item.type, data, item.len, item.version, item.expires_ms}, item.bytes);
    fetched_drop(&item);
    return record;
}
