/* log.c: shmkv._core.Log: a log of one process, for faces that keep their values on disk.
 *
 * What: recovery, appending one operation as a frame, waiting until it is on stable storage, reading a frame again,
 *       rotation, removal of segments.
 *
 * Concurrency: any number of threads.  Frames are appended one at a time (`appending`); the files that frames are read
 *       from are kept open, and one that is removed meanwhile stays readable to whoever is reading it.  The GIL is
 *       released around everything that may wait for the disk.
 */
#include "binding.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "../os_files.h"
#include "../recover.h"
#include "../wal.h"
#include "args.h"
#include "durable.h"

#define LOSSES 100u             /* descriptors that user code closes in a row                */

typedef struct open_segment {
    uint64_t number, salt;
    int handle;
    uint64_t identity;          /* of its file: user code may close the handle                */
    uint32_t readers;
    bool gone;                  /* from the list: closed after the last reader                */
} open_segment;

typedef struct Log {
    PyObject_HEAD
    skv_files files;
    skv_wal wal;
    skv_log_state *state;
    skv_frame frame;            /* guarded by `appending`                                     */
    skv_recovered found;
    bool begun;
    pthread_mutex_t appending, opening;
    open_segment **segments;    /* guarded by `opening`                                       */
    size_t count, room;
} Log;

/* ---- Errors ---------------------------------------------------------------------------------- */

