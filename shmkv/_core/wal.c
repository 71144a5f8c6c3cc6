/* wal.c: see wal.h. */
#include "wal.h"

#include <errno.h>
#include <string.h>

#include "atomics.h"
#include "store.h"

/* ---- Files ------------------------------------------------------------------------------------- */

void skv_wal_init(skv_wal *wal, skv_files files, skv_turns turns, skv_log_state *state, const uint8_t uuid[16])
{
    *wal = (skv_wal){.files = files, .turns = turns, .state = state, .handle = -1, .sync_handle = -1};
    memcpy(wal->uuid, uuid, sizeof wal->uuid);
}

static void close_handle(skv_wal *wal, int *handle)
{
    if (*handle >= 0)
        wal->files.close(wal->files.context, *handle);
    *handle = -1;
}

void skv_wal_close(skv_wal *wal)
{
    close_handle(wal, &wal->handle);
    close_handle(wal, &wal->sync_handle);
}

static int open_log(skv_wal *wal, uint64_t number, enum skv_open how)
{
    char name[SKV_NAME_ROOM];
    skv_segment_name(SKV_SEGMENT_LOG, number, name);
    return wal->files.open(wal->files.context, name, how);
}

static skv_segment segment_of(const skv_wal *wal, uint64_t number, uint64_t base, uint64_t sequence)
{
    skv_segment segment = {.kind = SKV_SEGMENT_LOG, .number = number, .base = base, .sequence = sequence};
    memcpy(segment.uuid, wal->uuid, sizeof segment.uuid);
    return segment;
}

/* The segment that others may have begun meanwhile. */
static int ensure_handle_locked(skv_wal *wal)
{
    uint8_t head[SKV_SEGMENT_HEAD];
    skv_segment segment;
    uint64_t number = skv_load(&wal->state->segment);
    if (skv_likely(wal->handle >= 0 && wal->number == number))
        return 0;
    int handle = open_log(wal, number, SKV_OPEN_WRITE);
    if (handle < 0)
        return handle;
    int64_t got = wal->files.read(wal->files.context, handle, head, sizeof head, 0);
    if (got < 0 || skv_segment_decode(head, (size_t)got, &segment) != SKV_SEGMENT_OK || segment.number != number) {
        wal->files.close(wal->files.context, handle);
        return got < 0 ? (int)got : -EBADMSG;
    }
    close_handle(wal, &wal->handle);
    wal->handle = handle;
    wal->number = number;
    wal->salt = skv_segment_salt(&segment);
    return 0;
}

static uint64_t place_of(const skv_log_state *state, uint64_t position)
{
    return SKV_SEGMENT_HEAD + position - skv_load(&state->base);
}

static int fail(skv_wal *wal, int error)
{
    skv_store(&wal->state->failed, (uint32_t)-error);
    return error;
}

/* ---- Segments ------------------------------------------------------------------------------------ */

static void publish_segment(skv_wal *wal, int handle, const skv_segment *segment, uint64_t end, uint64_t sequence)
{
    close_handle(wal, &wal->handle);
    wal->handle = handle;
    wal->number = segment->number;
    wal->salt = skv_segment_salt(segment);
    skv_store(&wal->state->base, segment->base);
    skv_store(&wal->state->sequence, sequence);
    skv_store_release(&wal->state->segment, segment->number);
    skv_store_release(&wal->state->end, end);
    skv_store_release(&wal->state->synced, end);
}

/* The head is on stable storage before the file's name is, and the name before the first frame. */
static int write_head(skv_wal *wal, int handle, const skv_segment *segment)
{
    uint8_t head[SKV_SEGMENT_HEAD];
    skv_segment_encode(segment, head);
    int status = wal->files.write(wal->files.context, handle, head, sizeof head, 0);
    SKV_CRASH("wal.head_written");
    if (status == 0)
        status = wal->files.sync(wal->files.context, handle);
    SKV_CRASH("wal.head_synced");
    if (status == 0)
        status = wal->files.sync_folder(wal->files.context);
    SKV_CRASH("wal.folder_synced");
    return status;
}

int skv_wal_begin_segment_locked(skv_wal *wal, uint64_t number, uint64_t base, uint64_t sequence)
{
    char name[SKV_NAME_ROOM];
    skv_segment segment = segment_of(wal, number, base, sequence);
    skv_segment_name(SKV_SEGMENT_LOG, number, name);
    int handle = open_log(wal, number, SKV_OPEN_NEW);
    if (handle == -EEXIST) {
        int status = wal->files.unlink(wal->files.context, name);
        if (status)
            return status;
        handle = open_log(wal, number, SKV_OPEN_NEW);
    }
    if (handle < 0)
        return handle;
    SKV_CRASH("wal.made");
    int status = write_head(wal, handle, &segment);
    if (status) {
        wal->files.close(wal->files.context, handle);
        wal->files.unlink(wal->files.context, name);
        return status;
    }
    publish_segment(wal, handle, &segment, base, sequence);
    SKV_CRASH("wal.begun");
    return 0;
}

