/* collect.c: see collect.h. */
#include "collect.h"

void *collect_raise_too_many(module_state *state)
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
            collect_raise_too_many(state);
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
    return collect_raise_too_many(state);
}

/* ---- The items of a dict ----------------------------------------------------------------- */

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
        collect_raise_too_many(state);
        return false;
    }
    pairs->objects = PyMem_Malloc(2 * (room ? room : 1) * sizeof *pairs->objects);
    if (!pairs->objects) {
        PyErr_NoMemory();
        return false;
    }
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
bool collect_dict(module_state *state, PyObject *dict, item_pairs *out)
{
    *out = (item_pairs){NULL, 0, 0};
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

/* ---- Pairs ----------------------------------------------------------------------------- */

/* What `items.name` is; NULL without an exception where there is none. */
static PyObject *attribute(PyObject *items, const char *name)
{
    PyObject *found = PyObject_GetAttrString(items, name);
    if (!found && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear();
    return found;
}

/* `zip(keys, map(items.__getitem__, keys))`: a value is asked for when its turn comes. */
static PyObject *pairs_by_keys(module_state *state, PyObject *items, PyObject *keys_method)
{
    PyObject *view = PyObject_CallNoArgs(keys_method);
    PyObject *keys = view ? list_of(state, view) : NULL;
    PyObject *getter = keys ? PyObject_GetAttrString(items, "__getitem__") : NULL;
    PyObject *values = getter ? PyObject_CallFunctionObjArgs((PyObject *)&PyMap_Type, getter, keys, NULL) : NULL;
    PyObject *pairs = values ? PyObject_CallFunctionObjArgs((PyObject *)&PyZip_Type, keys, values, NULL) : NULL;
    Py_XDECREF(view);
    Py_XDECREF(keys);
    Py_XDECREF(getter);
    Py_XDECREF(values);
    return pairs;
}

/* `items.items()` where there is such a method, else by `items.keys()`, else `items`; a new reference. */
static PyObject *pairs_of(module_state *state, PyObject *items)
{
    if (PyList_CheckExact(items) || PyTuple_CheckExact(items) || PyIter_Check(items))
        return Py_NewRef(items);
    PyObject *pairs = NULL;
    PyObject *method = attribute(items, "items");
    if (method) {
        pairs = PyObject_CallNoArgs(method);
    } else if (!PyErr_Occurred()) {
        method = attribute(items, "keys");
        if (method)
            pairs = pairs_by_keys(state, items, method);
        else if (!PyErr_Occurred())
            pairs = Py_NewRef(items);
    }
    Py_XDECREF(method);
    return pairs;
}

/* The items of a dict's subclass, or its view, are taken first, as those of a dict: it may change while a codec runs. */
PyObject *collect_iterator(module_state *state, PyObject *items, Py_ssize_t *known)
{
    PyObject *pairs = pairs_of(state, items);
    if (pairs && PyDictItems_Check(pairs))
        Py_SETREF(pairs, list_of(state, pairs));
    if (!pairs)
        return NULL;
    *known = PyList_CheckExact(pairs) || PyTuple_CheckExact(pairs) ? PySequence_Fast_GET_SIZE(pairs) : -1;
    PyObject *iterator = *known > (Py_ssize_t)SKV_MAX_BATCH ? collect_raise_too_many(state) : PyObject_GetIter(pairs);
    Py_DECREF(pairs);
    return iterator;
}

PyObject *collect_pair(PyObject *object, const char *function, size_t nth)
{
    PyObject *pair = PySequence_Tuple(object);      /* a list may change in another thread         */
    if (!pair || PyTuple_GET_SIZE(pair) == 2)
        return pair;
    PyErr_Format(PyExc_ValueError, "%s() takes (key, value) pairs; element %zu has length %zd", function, nth,
                 PyTuple_GET_SIZE(pair));
    Py_DECREF(pair);
    return NULL;
}
