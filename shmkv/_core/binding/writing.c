/* writing.c: see writing.h. */
#include "writing.h"

#include <math.h>

#include "../procs.h"

/* What the caller of the timeout needs of a row: copied, because Python code runs afterwards. */
typedef struct blamed {
    uint32_t pid;
    uint64_t start_time, pid_namespace;
    bool known, is_own, lives;
} blamed;

static blamed read_blamed(skv *store, uint32_t slot)
{
    if (slot >= SKV_PROCS)
        return (blamed){.known = false};
    const skv_proc *proc = &store->procs[slot];
    return (blamed){skv_load(&proc->pid), skv_load(&proc->start_time), skv_load(&proc->pid_namespace), true,
                    slot == skv_load(&store->slot), skv_is_living(store, slot)};
}

/* (words about the process, what to do), or NULL without an exception: it is only for a message. */
static PyObject *describe_process(const blamed *who)
{
    PyObject *module = PyImport_ImportModule("shmkv.processes");
    PyObject *pair = module ? PyObject_CallMethod(module, "blame", "IKKO", (unsigned int)who->pid,
                                                  (unsigned long long)who->start_time,
                                                  (unsigned long long)who->pid_namespace, who->lives ? Py_True : Py_False)
                            : NULL;
    Py_XDECREF(module);
    if (pair && PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2)
        return pair;
    Py_XDECREF(pair);
    PyErr_Clear();
    return NULL;
}

static void raise_blaming(Handle *handle, const blamed *who, const char *seconds, PyObject *described)
{
    if (described)
        skv_raise(handle->state, SKV_E_LOCK_TIMEOUT,
                  "process %u (%S) held a lock of the store for longer than lock_timeout (%s s); nothing was changed: %S",
                  (unsigned int)who->pid, PyTuple_GET_ITEM(described, 0), seconds, PyTuple_GET_ITEM(described, 1));
    else
        skv_raise(handle->state, SKV_E_LOCK_TIMEOUT,
                  "process %u held a lock of the store for longer than lock_timeout (%s s); nothing was changed",
                  (unsigned int)who->pid, seconds);
}

void writing_raise_timeout(Handle *handle, skv *store, uint32_t slot)
{
    const blamed who = read_blamed(store, slot);
    char seconds[32];
    PyOS_snprintf(seconds, sizeof seconds, "%g", handle->lock_timeout);
    if (!who.known || who.is_own) {
        skv_raise(handle->state, SKV_E_LOCK_TIMEOUT,
                  "%s held a lock of the store for longer than lock_timeout (%s s); nothing was changed: try again",
                  who.known ? "another thread of this process" : "somebody", seconds);
        return;
    }
    pause_frame frame;
    handle_pause(handle, &frame);
    PyObject *described = describe_process(&who);
    handle_resume(&frame);
    raise_blaming(handle, &who, seconds, described);
    Py_XDECREF(described);
}

uint64_t writing_timeout_ns(const Handle *handle)
{
    double ns = handle->lock_timeout * 1e9;
    return ns < 1 ? 1 : ns < 9e18 ? (uint64_t)ns : 0;
}

int writing_wait(Handle *handle, skv *store, writing_step step, void *job)
{
    skv_wait wait = {.block = true, .shared = true, .stable = handle->stable, .timeout_ns = writing_timeout_ns(handle),
                     .blamed_slot = SKV_NO_PROC};
    for (;;) {
        skv_status status;
        Py_BEGIN_ALLOW_THREADS
        status = step(store, job, &wait);
        Py_END_ALLOW_THREADS
        if (status == SKV_TIMEOUT) {
            writing_raise_timeout(handle, store, wait.blamed_slot);
            return SKV_RAISED;
        }
        if (status != SKV_BUSY)
            return (int)status;
        if (!handle_check_signals(handle))
            return SKV_RAISED;
    }
}
