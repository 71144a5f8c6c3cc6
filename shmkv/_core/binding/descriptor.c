/* descriptor.c: shmkv._core.Descriptor: a file descriptor that is closed with the last reference to it.
 *
 * What: open a file, or an object of shared memory, and own what the system gave.
 * How:  a signal handler may raise between any two steps of Python code, and what is a mere number then is lost.  The
 *       number is an object's before any Python code can run.  It is used like the number, by __index__ and fileno().
 *
 *       Closed only while it still is the file that was opened: user code that closes all descriptors may have closed
 *       it, and another file have its number.
 *
 *       One that carries a lock which is to end with this process is private: a forked child, in which the lock
 *       would live on, closes it before it does anything else.  It is opened under the mutex that a fork takes, so
 *       that no child is born with one that is not listed yet.
 *
 * Concurrency: as of a file object: close() beside a use is the caller's fault; two close() are none.
 */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Descriptor {
    PyObject_HEAD
    _Atomic int fd;             /* -1 = closed                                                */
    dev_t dev;
    ino_t ino;
    struct Descriptor *next, **link;    /* of the private ones; NULL = is none                */
} Descriptor;

/* ---- Private ones ------------------------------------------------------------------------ */

static pthread_mutex_t private_mutex = PTHREAD_MUTEX_INITIALIZER;      /* a leaf              */
static Descriptor *all_private;                 /* guarded by private_mutex                    */

static void list_locked(Descriptor *self)
{
    self->next = all_private;
    self->link = &all_private;
    if (all_private)
        all_private->link = &self->next;
    all_private = self;
}

static void unlist(Descriptor *self)
{
    pthread_mutex_lock(&private_mutex);
    if (self->link) {
        *self->link = self->next;
        if (self->next)
            self->next->link = self->link;
        self->link = NULL;
    }
    pthread_mutex_unlock(&private_mutex);
}

static void close_if_ours(const Descriptor *self, int fd)
{
    struct stat now;
    if (fd >= 0 && fstat(fd, &now) == 0 && now.st_dev == self->dev && now.st_ino == self->ino)
        close(fd);
}

static void before_fork(void)
{
    pthread_mutex_lock(&private_mutex);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&private_mutex);
}

static void after_fork_in_child(void)
{
    int saved = errno;
    pthread_mutex_init(&private_mutex, NULL);
    for (Descriptor *each = all_private; each; each = each->next) {
        close_if_ours(each, atomic_exchange(&each->fd, -1));
        each->link = NULL;
    }
    all_private = NULL;
    errno = saved;
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* Without the GIL, which a thread that forks holds while it waits for the mutex. */
static int open_listed(Descriptor *self, int folder, const char *name, int flags, mode_t mode)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct stat now;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&private_mutex);
    int fd = openat(folder, name, flags | O_CLOEXEC, mode);
    if (fd >= 0 && fstat(fd, &now) == 0) {
        self->dev = now.st_dev;
        self->ino = now.st_ino;
        atomic_store(&self->fd, fd);
        list_locked(self);
    }
    pthread_mutex_unlock(&private_mutex);
    return fd;
}

static PyObject *descriptor_open_private(PyTypeObject *type, PyObject *args)
{
    PyObject *given, *path;
    int flags, mode = 0600, folder = AT_FDCWD, fd;
    if (!PyArg_ParseTuple(args, "Oi|ii:open_private", &given, &flags, &mode, &folder) || !PyUnicode_FSConverter(given, &path))
        return NULL;
    Descriptor *self = (Descriptor *)type->tp_alloc(type, 0);
    const char *name = PyBytes_AS_STRING(path);
    if (self) {
        atomic_init(&self->fd, -1);
        Py_BEGIN_ALLOW_THREADS
        fd = open_listed(self, folder, name, flags, (mode_t)mode);
        Py_END_ALLOW_THREADS
        if (fd < 0) {
            PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, given);
            Py_CLEAR(self);
        }
    }
    Py_DECREF(path);
    return (PyObject *)self;
}

static PyObject *descriptor_share(Descriptor *self, PyObject *Py_UNUSED(unused))
{
    unlist(self);
    Py_RETURN_NONE;
}

/* ---- All ----------------------------------------------------------------------------------- */

static void close_number(Descriptor *self)
{
    unlist(self);
    close_if_ours(self, atomic_exchange(&self->fd, -1));
}

/* Takes `fd` over, also where it raises; `fd` -1: what errno says. */
static PyObject *own(PyTypeObject *type, int fd, PyObject *path)
{
    struct stat now;
    if (fd < 0 || fstat(fd, &now) < 0) {
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
        return NULL;
    }
    Descriptor *self = (Descriptor *)type->tp_alloc(type, 0);
    if (!self) {
        close(fd);
        return NULL;
    }
    atomic_init(&self->fd, fd);
    self->dev = now.st_dev;
    self->ino = now.st_ino;
    return (PyObject *)self;
}