/* `status`: minus an errno. */
static PyObject *raise_status(Log *self, int status)
{
    if (status != -EROFS) {
        errno = -status;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    module_state *state = skv_state_of_type(Py_TYPE(self));
    return state ? skv_raise(state, SKV_E_LOG_FAILED,
                             "an earlier write or sync of the log failed, and what is on the disk is in doubt: close it, see to "
                             "the disk, and open it again")
                 : NULL;
}

static bool is_begun(const Log *self)
{
    if (!self->begun)
        PyErr_SetString(PyExc_ValueError, "the log is not begun yet");
    return self->begun;
}

/* ---- Life -------------------------------------------------------------------------------------- */

static bool is_own(const Log *self, const open_segment *segment)
{
    return skv_files_own(&self->files, segment->handle, segment->identity);
}

static void close_segment(Log *self, open_segment *segment)
{
    if (is_own(self, segment))
        self->files.close(self->files.context, segment->handle);
    free(segment);
}

static PyObject *log_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"folder", NULL};
    int folder;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i:Log", names, &folder))
        return NULL;
    Log *self = (Log *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->wal.handle = self->wal.synced.handle = -1;
    pthread_mutex_init(&self->appending, NULL);
    pthread_mutex_init(&self->opening, NULL);
    self->state = aligned_alloc(64, sizeof *self->state);
    int status = self->state ? skv_os_files(folder, &self->files) : -ENOMEM;
    if (status) {
        Py_DECREF(self);
        errno = -status;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    memset(self->state, 0, sizeof *self->state);
    return (PyObject *)self;
}

static void log_dealloc(Log *self)
{
    PyTypeObject *type = Py_TYPE(self);
    skv_wal_close(&self->wal);
    for (size_t i = 0; i < self->count; i++)
        close_segment(self, self->segments[i]);
    free(self->segments);
    skv_frame_free(&self->frame);
    free(self->state);
    if (self->files.done)
        self->files.done(self->files.context);
    pthread_mutex_destroy(&self->appending);
    pthread_mutex_destroy(&self->opening);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- Frames as Python sees them -------------------------------------------------------------------- */

static PyObject *key_object(const skv_op *op)
{
    return op->bytes_key ? PyBytes_FromStringAndSize((const char *)op->key, op->key_len)
                         : PyUnicode_DecodeUTF8((const char *)op->key, op->key_len, NULL);
}

/* (kind, key, value or None, expires_ms) */
static PyObject *op_object(const skv_op *op, bool with_value)
{
    PyObject *key = key_object(op);
    PyObject *value = with_value ? PyBytes_FromStringAndSize((const char *)op->value, (Py_ssize_t)op->value_len) : Py_NewRef(Py_None);
    if (!key || !value) {
        Py_XDECREF(key);
        Py_XDECREF(value);
        return NULL;
    }
    return Py_BuildValue("iNNK", (int)op->kind, key, value, (unsigned long long)op->expires_ms);
}

static PyObject *ops_object(const skv_frame_view *view, bool with_values)
{
    PyObject *list = PyList_New(0);
    skv_op op;
    uint64_t at = 0;
    while (list && skv_frame_next(view, &at, &op)) {
        PyObject *each = op_object(&op, with_values);
        if (!each || PyList_Append(list, each) < 0)
            Py_CLEAR(list);
        Py_XDECREF(each);
    }
    if (list && at != view->length) {
        PyErr_SetString(PyExc_ValueError, "a frame with a good checksum holds no operations");
        Py_CLEAR(list);
    }
    return list;
}

#define RAISED 1                /* what `apply` returns when an exception is set              */

/* Calls apply(segment, offset, size, operations without values). */
static int call_with_frame(void *to, const skv_frame_view *view, const skv_segment *segment, uint64_t position)
{
    PyObject *ops = ops_object(view, false);
    if (!ops)
        return RAISED;
    PyObject *answer = PyObject_CallFunction(to, "KKKN", (unsigned long long)segment->number,
                                             (unsigned long long)(SKV_SEGMENT_HEAD + position - segment->base),
                                             (unsigned long long)view->size, ops);
    Py_XDECREF(answer);
    return answer ? 0 : RAISED;
}

/* ---- Recovery ---------------------------------------------------------------------------------------- */

static PyObject *log_recover(Log *self, PyObject *apply)
{
    int status = skv_recover(self->files, true, call_with_frame, apply, &self->found);
    if (status == RAISED)
        return NULL;
    if (status)
        return raise_status(self, status);
    const skv_recovered *found = &self->found;
    return Py_BuildValue("{s:O,s:K,s:K,s:K,s:z,s:s,s:K}", "found", found->found ? Py_True : Py_False,
                         "first", (unsigned long long)found->first, "last", (unsigned long long)found->last.number,
                         "cut", (unsigned long long)found->cut, "damage", skv_damage_sentence(found->damage),
                         "name", found->name, "offset", (unsigned long long)found->offset);
}

static PyObject *log_begin(Log *self, PyObject *arg)
{
    Py_buffer uuid;
    if (PyObject_GetBuffer(arg, &uuid, PyBUF_SIMPLE) < 0)
        return NULL;
    uint8_t own[16] = {0};
    static const uint8_t none[16];
    bool good = uuid.len == sizeof own;
    if (good)
        memcpy(own, uuid.buf, sizeof own);
    PyBuffer_Release(&uuid);
    if (!good)
        return PyErr_Format(PyExc_ValueError, "uuid must have %zu bytes", sizeof own);
    const skv_recovered *found = &self->found;
    if (memcmp(found->last.uuid, none, sizeof none) != 0)
        memcpy(own, found->last.uuid, sizeof own);
    int status;
    Py_BEGIN_ALLOW_THREADS
    skv_wal_init(&self->wal, self->files, skv_private_turns(), self->state, own);
    status = found->has_last ? skv_wal_resume_locked(&self->wal, &found->last, found->synced, found->end, found->sequence)
                             : skv_wal_begin_segment_locked(&self->wal, found->last.number ? found->last.number : 1, found->end, found->sequence);
    Py_END_ALLOW_THREADS
    if (status)
        return raise_status(self, status);
    self->begun = true;
    Py_RETURN_NONE;
}

/* ---- Appending ------------------------------------------------------------------------------------------ */

typedef struct place {
    uint64_t segment, offset, size, position;
} place;

static int append_op(Log *self, const skv_op *op, place *at)
{
    pthread_mutex_lock(&self->appending);
    int status = skv_frame_begin(&self->frame, SKV_FRAME_CHANGE) && skv_frame_add(&self->frame, op) ? 0 : -ENOMEM;
    if (status == 0)
        status = skv_wal_append_locked(&self->wal, &self->frame, &at->position);
    if (status == 0) {
        at->segment = skv_load(&self->state->segment);
        at->size = self->frame.size;
        at->offset = SKV_SEGMENT_HEAD + at->position - at->size - self->wal.base;
    }
    pthread_mutex_unlock(&self->appending);
    return status;
}

static PyObject *log_append(Log *self, PyObject *args)
{
    int kind;
    const char *key;
    Py_ssize_t key_len;
    Py_buffer value;
    unsigned long long expires_ms;
    if (!is_begun(self) || !PyArg_ParseTuple(args, "is#y*K:append", &kind, &key, &key_len, &value, &expires_ms))
        return NULL;
    skv_op op = {.kind = (enum skv_op_kind)kind, .key = (const uint8_t *)key, .key_len = (uint32_t)key_len,
                 .value = value.buf, .value_len = (uint64_t)value.len, .expires_ms = expires_ms};
    place at = {0};
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = append_op(self, &op, &at);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&value);
    if (status)
        return raise_status(self, status);
    return Py_BuildValue("KKKK", (unsigned long long)at.segment, (unsigned long long)at.offset, (unsigned long long)at.size,
                         (unsigned long long)at.position);
}

static PyObject *log_sync(Log *self, PyObject *arg)
{
    unsigned long long position = PyLong_AsUnsignedLongLong(arg);
    if ((position == (unsigned long long)-1 && PyErr_Occurred()) || !is_begun(self))
        return NULL;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = skv_wal_sync(&self->wal, position);
    Py_END_ALLOW_THREADS
    if (status)
        return raise_status(self, status);
    Py_RETURN_NONE;
}

static PyObject *log_look(Log *self, PyObject *Py_UNUSED(none))
{
    int status;
    if (!is_begun(self))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&self->appending);
    status = skv_wal_look_locked(&self->wal);
    pthread_mutex_unlock(&self->appending);
    Py_END_ALLOW_THREADS
    if (status)
        return raise_status(self, status);
    Py_RETURN_NONE;
}

