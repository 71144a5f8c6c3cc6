/* durable.c: what shmkv/durable.py needs of the engine: filling a region from its log, joining one, snapshots.
 *
 * Module functions over a Region, because they come before there is a handle, or after it.
 *
 * Concurrency: any thread; the GIL is released around everything that touches a file.
 */
#include "durable.h"

#include <errno.h>

#include "../checkpoint.h"
#include "../os_files.h"
#include "../procs.h"
#include "../restore.h"
#include "region.h"

static PyObject *raise_errno(int status)
{
    errno = -status;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* The store of a Region, which `args` begins with. */
static skv *store_of(PyObject *module, PyObject *region)
{
    return region_store(PyModule_GetState(module), region);
}

/* How long to wait behind a process that is stopped in the middle of an append.  Below 0: 0, which to the engine means
 * its own five seconds; so that no time at all becomes a nanosecond. */
static uint64_t ns_of(double seconds)
{
    double ns = seconds * 1e9;
    return seconds < 0 ? 0 : ns < 1 ? 1 : ns < 9e18 ? (uint64_t)ns : UINT64_C(9000000000000000000);
}

/* ---- From disk to memory ---------------------------------------------------------------- */

static const char *const damage_words[] = {
    [SKV_UNDAMAGED] = NULL,
    [SKV_DAMAGE_FRAME] = "a frame that was written completely is damaged",
    [SKV_DAMAGE_HEAD] = "its head is damaged",
    [SKV_DAMAGE_MISSING] = "it is missing",
    [SKV_DAMAGE_GAP] = "it does not go on where the file before it ends",
    [SKV_DAMAGE_FOREIGN_LOG] = "it belongs to another log",
    [SKV_DAMAGE_VERSION] = "it was written by another version of shmkv",
    [SKV_DAMAGE_SNAPSHOT] = "it has no end",
};

const char *skv_damage_sentence(enum skv_damage_kind damage)
{
    return damage_words[damage];
}

/* Recovery in this process, for whoever shows how far it is. */
static _Atomic uint64_t restored_bytes;

PyObject *module_restored_bytes(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    return PyLong_FromUnsignedLongLong(atomic_load(&restored_bytes));
}

PyObject *module_durable_restore(PyObject *module, PyObject *args)
{
    PyObject *region;
    int folder;
    if (!PyArg_ParseTuple(args, "Oi:durable_restore", &region, &folder))
        return NULL;
    skv *store = store_of(module, region);
    if (!store)
        return NULL;
    skv_restored out = {.bytes = &restored_bytes};
    skv_files files;
    int status;
    atomic_store(&restored_bytes, 0);
    Py_BEGIN_ALLOW_THREADS
    status = skv_os_files(folder, &files);
    if (status == 0) {
        status = skv_restore(store, files, &out);
        files.done(files.context);
    }
    Py_END_ALLOW_THREADS
    if (status > 0)
        return skv_raise_status(PyModule_GetState(module), (int)out.status);
    if (status)
        return raise_errno(status);
    const skv_recovered *found = &out.found;
    return Py_BuildValue("{s:O,s:z,s:s,s:K,s:K,s:K,s:K,s:K,s:K,s:y#,s:y#}", "found", found->found ? Py_True : Py_False, "damage",
                         skv_damage_sentence(found->damage), "name", found->name, "offset", (unsigned long long)found->offset,
                         "cut", (unsigned long long)found->cut, "frames", (unsigned long long)out.frames, "operations",
                         (unsigned long long)out.operations, "evicted", (unsigned long long)out.evicted, "last", (unsigned long long)found->last.number, "uuid",
                         (const char *)found->last.uuid, (Py_ssize_t)sizeof found->last.uuid, "state", (const char *)found,
                         (Py_ssize_t)sizeof *found);
}

/* ---- The journal ---------------------------------------------------------------------------- */

/* `state`: what durable_restore gave, or nothing: the region is in use already.  `number`: of the segment to begin. */
PyObject *module_durable_begin(PyObject *module, PyObject *args)
{
    PyObject *region;
    int folder;
    Py_buffer uuid, state = {.buf = NULL};
    unsigned long long number = 0;
    double seconds = -1;
    if (!PyArg_ParseTuple(args, "Oiy*|y*Kd:durable_begin", &region, &folder, &uuid, &state, &number, &seconds))
        return NULL;
    skv *store = store_of(module, region);
    skv_recovered found;
    uint8_t own[16];
    const bool has_state = state.buf && state.len;
    bool good = uuid.len == sizeof own && (!has_state || state.len == sizeof found);
    if (good)
        memcpy(own, uuid.buf, sizeof own);
    if (good && has_state)
        memcpy(&found, state.buf, sizeof found);
    if (number && !has_state)   /* from what is in memory                                      */
        found = (skv_recovered){.end = store ? skv_load(&store->header->log.end) : 0,
                                .sequence = store ? skv_load(&store->header->log.sequence) : 0, .snapshot_end = SKV_KEPT_NOWHERE};
    if (number) {               /* not where the last file was broken off, but in a new one    */
        found.has_last = false;
        found.last.number = number;
    }
    const bool fresh = has_state || number;
    PyBuffer_Release(&uuid);
    if (state.buf)
        PyBuffer_Release(&state);
    if (!store || !good)
        return store ? PyErr_Format(PyExc_ValueError, "uuid or state has another length") : NULL;
    skv_files files;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = skv_os_files(folder, &files);
    if (status == 0)
        status = skv_journal_open(store, files, own, fresh ? &found : NULL, ns_of(seconds));
    Py_END_ALLOW_THREADS
    if (status)
        return raise_errno(status);
    Py_RETURN_NONE;
}

PyObject *module_durable_state(PyObject *module, PyObject *region)
{
    const skv *store = store_of(module, region);
    if (!store)
        return NULL;
    const skv_log_state *log = &store->header->log;
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:I,s:O}", "segment", (unsigned long long)skv_load_acquire(&log->segment), "end",
                         (unsigned long long)skv_load(&log->end), "synced", (unsigned long long)skv_load(&log->synced), "vouched",
                         (unsigned long long)skv_load(&log->vouched), "kept_from",
                         (unsigned long long)skv_load(&log->kept_from), "failed", (unsigned int)skv_load(&log->failed), "joined",
                         store->journal ? Py_True : Py_False);
}

