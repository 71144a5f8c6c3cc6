/* upkeep.c: numbers, checks and housekeeping of a store. */
#include <stdlib.h>

#include "../procs.h"
#include "args.h"
#include "handle.h"
#include "writing.h"

/* ---- Numbers --------------------------------------------------------------------------- */

typedef struct named_number {
    const char *name;
    uint64_t value;
} named_number;

/* Adds to `dict`, which it passes on; drops it and returns NULL if that fails. */
static PyObject *add_numbers(PyObject *dict, const named_number *numbers, size_t count)
{
    for (size_t i = 0; dict && i < count; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(numbers[i].value);
        if (!value || PyDict_SetItemString(dict, numbers[i].name, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

PyObject *handle_stats(Handle *self, PyObject *Py_UNUSED(unused))
{
    skv *store = handle_enter(self);
    if (!store)
        return NULL;
    skv_stats stats;
    skv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = skv_get_stats(store, &stats);
    Py_END_ALLOW_THREADS
    handle_leave(self);
    if (status != SKV_OK)
        return skv_raise_status(self->state, (int)status);
    const named_number numbers[] = {
        {"items", stats.items}, {"value_bytes", stats.value_bytes}, {"size", stats.size}, {"committed", stats.committed},
        {"used", stats.used}, {"processes", stats.processes}, {"buckets", stats.buckets},
        {"table_bytes", stats.table_bytes}, {"hits", stats.counters[SKV_HITS]}, {"misses", stats.counters[SKV_MISSES]},
        {"sets", stats.counters[SKV_SETS]}, {"deletes", stats.counters[SKV_DELETES]},
        {"expired", stats.counters[SKV_EXPIRED]}, {"evicted", stats.counters[SKV_EVICTED]},
        {"retries", stats.counters[SKV_RETRIES]}, {"lock_waits", stats.counters[SKV_LOCK_WAITS]},
    };
    return add_numbers(PyDict_New(), numbers, Py_ARRAY_LENGTH(numbers));
}

typedef struct process_row {
    uint32_t slot, pid;
    uint64_t pid_namespace, start_time;
    bool is_own;
} process_row;

static size_t read_processes(skv *store, process_row rows[SKV_PROCS])
{
    size_t count = 0;
    const uint32_t own = skv_load(&store->slot);
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++) {
        const skv_proc *proc = &store->procs[slot];
        if (skv_is_living(store, slot))
            rows[count++] = (process_row){slot, skv_load(&proc->pid), skv_load(&proc->pid_namespace),
                                          skv_load(&proc->start_time), slot == own};
    }
    return count;
}

PyObject *handle_processes(Handle *self, PyObject *Py_UNUSED(unused))
{
    skv *store = handle_enter(self);
    if (!store)
        return NULL;
    process_row rows[SKV_PROCS];
    size_t count = read_processes(store, rows);
    handle_leave(self);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *row = Py_BuildValue("(IIKKO)", (unsigned int)rows[i].slot, (unsigned int)rows[i].pid,
                                      (unsigned long long)rows[i].pid_namespace,
                                      (unsigned long long)rows[i].start_time, rows[i].is_own ? Py_True : Py_False);
        if (row)
            PyList_SET_ITEM(list, (Py_ssize_t)i, row);
        else
            Py_CLEAR(list);
    }
    return list;
}

/* ---- Checking -------------------------------------------------------------------------- */

#define MAX_PROBLEMS 1000u      /* kept; all are counted                                       */

typedef struct problem {
    char invariant[16], sentence[240];
} problem;

typedef struct problems {
    problem *found;
    size_t count, room;
} problems;

/* Called without the GIL.  What does not fit is left out of the list, not out of the number. */
static void note_problem(void *context, const char *invariant, const char *sentence)
{
    problems *to = context;
    if (to->count == to->room) {
        size_t room = to->room ? 2 * to->room : 16;
        problem *found = room > 2 * MAX_PROBLEMS ? NULL : realloc(to->found, room * sizeof *found);
        if (!found)
            return;
        to->found = found;
        to->room = room;
    }
    if (to->count == MAX_PROBLEMS)
        return;
    problem *one = &to->found[to->count++];
    PyOS_snprintf(one->invariant, sizeof one->invariant, "%s", invariant);
    PyOS_snprintf(one->sentence, sizeof one->sentence, "%s", sentence);
}

static PyObject *list_of_problems(const problems *from)
{
    PyObject *list = PyList_New((Py_ssize_t)from->count);
    for (size_t i = 0; list && i < from->count; i++) {
        PyObject *pair = Py_BuildValue("(ss)", from->found[i].invariant, from->found[i].sentence);
        if (pair)
            PyList_SET_ITEM(list, (Py_ssize_t)i, pair);
        else
            Py_CLEAR(list);
    }
    return list;
}

PyObject *handle_check(Handle *self, PyObject *Py_UNUSED(unused))
{
    skv *store = handle_enter(self);
    if (!store)
        return NULL;
    problems noted = {NULL, 0, 0};
    skv_check_result result = {0};
    Py_BEGIN_ALLOW_THREADS
    skv_check(store, note_problem, &noted, &result);
    Py_END_ALLOW_THREADS
    handle_leave(self);
    PyObject *list = list_of_problems(&noted);
    free(noted.found);
    const named_number numbers[] = {
        {"problems", result.problems}, {"items", result.items}, {"tables", result.tables}, {"records", result.records},
        {"blocks_used", result.blocks_used}, {"blocks_leaked", result.blocks_leaked}, {"pages_used", result.pages_used},
        {"dead_slots", result.dead_slots},
    };
    PyObject *dict = list ? add_numbers(PyDict_New(), numbers, Py_ARRAY_LENGTH(numbers)) : NULL;
    if (!dict) {
        Py_XDECREF(list);
        return NULL;
    }
    return Py_BuildValue("(NN)", list, dict);
}

/* ---- Housekeeping ---------------------------------------------------------------------- */

static skv_status compact_step(skv *store, void *context, skv_wait *wait)
{
    return skv_compact(store, context, wait);
}

static skv_status return_step(skv *store, void *Py_UNUSED(context), skv_wait *wait)
{
    return skv_return_memory(store, wait);
}

PyObject *handle_compact(Handle *self, PyObject *Py_UNUSED(unused))
{
    skv *store = handle_may_write(self) ? handle_enter(self) : NULL;
    if (!store)
        return NULL;
    skv_compact_report report = {0};
    uint64_t bytes_returned = 0;
    int status = writing_run(self, store, compact_step, &report, true);
    if (status == SKV_OK && report.bytes_to_return && store_wait_for_others(store)) {
        status = writing_run(self, store, return_step, NULL, true);
        bytes_returned = status == SKV_OK ? report.bytes_to_return : 0;
    }
    handle_leave(self);
    if (status != SKV_OK)
        return skv_raise_status(self->state, status);
    const named_number numbers[] = {
        {"expired", report.expired}, {"leaks", report.leaks}, {"moved", report.moved}, {"pages_freed", report.pages_freed},
        {"bytes_returned", bytes_returned}, {"slots_reclaimed", report.slots_reclaimed},
    };
    return add_numbers(PyDict_New(), numbers, Py_ARRAY_LENGTH(numbers));
}

typedef struct sweep_job {
    uint64_t buckets, dropped;
} sweep_job;

static skv_status sweep_step(skv *store, void *context, skv_wait *wait)
{
    sweep_job *job = context;
    uint64_t dropped = 0;
    skv_status status = skv_sweep_expired(store, job->buckets, &dropped, wait);
    job->dropped += dropped;
    return status;
}

PyObject *handle_sweep(Handle *self, PyObject *buckets)
{
    sweep_job job = {PyLong_AsUnsignedLongLong(buckets), 0};
    if (job.buckets == (uint64_t)-1 && PyErr_Occurred())
        return NULL;
    skv *store = handle_may_write(self) ? handle_enter(self) : NULL;
    if (!store)
        return NULL;
    int status = writing_run(self, store, sweep_step, &job, true);
    handle_leave(self);
    return status == SKV_OK ? PyLong_FromUnsignedLongLong(job.dropped) : skv_raise_status(self->state, status);
}

PyObject *handle_reclaim(Handle *self, PyObject *Py_UNUSED(unused))
{
    skv *store = handle_may_write(self) ? handle_enter(self) : NULL;
    if (!store)
        return NULL;
    uint32_t slots = 0;
    skv_status status;
    Py_BEGIN_ALLOW_THREADS
    status = skv_reclaim_dead(store, &slots);
    Py_END_ALLOW_THREADS
    handle_leave(self);
    return status == SKV_OK ? PyLong_FromUnsignedLong(slots) : skv_raise_status(self->state, (int)status);
}

PyObject *handle_set_clock(Handle *self, PyObject *now_object)
{
    unsigned long long now_ms = PyLong_AsUnsignedLongLong(now_object);
    if (now_ms == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    skv *store = handle_enter(self);
    if (!store)
        return NULL;
    skv_set_clock(store, now_ms);
    handle_leave(self);
    Py_RETURN_NONE;
}

PyObject *handle_now_ms(Handle *self, PyObject *Py_UNUSED(unused))
{
    skv *store = handle_enter(self);
    if (!store)
        return NULL;
    uint64_t now_ms = skv_now_ms(store);
    handle_leave(self);
    return PyLong_FromUnsignedLongLong(now_ms);
}