static PyObject *descriptor_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    int fd;
    return PyArg_ParseTuple(args, "i:Descriptor", &fd) ? own(type, fd, NULL) : NULL;
}

static PyObject *descriptor_open(PyTypeObject *type, PyObject *args)
{
    PyObject *given, *path;
    int flags, mode = 0600, folder = AT_FDCWD, fd;
    if (!PyArg_ParseTuple(args, "Oi|ii:open", &given, &flags, &mode, &folder) || !PyUnicode_FSConverter(given, &path))
        return NULL;
    const char *name = PyBytes_AS_STRING(path);
    Py_BEGIN_ALLOW_THREADS
    fd = openat(folder, name, flags | O_CLOEXEC, (mode_t)mode);
    Py_END_ALLOW_THREADS
    PyObject *self = own(type, fd, given);
    Py_DECREF(path);
    return self;
}

static PyObject *descriptor_shared(PyTypeObject *type, PyObject *args)
{
    PyObject *name;
    int flags, mode, fd;
    if (!PyArg_ParseTuple(args, "Uii:shared", &name, &flags, &mode))
        return NULL;
    const char *text = PyUnicode_AsUTF8(name);
    if (!text)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    fd = shm_open(text, flags, (mode_t)mode);
    Py_END_ALLOW_THREADS
    return own(type, fd, name);
}

PyObject *skv_unlink_shared(PyObject *Py_UNUSED(module), PyObject *name)
{
    const char *text = PyUnicode_AsUTF8(name);
    if (!text)
        return NULL;
    if (shm_unlink(text) < 0)
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name);
    Py_RETURN_NONE;
}

static void descriptor_dealloc(Descriptor *self)
{
    PyTypeObject *type = Py_TYPE(self);
    close_number(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *descriptor_close(Descriptor *self, PyObject *Py_UNUSED(unused))
{
    close_number(self);
    Py_RETURN_NONE;
}

static PyObject *descriptor_number(Descriptor *self)
{
    return PyLong_FromLong(atomic_load(&self->fd));
}

static PyObject *descriptor_fileno(Descriptor *self, PyObject *Py_UNUSED(unused))
{
    return descriptor_number(self);
}

static PyObject *descriptor_detach(Descriptor *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromLong(atomic_exchange(&self->fd, -1));
}

static PyObject *descriptor_enter(Descriptor *self, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef((PyObject *)self);
}

static PyMethodDef descriptor_methods[] = {
    SKV_METHOD("open", descriptor_open, METH_VARARGS | METH_CLASS,
               "open(path, flags, mode=0o600, folder=AT_FDCWD, /)\n--\n\nOf a file, closed by exec."),
    SKV_METHOD("open_private", descriptor_open_private, METH_VARARGS | METH_CLASS,
               "open_private(path, flags, mode=0o600, folder=AT_FDCWD, /)\n--\n\nThe same, and closed in a forked child."),
    SKV_METHOD("share", descriptor_share, METH_NOARGS, "share()\n--\n\nChildren that are forked from now on have it too."),
    SKV_METHOD("shared", descriptor_shared, METH_VARARGS | METH_CLASS,
               "shared(name, flags, mode, /)\n--\n\nOf an object of shared memory: shm_open(3)."),
    SKV_METHOD("close", descriptor_close, METH_NOARGS, "close()\n--\n\nClose it; may be called again."),
    SKV_METHOD("fileno", descriptor_fileno, METH_NOARGS, "fileno()\n--\n\nThe number; -1: it is closed."),
    SKV_METHOD("detach", descriptor_detach, METH_NOARGS, "detach()\n--\n\nThe number, which is the caller's to close now."),
    SKV_METHOD("__enter__", descriptor_enter, METH_NOARGS, NULL),
    SKV_METHOD("__exit__", descriptor_close, METH_VARARGS, NULL),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot descriptor_slots[] = {
    {Py_tp_doc, "Descriptor(number)\n--\n\nA file descriptor that is closed with the last reference to it."},
    {Py_tp_new, descriptor_new},
    {Py_tp_dealloc, descriptor_dealloc},
    {Py_tp_methods, descriptor_methods},
    {Py_nb_index, descriptor_number},
    {0, NULL},
};

PyType_Spec skv_descriptor_spec = {
    .name = "shmkv._core.Descriptor",
    .basicsize = sizeof(Descriptor),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = descriptor_slots,
};
