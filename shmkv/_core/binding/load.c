/* load.c: _load_tsv: text into a store, without the GIL (see ../import.h).
 *
 * How:  in rounds of a few MiB, so that signals are handled between them; each enters the handle anew.
 *       A failure after some lines were stored (a full store) first returns what was: the caller, who
 *       counts, comes again with the rest and meets the failure then.
 */
#include "../import.h"
#include "args.h"
#include "handle.h"
#include "writing.h"

#include "../journal.h"

#define ROUND_BYTES ((size_t)8 << 20)

typedef struct load_job {
    const uint8_t *text;        /* what is left                                                */
    size_t len, round;          /* of it; what the next round may look at                      */
    int on_bad;
    uint64_t first_line, ttl_ms;
    uint64_t deadline_ns;       /* of the rounds that get nowhere                              */
    uint64_t stored, lines, consumed;
    skv_load_result last;
} load_job;

/* One call of the engine; SKV_BUSY counts as a round that got less far.  A status or SKV_RAISED. */
static int load_round(Handle *self, load_job *job)
{
    skv *store = handle_enter(self);
    if (!store)
        return SKV_RAISED;
    skv_wait wait = {.block = true, .shared = true, .timeout_ns = writing_timeout_ns(self), .deadline_ns = job->deadline_ns,
                     .blamed_slot = SKV_NO_PROC};
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = (int)skv_load_tsv(store, job->text, job->round, job->on_bad, job->first_line, job->ttl_ms, &wait, &job->last);
    if (self->stable && job->last.stored) {
        skv_status synced = skv_journal_sync(store, wait.timeout_ns);    /* once for all lines               */
        status = synced && (status == SKV_OK || status == SKV_BUSY) ? (int)synced : status;
    }
    Py_END_ALLOW_THREADS
    job->deadline_ns = wait.deadline_ns;
    if (status == SKV_TIMEOUT && !job->consumed && !job->last.consumed) {
        writing_raise_timeout(self, store, wait.blamed_slot);
        status = SKV_RAISED;
    }
    handle_leave(self);
    return status == SKV_BUSY ? SKV_OK : status;
}

static void load_advance(load_job *job, bool whole_text)
{
    const skv_load_result *last = &job->last;
    const bool got_nowhere = !last->consumed;
    job->text += last->consumed;
    job->len -= last->consumed;
    job->first_line += last->lines;
    job->stored += last->stored;
    job->lines += last->lines;
    job->consumed += last->consumed;
    if (!got_nowhere)
        job->deadline_ns = 0;
    job->round = got_nowhere && !whole_text ? job->round * 2 : ROUND_BYTES;     /* a longer line    */
    if (job->round > job->len)
        job->round = job->len;
}

static bool add_bad_lines(PyObject *list, const skv_load_result *from)
{
    for (uint32_t i = 0; i < from->bad_count; i++) {
        PyObject *pair = Py_BuildValue("(Ks)", (unsigned long long)from->bad[i].line, skv_bad_line_words(from->bad[i].reason));
        int failed = pair ? PyList_Append(list, pair) : -1;
        Py_XDECREF(pair);
        if (failed)
            return false;
    }
    return true;
}

/* Up to the last LF, or to a malformed line.  False: raised; what was stored stays. */
static bool load_all(Handle *self, load_job *job, PyObject *bad)
{
    while (job->len && job->text[job->len - 1] != '\n')
        job->len--;
    job->round = job->len < ROUND_BYTES ? job->len : ROUND_BYTES;
    while (job->len) {
        int status = load_round(self, job);
        if (status == SKV_RAISED)
            return false;
        load_advance(job, job->round == job->len);
        if (status != SKV_OK && !job->consumed) {
            handle_raise_status(self, status);
            return false;
        }
        if (!add_bad_lines(bad, &job->last))
            return false;
        if (status != SKV_OK || job->last.stopped)
            return true;
        if (PyErr_CheckSignals())
            return false;
    }
    return true;
}

static bool unsigned_parse(PyObject *number, uint64_t *out)
{
    *out = PyLong_AsUnsignedLongLong(number);
    return *out != (uint64_t)-1 || !PyErr_Occurred();
}

PyObject *handle_load_tsv(Handle *self, PyObject *const *args, Py_ssize_t nargs)
{
    static const signature to = {"_load_tsv", 4, 4, 4, {"buffer", "on_bad", "first_line", "ttl_ms"}};
    PyObject *given[4];
    load_job job = {0};
    Py_buffer buffer;
    if (!args_bind(&to, args, nargs, NULL, given) || !handle_may_write(self) || !unsigned_parse(given[2], &job.first_line)
        || !unsigned_parse(given[3], &job.ttl_ms))
        return NULL;
    job.on_bad = PyObject_IsTrue(given[1]);
    if (job.on_bad < 0 || PyObject_GetBuffer(given[0], &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    job.text = buffer.buf;
    job.len = (size_t)buffer.len;
    PyObject *bad = PyList_New(0), *result = NULL;
    if (bad && load_all(self, &job, bad))
        result = Py_BuildValue("(KKKO)", (unsigned long long)job.stored, (unsigned long long)job.lines,
                               (unsigned long long)job.consumed, bad);
    Py_XDECREF(bad);
    PyBuffer_Release(&buffer);
    return result;
}
