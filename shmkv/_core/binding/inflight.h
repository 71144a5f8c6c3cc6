/* inflight.h: a handle, and who is inside it.
 *
 * What: an operation enters its handle before it touches the region and leaves it afterwards;
 *       close() lets nobody in any more, waits until all others have left, and lets the region go.
 * How:  a count of operations in flight.  With the GIL a plain add is enough, also around a
 *       release of it; free-threaded it is an atomic one, and the order "count, then look at the
 *       gate" against close()'s "shut the gate, then look at the count" lets one of the two see
 *       the other.
 *
 * An operation that waits for a lock stays inside, so that close() lets it finish; but the signal
 * handlers that it runs between two slices may call close() themselves, and that must not wait for
 * its own thread.  So a thread notes in which handles it is while it runs them (pause_frame), close()
 * does not wait for those, and the operation finds itself without a store and says so.
 *
 * A handle that follows the name of its store (`reattach`) is at GATE_NAMED instead of GATE_OPEN, so that only its
 * operations take the slow way in: they ask the system what the name means, and go over to another store if it is
 * another one.  Who is inside goes on in the store that it entered: that region stays in `left` until an operation
 * comes in and finds nobody inside.
 *
 * The end of the interpreter ends threads where they wait for the GIL, inside of an operation too: their
 * counts stay, and whoever closes the handle after that waits for nobody, but leaves the region mapped.
 *
 * fork: a child has none of its parent's other threads, so its counts start anew (inflight.c).
 */
#ifndef SKV_INFLIGHT_H
#define SKV_INFLIGHT_H

#include "binding.h"

#include "../scratch.h"

enum codec_mode { CODEC_SAFE, CODEC_PICKLE, CODEC_JSON, CODEC_OBJECT };

/* What an operation meets at the door. */
enum gate {
    GATE_OPEN = 0,
    GATE_CLOSED = 1,                /* also before __init__                                    */
    GATE_NAMED = 2,                 /* looks at the name first: handle_enter_by_name           */
};

typedef struct Handle {
    PyObject_HEAD
    skv *_Atomic store;             /* NULL when closed and left by all                        */
    PyObject *region;               /* keeps `store` mapped; cleared together with it          */
    module_state *state;
    PyObject *encode, *decode;      /* callables of a codec that is not "safe", or NULL        */
    enum codec_mode codec;
    bool read_only;
    bool durable;                   /* changes write to files: never under the GIL            */
    bool stable;                    /* sync="always"                                          */
    _Atomic uint8_t gate;           /* enum gate                                               */
    _Atomic uint32_t in_flight;
    double lock_timeout;            /* seconds; may be infinite                                */
    skv_scratch_kept scratch;       /* the arrays of a batch                                   */
    PyObject *path;                 /* of the name to follow (bytes), or NULL                  */
    PyObject *_Atomic left;         /* list of the regions that were left for another one, or NULL */
    struct Handle *next, **link;    /* list of all handles; guarded by inflight.c's mutex      */
} Handle;

/* The store, which stays mapped until handle_leave; NULL with ClosedStoreError. */
static inline skv *handle_enter(Handle *handle);
static inline void handle_leave(Handle *handle);

/* The slow way in: of a handle that follows its name, or is closed. */
skv *handle_enter_by_name(Handle *handle);

/* Around Python code that an operation runs while it is inside (innermost first). */
typedef struct pause_frame {
    Handle *handle;
    struct pause_frame *outer;
} pause_frame;
void handle_pause(Handle *handle, pause_frame *frame);
void handle_resume(const pause_frame *frame);

/* Runs pending signal handlers inside an operation.  False: an exception is set (of a handler, or
 * because one of them closed this handle); the operation must leave without touching the store. */
bool handle_check_signals(Handle *handle);

/* Waits, without the GIL, until every operation of another thread on `store` that was in flight at the call has
 * ended, a fifth of a second at most: has it?  The caller is inside, and holds the GIL. */
bool store_wait_for_others(const skv *store);
/* Operations that a thread which closes `handle` has to wait for. */
uint32_t handle_others_inside(Handle *handle);
void handle_list_add(Handle *handle);
void handle_list_remove(Handle *handle);
bool handle_list_init(void);        /* registers the fork handlers, once per process           */

/* skv_raise_status, with what helps where the store is durable: it cannot be created anew. */
PyObject *handle_raise_status(Handle *handle, int status);
void skv_raise_closed(Handle *handle);
void skv_raise_read_only(Handle *handle);

static inline skv *handle_enter(Handle *handle)
{
#if SKV_FREE_THREADED
    atomic_fetch_add(&handle->in_flight, 1);    /* partner: handle_close                       */
    if (skv_likely(atomic_load(&handle->gate) == GATE_OPEN))
        return handle->store;
    atomic_fetch_sub(&handle->in_flight, 1);
#else
    if (skv_likely(skv_load(&handle->gate) == GATE_OPEN)) {
        skv_store(&handle->in_flight, skv_load(&handle->in_flight) + 1);
        return skv_load(&handle->store);
    }
#endif
    return handle_enter_by_name(handle);
}

static inline void handle_leave(Handle *handle)
{
#if SKV_FREE_THREADED
    atomic_fetch_sub_explicit(&handle->in_flight, 1, memory_order_release);
#else
    skv_store(&handle->in_flight, skv_load(&handle->in_flight) - 1);
#endif
}

/* For the start of a method, before it parses: NULL is never returned without an exception. */
static inline bool handle_is_open(Handle *handle)
{
    if (skv_likely(skv_load(&handle->gate) != GATE_CLOSED))
        return true;
    skv_raise_closed(handle);
    return false;
}

static inline bool handle_may_write(Handle *handle)
{
    if (!handle_is_open(handle))
        return false;
    if (skv_likely(!handle->read_only))
        return true;
    skv_raise_read_only(handle);
    return false;
}

#endif
