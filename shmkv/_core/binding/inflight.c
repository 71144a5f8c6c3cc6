/* inflight.c: signals inside operations, the list of handles, fork.  See inflight.h. */
#include "inflight.h"

#include <pthread.h>
#include <time.h>

/* What this thread is in the middle of while it runs Python code. */
static _Thread_local pause_frame *paused;

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static Handle *all_handles;                     /* guarded by list_mutex                       */

void handle_pause(Handle *handle, pause_frame *frame)
{
    *frame = (pause_frame){handle, paused};
    paused = frame;
}

void handle_resume(const pause_frame *frame)
{
    paused = frame->outer;
}

bool handle_check_signals(Handle *handle)
{
    pause_frame frame;
    handle_pause(handle, &frame);
    int failed = PyErr_CheckSignals();
    handle_resume(&frame);
    if (failed)
        return false;
    if (handle->store)
        return true;
    skv_raise_closed(handle);
    return false;
}

uint32_t handle_others_inside(Handle *handle)
{
    uint32_t inside = atomic_load(&handle->in_flight);
    for (const pause_frame *frame = paused; frame; frame = frame->outer)
        inside -= frame->handle == handle;
    return inside;
}

/* Operations of other threads in all handles of `store`, and in those that left some store for another one: they may
 * be in it yet.  The caller is in one, and runs no signal handler. */
static uint32_t others_inside(const skv *store)
{
    uint32_t inside = 0;
    pthread_mutex_lock(&list_mutex);
    for (Handle *handle = all_handles; handle; handle = handle->next)
        if (handle->store == store || handle->left)
            inside += atomic_load(&handle->in_flight);
    pthread_mutex_unlock(&list_mutex);
    for (const pause_frame *frame = paused; frame; frame = frame->outer)
        inside -= frame->handle->store == store || frame->handle->left;
    return inside - 1;
}

#define QUIET_NAPS 200u         /* of a millisecond                                           */

/* Waits for an instant without any, which is more than is needed, but can be seen. */
bool store_wait_for_others(const skv *store)
{
    const struct timespec nap = {0, 1000000};
    for (uint32_t naps = 0; others_inside(store) > 0; naps++) {
        if (naps == QUIET_NAPS || skv_is_ending())
            return false;
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&nap, NULL);
        Py_END_ALLOW_THREADS
    }
    return true;
}

void handle_list_add(Handle *handle)
{
    pthread_mutex_lock(&list_mutex);
    handle->next = all_handles;
    handle->link = &all_handles;
    if (all_handles)
        all_handles->link = &handle->next;
    all_handles = handle;
    pthread_mutex_unlock(&list_mutex);
}

void handle_list_remove(Handle *handle)
{
    pthread_mutex_lock(&list_mutex);
    *handle->link = handle->next;
    if (handle->next)
        handle->next->link = handle->link;
    pthread_mutex_unlock(&list_mutex);
}

/* ---- fork ------------------------------------------------------------------------------ */

static void before_fork(void)
{
    pthread_mutex_lock(&list_mutex);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&list_mutex);
}

/* Only the thread that forked lives on, and what it is in is noted in `paused`. */
static void after_fork_in_child(void)
{
    for (Handle *handle = all_handles; handle; handle = handle->next)
        skv_store(&handle->in_flight, 0);
    for (const pause_frame *frame = paused; frame; frame = frame->outer)
        skv_store(&frame->handle->in_flight, skv_load(&frame->handle->in_flight) + 1);
    pthread_mutex_unlock(&list_mutex);
}

bool handle_list_init(void)
{
    static bool done;       /* an import is under the import lock of its module                */
    if (!done)
        done = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0;
    return done;
}