static PyObject *log_rotate(Log *self, PyObject *Py_UNUSED(none))
{
    int status;
    if (!is_begun(self))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&self->appending);
    status = skv_wal_rotate_locked(&self->wal);
    pthread_mutex_unlock(&self->appending);
    Py_END_ALLOW_THREADS
    if (status)
        return raise_status(self, status);
    return PyLong_FromUnsignedLongLong(skv_load(&self->state->segment));
}

/* ---- Reading ----------------------------------------------------------------------------------------------- */

static int open_to_read(Log *self, uint64_t number, open_segment **out)
{
    char name[SKV_NAME_ROOM];
    uint8_t head[SKV_SEGMENT_HEAD];
    skv_segment segment;
    skv_segment_name(SKV_SEGMENT_LOG, number, name);
    int handle = self->files.open(self->files.context, name, SKV_OPEN_READ);
    if (handle < 0)
        return handle;
    open_segment *made = malloc(sizeof *made);
    if (!made) {
        self->files.close(self->files.context, handle);
        return -ENOMEM;
    }
    *made = (open_segment){.number = number, .handle = handle, .identity = self->files.identity(self->files.context, handle)};
    int64_t got = self->files.read(self->files.context, handle, head, sizeof head, 0);
    int status = !is_own(self, made) ? -EBADF : got < 0 ? (int)got : 0;
    if (status == 0 && skv_segment_decode(head, (size_t)got, &segment) != SKV_SEGMENT_OK)
        status = -EBADMSG;
    if (status) {
        close_segment(self, made);
        return status;
    }
    made->salt = skv_segment_salt(&segment);
    *out = made;
    return 0;
}

static int add_segment(Log *self, uint64_t number, open_segment **out)
{
    if (self->count == self->room) {
        size_t room = self->room * 2 + 8;
        open_segment **more = realloc(self->segments, room * sizeof(open_segment *));
        if (!more)
            return -ENOMEM;
        self->segments = more;
        self->room = room;
    }
    int status = open_to_read(self, number, out);
    if (status == 0)
        self->segments[self->count++] = *out;
    return status;
}

/* From the end: what was written last is read most. */
static int enter_segment(Log *self, uint64_t number, open_segment **out)
{
    int status = 0;
    *out = NULL;
    pthread_mutex_lock(&self->opening);
    for (size_t i = self->count; i-- > 0 && !*out;)
        if (self->segments[i]->number == number)
            *out = self->segments[i];
    if (!*out)
        status = add_segment(self, number, out);
    if (*out)
        (*out)->readers++;
    pthread_mutex_unlock(&self->opening);
    return status;
}