int skv_wal_resume_locked(skv_wal *wal, const skv_segment *segment, uint64_t end, uint64_t sequence)
{
    int handle = open_log(wal, segment->number, SKV_OPEN_WRITE);
    if (handle < 0)
        return handle;
    int status = wal->files.truncate(wal->files.context, handle, SKV_SEGMENT_HEAD + end - segment->base);
    SKV_CRASH("wal.cut");
    if (status == 0)
        status = wal->files.sync(wal->files.context, handle);
    if (status) {
        wal->files.close(wal->files.context, handle);
        return status;
    }
    publish_segment(wal, handle, segment, end, sequence);
    return 0;
}

static int ready_to_write_locked(skv_wal *wal)
{
    return skv_load(&wal->state->failed) ? -EROFS : ensure_handle_locked(wal);
}

int skv_wal_rotate_locked(skv_wal *wal)
{
    skv_log_state *state = wal->state;
    int status = ready_to_write_locked(wal);
    if (status)
        return status;
    status = wal->files.sync(wal->files.context, wal->handle);
    if (status)
        return fail(wal, status);
    SKV_CRASH("wal.rotating");
    return skv_wal_begin_segment_locked(wal, skv_load(&state->segment) + 1, skv_load(&state->end), skv_load(&state->sequence));
}

/* ---- Appending ------------------------------------------------------------------------------------- */

int skv_wal_repair_locked(skv_wal *wal)
{
    int status = ensure_handle_locked(wal);
    if (status == 0)
        status = wal->files.truncate(wal->files.context, wal->handle, place_of(wal->state, skv_load(&wal->state->end)));
    return status ? fail(wal, status) : 0;
}

int skv_wal_append_locked(skv_wal *wal, skv_frame *frame, uint64_t *position)
{
    skv_log_state *state = wal->state;
    int status = ready_to_write_locked(wal);
    if (status)
        return status;
    uint64_t end = skv_load(&state->end), sequence = skv_load(&state->sequence) + 1;
    skv_frame_seal(frame, sequence, skv_load_acquire(&state->synced), wal->salt);
    status = wal->files.write(wal->files.context, wal->handle, frame->bytes, frame->size, place_of(state, end));
    if (status) {
        /* A part of it may be there, and the next frame shorter. */
        int cut = wal->files.truncate(wal->files.context, wal->handle, place_of(state, end));
        return cut ? fail(wal, cut) : status;
    }
    SKV_CRASH("wal.written");
    *position = end + frame->size;
    skv_store(&state->sequence, sequence);
    skv_store_release(&state->end, *position);
    SKV_CRASH("wal.appended");
    return 0;
}

/* ---- Stable storage ---------------------------------------------------------------------------------- */

/* `end` first: what is below it lies in the segment that is looked up after it, or in earlier ones, synced. */
static int sync_as_leader(skv_wal *wal)
{
    skv_log_state *state = wal->state;
    uint64_t end = skv_load_acquire(&state->end), number = skv_load_acquire(&state->segment);
    if (wal->sync_handle < 0 || wal->sync_number != number) {
        close_handle(wal, &wal->sync_handle);
        wal->sync_handle = open_log(wal, number, SKV_OPEN_WRITE);
        if (wal->sync_handle < 0)
            return wal->sync_handle;
        wal->sync_number = number;
    }
    SKV_CRASH("wal.leading");
    int status = wal->files.sync(wal->files.context, wal->sync_handle);
    if (status)
        return fail(wal, status);
    SKV_CRASH("wal.synced");
    uint64_t before = skv_load(&state->synced);
    while (before < end
           && !atomic_compare_exchange_weak_explicit(&state->synced, &before, end, memory_order_release, memory_order_relaxed))
        continue;               /* rotation moves it too                                      */
    return 0;
}

int skv_wal_sync(skv_wal *wal, uint64_t position)
{
    skv_log_state *state = wal->state;
    for (;;) {
        uint32_t round = skv_load_acquire(&state->sync_round);
        if (skv_load_acquire(&state->synced) >= position)
            return 0;
        if (skv_load(&state->failed))
            return -EROFS;
        if (!wal->turns.try_lead(wal->turns.context, &state->sync_lock)) {
            wal->turns.wait(wal->turns.context, &state->sync_round, round, &state->sync_lock);
            continue;
        }
        int status = skv_load_acquire(&state->synced) < position ? sync_as_leader(wal) : 0;
        wal->turns.end_lead(wal->turns.context, &state->sync_lock);
        atomic_fetch_add_explicit(&state->sync_round, 1, memory_order_release);
        wal->turns.wake_all(wal->turns.context, &state->sync_round);
        if (status)
            return status;
    }
}