/* About what a snapshot of the store would take. */
PyObject *module_durable_data_bytes(PyObject *module, PyObject *region)
{
    skv *store = store_of(module, region);
    skv_stats stats;
    skv_status status;
    if (!store)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = skv_get_stats(store, &stats);
    Py_END_ALLOW_THREADS
    if (status)
        return skv_raise_status(PyModule_GetState(module), (int)status);
    return PyLong_FromUnsignedLongLong(stats.value_bytes + stats.items * (SKV_OP_HEAD + 24u));
}

/* `seconds`: to wait for who is stopped in the middle of an append; none = 5. */
PyObject *module_durable_sync(PyObject *module, PyObject *args)
{
    PyObject *region;
    double seconds = -1;
    skv_status status;
    if (!PyArg_ParseTuple(args, "O|d:durable_sync", &region, &seconds))
        return NULL;
    skv *store = store_of(module, region);
    const uint64_t timeout_ns = ns_of(seconds);
    if (!store)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = skv_journal_sync(store, timeout_ns);
    Py_END_ALLOW_THREADS
    if (status)
        return skv_raise_status(PyModule_GetState(module), (int)status);
    Py_RETURN_NONE;
}

PyObject *module_durable_vouch(PyObject *module, PyObject *region)
{
    skv *store = store_of(module, region);
    skv_status status;
    bool said;
    if (!store)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = skv_journal_vouch(store, &said);
    Py_END_ALLOW_THREADS
    if (status)
        return skv_raise_status(PyModule_GetState(module), (int)status);
    return PyBool_FromLong(said);
}

/* (number, items, bytes), or None: another process is at it.  `seconds`: as of durable_sync. */
PyObject *module_durable_checkpoint(PyObject *module, PyObject *args)
{
    PyObject *region;
    double seconds = -1;
    skv_checkpoint made;
    skv_status status;
    if (!PyArg_ParseTuple(args, "O|d:durable_checkpoint", &region, &seconds))
        return NULL;
    skv *store = store_of(module, region);
    skv_wait wait = {.block = true, .shared = true, .timeout_ns = ns_of(seconds)};
    if (!store)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = skv_make_checkpoint(store, &made, &wait);
    Py_END_ALLOW_THREADS
    if (status == SKV_BUSY)
        Py_RETURN_NONE;
    if (status)
        return skv_raise_status(PyModule_GetState(module), (int)status);
    return Py_BuildValue("(KKK)", (unsigned long long)made.number, (unsigned long long)made.items, (unsigned long long)made.bytes);
}

/* (pid, start, pid namespace, does it live?), or None. */
static PyObject *process_of(skv *store, uint32_t slot)
{
    if (slot >= SKV_PROCS)
        Py_RETURN_NONE;
    const skv_proc *proc = &store->procs[slot];
    return Py_BuildValue("(IKKO)", (unsigned int)skv_load(&proc->pid), (unsigned long long)skv_load(&proc->start_time),
                         (unsigned long long)skv_load(&proc->pid_namespace), skv_is_living(store, slot) ? Py_True : Py_False);
}

PyObject *module_durable_holders(PyObject *module, PyObject *region)
{
    skv *store = store_of(module, region);
    return store ? Py_BuildValue("(NN)", process_of(store, skv_journal_holder(store)), process_of(store, skv_checkpoint_holder(store))) : NULL;
}

/* For tests: what the store takes for the time of day. */
PyObject *module_durable_set_wall_clock(PyObject *module, PyObject *args)
{
    PyObject *region;
    unsigned long long now_ms;
    if (!PyArg_ParseTuple(args, "OK:durable_set_wall_clock", &region, &now_ms))
        return NULL;
    skv *store = store_of(module, region);
    if (!store)
        return NULL;
    skv_set_wall_clock(store, now_ms);
    Py_RETURN_NONE;
}