static void leave_segment(Log *self, open_segment *segment)
{
    pthread_mutex_lock(&self->opening);
    bool last = --segment->readers == 0 && segment->gone;
    pthread_mutex_unlock(&self->opening);
    if (last)
        close_segment(self, segment);
}

/* The next reader opens it anew, if it is there. */
static void forget_segment(Log *self, uint64_t number)
{
    open_segment *closed = NULL;
    pthread_mutex_lock(&self->opening);
    for (size_t i = 0; i < self->count; i++) {
        if (self->segments[i]->number != number)
            continue;
        open_segment *segment = self->segments[i];
        self->segments[i] = self->segments[--self->count];
        segment->gone = true;
        closed = segment->readers ? NULL : segment;
        break;
    }
    pthread_mutex_unlock(&self->opening);
    if (closed)
        close_segment(self, closed);
}

/* -EBADF: user code has closed the handle. */
static int read_frame_once(Log *self, uint64_t number, uint64_t offset, size_t size, uint8_t *bytes, skv_frame_view *view)
{
    open_segment *segment;
    int status = enter_segment(self, number, &segment);
    if (status)
        return status;
    int64_t got = self->files.read(self->files.context, segment->handle, bytes, size, offset);
    if (got < 0)
        status = (int)got;
    else if (skv_frame_read(bytes, (uint64_t)got, segment->salt, view) != SKV_FRAME_OK)
        status = -EBADMSG;
    if (status && !is_own(self, segment)) {
        forget_segment(self, number);
        status = -EBADF;
    }
    leave_segment(self, segment);
    return status;
}

/* The bytes of a frame, checked; *bytes is the caller's to free. */
static int read_frame(Log *self, uint64_t number, uint64_t offset, size_t size, uint8_t **bytes, skv_frame_view *view)
{
    *bytes = malloc(size ? size : 1);
    int status = *bytes ? -EBADF : -ENOMEM;
    for (uint32_t i = 0; status == -EBADF && i < LOSSES; i++)
        status = read_frame_once(self, number, offset, size, *bytes, view);
    return status;
}

static PyObject *log_read(Log *self, PyObject *args)
{
    unsigned long long number, offset, size;
    if (!PyArg_ParseTuple(args, "KKK:read", &number, &offset, &size))
        return NULL;
    uint8_t *bytes;
    skv_frame_view view;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = read_frame(self, number, offset, (size_t)size, &bytes, &view);
    Py_END_ALLOW_THREADS
    PyObject *ops = status ? NULL : ops_object(&view, true);
    free(bytes);
    return status ? raise_status(self, status) : ops;
}

/* [(offset, size, operations), ...]: the frames of `reader` that are up to `most` bytes together, one at least. */
static int collect_frames(skv_reader *reader, uint64_t most, PyObject *list)
{
    skv_frame_view view;
    const uint64_t from = reader->at;
    while (reader->at == from || reader->at - from < most) {
        uint64_t offset = reader->at;
        enum skv_read_result result = skv_reader_next(reader, &view);
        if (result == SKV_READ_END)
            return 0;
        if (result != SKV_READ_FRAME)
            return result == SKV_READ_ERROR ? reader->error : result == SKV_READ_NO_MEMORY ? -ENOMEM : -EBADMSG;
        PyObject *ops = ops_object(&view, false);
        PyObject *each = ops ? Py_BuildValue("KKN", (unsigned long long)offset, (unsigned long long)view.size, ops) : NULL;
        int added = each ? PyList_Append(list, each) : -1;
        Py_XDECREF(each);
        if (added < 0)
            return RAISED;
    }
    return 0;
}

