/* collect.c: see collect.h. */
#include "collect.h"

static void *raise_too_many(module_state *state)
{
    return skv_raise(state, SKV_E_BATCH_TOO_LARGE, "a batch takes at most %u keys: split it", SKV_MAX_BATCH);
}

/* ---- Keys ------------------------------------------------------------------------------ */

static PyObject *list_of(module_state *state, PyObject *iterable)
{
    PyObject *iterator = PyObject_GetIter(iterable);
    PyObject *list = iterator ? PyList_New(0) : NULL;
    PyObject *item;
    while (list && (item = PyIter_Next(iterator))) {
        if (PyList_GET_SIZE(list) == (Py_ssize_t)SKV_MAX_BATCH) {
            raise_too_many(state);
            Py_CLEAR(list);
        } else if (PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_DECREF(item);
    }
    Py_XDECREF(iterator);
    if (list && PyErr_Occurred())
        Py_CLEAR(list);
    return list;
}

PyObject *collect_keys(module_state *state, PyObject *keys, const char *function)
{
    if (PyUnicode_Check(keys) || PyBytes_Check(keys))       /* else its characters would be keys  */
        return PyErr_Format(PyExc_TypeError, "%s() takes several keys, not one %.200s: put it into a list", function,
                            Py_TYPE(keys)->tp_name);
    if (!PyTuple_CheckExact(keys) && !PyList_CheckExact(keys))
        return list_of(state, keys);
    PyObject *tuple = PySequence_Tuple(keys);
    if (!tuple || PyTuple_GET_SIZE(tuple) <= (Py_ssize_t)SKV_MAX_BATCH)
        return tuple;
    Py_DECREF(tuple);
    return raise_too_many(state);
}

/* ---- Pairs ----------------------------------------------------------------------------- */

void free_pairs(item_pairs *pairs)
{
    for (size_t i = 0; i < 2 * pairs->count; i++)
        Py_DECREF(pairs->objects[i]);
    PyMem_Free(pairs->objects);
    *pairs = (item_pairs){NULL, 0, 0};
}

static bool make_room(module_state *state, item_pairs *pairs, size_t room)
{
    if (room > SKV_MAX_BATCH) {
        raise_too_many(state);
        return false;
    }
    PyObject **objects = PyMem_Realloc(pairs->objects, 2 * (room ? room : 1) * sizeof *objects);
    if (!objects) {
        PyErr_NoMemory();
        return false;
    }
    pairs->objects = objects;
    pairs->room = room;
    return true;
}

static void append(item_pairs *pairs, PyObject *key, PyObject *value)
{
    pairs->objects[2 * pairs->count] = Py_NewRef(key);
    pairs->objects[2 * pairs->count + 1] = Py_NewRef(value);
    pairs->count++;
}

/* No Python code runs while the dict is walked. */
static bool collect_dict(module_state *state, PyObject *dict, item_pairs *out)
{
    bool good;
    Py_BEGIN_CRITICAL_SECTION(dict);
    good = make_room(state, out, (size_t)PyDict_GET_SIZE(dict));
    Py_ssize_t position = 0;
    PyObject *key, *value;
    while (good && out->count < out->room && PyDict_Next(dict, &position, &key, &value))
        append(out, key, value);
    Py_END_CRITICAL_SECTION();
    return good;
}

static bool collect_pair(module_state *state, PyObject *object, item_pairs *out)
{
    PyObject *pair = PySequence_Tuple(object);      /* a list may change in another thread         */
    if (!pair)
        return false;
    bool good = PyTuple_GET_SIZE(pair) == 2;
    if (!good)
        PyErr_Format(PyExc_ValueError, "put_many() takes (key, value) pairs; element %zu has length %zd", out->count,
                     PyTuple_GET_SIZE(pair));
    if (good && out->count == out->room) {
        size_t room = out->room < 16 ? 16 : out->room * 2;
        good = make_room(state, out, out->count < SKV_MAX_BATCH && room > SKV_MAX_BATCH ? SKV_MAX_BATCH : room);
    }
    if (good)
        append(out, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
    Py_DECREF(pair);
    return good;
}

static bool collect_iterable(module_state *state, PyObject *iterable, item_pairs *out)
{
    PyObject *iterator = PyObject_GetIter(iterable);
    bool good = iterator != NULL;
    PyObject *object;
    while (good && (object = PyIter_Next(iterator))) {
        good = collect_pair(state, object, out);
        Py_DECREF(object);
    }
    Py_XDECREF(iterator);
    return good && !PyErr_Occurred();
}

/* `items.items()` where there is such a method, else `items`; a new reference. */
static PyObject *pairs_of(PyObject *items)
{
    if (PyList_CheckExact(items) || PyTuple_CheckExact(items) || PyIter_Check(items))
        return Py_NewRef(items);
    PyObject *method = PyObject_GetAttrString(items, "items");
    if (!method) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return NULL;
        PyErr_Clear();
        return Py_NewRef(items);
    }
    PyObject *pairs = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    return pairs;
}

bool collect_pairs(module_state *state, PyObject *items, item_pairs *out)
{
    *out = (item_pairs){NULL, 0, 0};
    bool good;
    if (PyDict_CheckExact(items)) {
        good = collect_dict(state, items, out);
    } else {
        PyObject *pairs = pairs_of(items);
        good = pairs && collect_iterable(state, pairs, out);
        Py_XDECREF(pairs);
    }
    if (!good)
        free_pairs(out);
    return good;
}
