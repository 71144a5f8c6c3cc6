/* writing.c: see writing.h. */
#include "writing.h"

#include <math.h>

#include "../engine.h"

/* What the caller of the timeout needs of a row: copied, because Python code runs afterwards. */
typedef struct blamed {
    uint32_t pid;
    uint64_t start_time, pid_namespace;
    bool known, is_own;
} blamed;

static blamed read_blamed(skv *store, uint32_t slot)
{
    if (slot >= SKV_PROCS)
        return (blamed){.known = false};
    const skv_proc *proc = &store->procs[slot];
    return (blamed){skv_load(&proc->pid), skv_load(&proc->start_time), skv_load(&proc->pid_namespace), true,
                    slot == skv_load(&store->slot)};
}

/* " (words about the process)", or "": it is only for a message. */
static PyObject *describe_process(const blamed *who)
{
    PyObject *module = PyImport_ImportModule("shmkv.processes");
    PyObject *words = module ? PyObject_CallMethod(module, "describe", "IKK", (unsigned int)who->pid,
                                                   (unsigned long long)who->start_time,
                                                   (unsigned long long)who->pid_namespace)
                             : NULL;
    Py_XDECREF(module);
    PyObject *text = words ? PyUnicode_FromFormat(" (%S)", words) : NULL;
    Py_XDECREF(words);
    if (text)
        return text;
    PyErr_Clear();
    return PyUnicode_FromString("");
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
    if (described)
        skv_raise(handle->state, SKV_E_LOCK_TIMEOUT,
                  "process %u%U held a lock of the store for longer than lock_timeout (%s s); nothing was changed: "
                  "continue that process (kill -CONT %u) or end it, then try again",
                  (unsigned int)who.pid, described, seconds, (unsigned int)who.pid);
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