static PyObject *log_frames(Log *self, PyObject *args)
{
    unsigned long long number, at, sequence, most;
    char name[SKV_NAME_ROOM];
    skv_reader reader;
    enum skv_segment_fault fault;
    if (!PyArg_ParseTuple(args, "KKKK:frames", &number, &at, &sequence, &most))
        return NULL;
    PyObject *list = PyList_New(0);
    if (!list)
        return NULL;
    skv_segment_name(SKV_SEGMENT_LOG, number, name);
    int status = skv_reader_open(&reader, self->files, name, &fault);
    if (status == 0 && fault != SKV_SEGMENT_OK)
        status = -EBADMSG;
    if (status == 0 && at) {
        reader.at = reader.bytes_at = at;
        reader.sequence = sequence;
    }
    if (status == 0)
        status = collect_frames(&reader, most, list);
    skv_reader_close(&reader);
    if (status == 0)
        return Py_BuildValue("NKK", list, (unsigned long long)reader.at, (unsigned long long)reader.sequence);
    Py_DECREF(list);
    return status == RAISED ? NULL : raise_status(self, status);
}

/* ---- Removing -------------------------------------------------------------------------------------------------- */

static PyObject *log_remove(Log *self, PyObject *arg)
{
    char name[SKV_NAME_ROOM];
    unsigned long long number = PyLong_AsUnsignedLongLong(arg);
    if (number == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    skv_segment_name(SKV_SEGMENT_LOG, number, name);
    int status;
    Py_BEGIN_ALLOW_THREADS
    forget_segment(self, number);
    status = self->files.unlink(self->files.context, name);
    if (status == 0 || status == -ENOENT)
        status = self->files.sync_folder(self->files.context);
    Py_END_ALLOW_THREADS
    if (status)
        return raise_status(self, status);
    Py_RETURN_NONE;
}

/* ---- The type ----------------------------------------------------------------------------------------------------- */

static PyObject *get_segment(Log *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(skv_load(&self->state->segment));
}

static PyObject *get_end(Log *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(skv_load_acquire(&self->state->end));
}

static PyObject *get_synced(Log *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(skv_load_acquire(&self->state->synced));
}

static PyGetSetDef log_attributes[] = {
    {"segment", (getter)get_segment, NULL, "Number of the segment that is appended to.", NULL},
    {"end", (getter)get_end, NULL, "Position behind the last frame, bytes since the log began.", NULL},
    {"synced", (getter)get_synced, NULL, "What is below this position is on stable storage.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef log_methods[] = {
    SKV_METHOD("recover", log_recover, METH_O,
               "recover(apply)\n--\n\nRead the log: apply(segment, offset, size, [(kind, key, None, expires_ms), ...]) for each "
               "frame.  A dict of what was found."),
    SKV_METHOD("begin", log_begin, METH_O,
               "begin(uuid)\n--\n\nGet ready to append, behind what was recovered; `uuid` is for a new log."),
    SKV_METHOD("append", log_append, METH_VARARGS,
               "append(kind, key, value, expires_ms)\n--\n\n(segment, offset, size, position) of the new frame."),
    SKV_METHOD("sync", log_sync, METH_O, "sync(position)\n--\n\nWait until what is below it is on stable storage."),
    SKV_METHOD("look", log_look, METH_NOARGS,
               "look()\n--\n\nOSError (ESTALE): its folder, or the file that is appended to, was removed or replaced."),
    SKV_METHOD("rotate", log_rotate, METH_NOARGS, "rotate()\n--\n\nBegin the next segment; its number."),
    SKV_METHOD("read", log_read, METH_VARARGS,
               "read(segment, offset, size)\n--\n\n[(kind, key, value, expires_ms), ...] of a frame."),
    SKV_METHOD("frames", log_frames, METH_VARARGS,
               "frames(segment, at, sequence, most)\n--\n\n([(offset, size, operations), ...], at, sequence): frames of up to "
               "`most` bytes, from `at` on (0 = the first), and where to go on; none at its end."),
    SKV_METHOD("remove", log_remove, METH_O, "remove(segment)\n--\n\nRemove the file of a segment, if it is there."),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot log_slots[] = {
    {Py_tp_doc, "Log(folder)\n--\n\nA log in the folder behind a descriptor, of this process alone."},
    {Py_tp_new, log_new},
    {Py_tp_dealloc, log_dealloc},
    {Py_tp_getset, log_attributes},
    {Py_tp_methods, log_methods},
    {0, NULL},
};

PyType_Spec skv_log_spec = {
    .name = "shmkv._core.Log",
    .basicsize = sizeof(Log),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = log_slots,
};
