/* wal.c: see wal.h. */
#include "wal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "again.h"
#include "atomics.h"
#include "store.h"

/* ---- Files ------------------------------------------------------------------------------------- */

/* User code may close any descriptor, at any moment, in any thread: what that makes fail is tried again. */
#define LOSSES 100u

void skv_wal_init(skv_wal *wal, skv_files files, skv_turns turns, skv_log_state *state, const uint8_t uuid[16])
{
    *wal = (skv_wal){.files = files, .turns = turns, .state = state, .handle = -1, .synced = {.handle = -1}};
    memcpy(wal->uuid, uuid, sizeof wal->uuid);
}

static bool is_own(const skv_wal *wal, int handle, uint64_t identity)
{
    return skv_files_own(&wal->files, handle, identity);
}

/* Only what is still ours: somebody else's file may have the number by now. */
static void close_handle(skv_wal *wal, int *handle, uint64_t identity)
{
    if (is_own(wal, *handle, identity))
        wal->files.close(wal->files.context, *handle);
    *handle = -1;
}

void skv_wal_close(skv_wal *wal)
{
    close_handle(wal, &wal->handle, wal->identity);
    close_handle(wal, &wal->synced.handle, wal->synced.identity);
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

static uint64_t identity_of(const skv_wal *wal, int handle)
{
    return wal->files.identity(wal->files.context, handle);
}

/* `identity` is what it had before anything was done with it. */
static void take_handle(skv_wal *wal, int handle, uint64_t identity, const skv_segment *segment)
{
    close_handle(wal, &wal->handle, wal->identity);
    wal->handle = handle;
    wal->identity = identity;
    wal->asked = 0;
    wal->laid_out = 0;
    wal->number = segment->number;
    wal->base = segment->base;
    wal->salt = skv_segment_salt(segment);
}

/* Is what was read of a file the head of this log's segment `number`? */
static bool is_head(const skv_wal *wal, const uint8_t *head, int64_t got, uint64_t number, skv_segment *segment)
{
    return got >= 0 && skv_segment_decode(head, (size_t)got, segment) == SKV_SEGMENT_OK && segment->number == number
           && memcmp(segment->uuid, wal->uuid, sizeof segment->uuid) == 0;
}

/* The next segment's is noted before its number counts, and whoever dies in between leaves the one before alone. */
static void note_file(const skv_wal *wal, int handle, uint64_t number)
{
    skv_log_state *state = wal->state;
    skv_store(&state->file[number % 2].number, 0);
    skv_fence_release();
    skv_store(&state->file[number % 2].inode, wal->files.inode(wal->files.context, handle));
    skv_store_release(&state->file[number % 2].number, number);
}

/* 0 = not known. */
static uint64_t inode_of(const skv_log_state *state, uint64_t number)
{
    if (skv_load_acquire(&state->file[number % 2].number) != number)
        return 0;
    uint64_t inode = skv_load_acquire(&state->file[number % 2].inode);
    return skv_load(&state->file[number % 2].number) == number ? inode : 0;
}

/* -EBADF: user code has closed the handle, or the segment is not the last one any more: then it was synced, and a
 * snapshot may have removed it. */
static int look(const skv_wal *wal, int handle, uint64_t number, uint64_t size)
{
    char name[SKV_NAME_ROOM];
    skv_segment_name(SKV_SEGMENT_LOG, number, name);
    const skv_expected expected = {.name = name, .inode = inode_of(wal->state, number), .size = size};
    int status = wal->files.look(wal->files.context, handle, &expected);
    return status && skv_load_acquire(&wal->state->segment) != number ? -EBADF : status;
}

/* -EBADF: user code has closed it under us. */
static int open_handle_locked(skv_wal *wal, uint64_t number)
{
    uint8_t head[SKV_SEGMENT_HEAD];
    skv_segment segment;
    int handle = open_log(wal, number, SKV_OPEN_WRITE);
    if (handle < 0)
        return handle;
    const uint64_t identity = identity_of(wal, handle);
    int64_t got = wal->files.read(wal->files.context, handle, head, sizeof head, 0);
    if (!is_own(wal, handle, identity))
        return -EBADF;
    const uint64_t inode = inode_of(wal->state, number);
    if (!is_head(wal, head, got, number, &segment) || (inode && wal->files.inode(wal->files.context, handle) != inode)) {
        close_handle(wal, &handle, identity);
        return got < 0 ? (int)got : -EBADMSG;
    }
    take_handle(wal, handle, identity, &segment);
    return 0;
}

/* The segment that others may have begun meanwhile. */
static int ensure_handle_locked(skv_wal *wal)
{
    const uint64_t number = skv_load(&wal->state->segment);
    int status = wal->number == number && is_own(wal, wal->handle, wal->identity) ? 0 : -EBADF;
    for (uint32_t i = 0; status == -EBADF && i < LOSSES; i++)
        status = open_handle_locked(wal, number);
    return status;
}

static uint64_t place_of(const skv_wal *wal, uint64_t position)
{
    return SKV_SEGMENT_HEAD + position - wal->base;
}

int skv_wal_look_locked(skv_wal *wal)
{
    int status = -EBADF;
    for (uint32_t i = 0; status == -EBADF && i < LOSSES; i++) {
        status = ensure_handle_locked(wal);
        if (status == 0)
            status = look(wal, wal->handle, wal->number, place_of(wal, skv_load(&wal->state->end)));
    }
    return status == -ENOENT || status == -EBADMSG ? -ESTALE : status;
}

/* For a write that tells when the handle was closed.  To ask whether it is still ours takes a quarter of a write, and to
 * look at its path more, so that is done once in a moment, which is as long as the system's clock needs for a tick.  What
 * is synced `soon` costs far more: a file that was cut off is found before the frame makes it as long as it was. */
static int ensure_handle_lately_locked(skv_wal *wal, bool soon)
{
    uint64_t now = wal->files.moment(wal->files.context);
    if (skv_likely(!soon && wal->handle >= 0 && wal->asked == now && wal->number == skv_load(&wal->state->segment)))
        return 0;
    int status = skv_wal_look_locked(wal);
    wal->asked = status ? 0 : now;
    return status;
}

static int fail(skv_wal *wal, int error)
{
    skv_store_release(&wal->state->failed, (uint32_t)-error);
    return error;
}

/* What a sync (or the cut before it) has shown.  -EBADF: nothing, user code has closed the handle, and what succeeded or was
 * refused may have been another file's.  An error of the disk counts all the same: it is told once. */
static int judge_sync(skv_wal *wal, int status, int handle, uint64_t identity)
{
    const bool lost = !is_own(wal, handle, identity);
    if (status && !(lost && (status == -EBADF || status == -EINVAL)))
        return fail(wal, status);
    return lost ? -EBADF : 0;
}

/* ---- Segments ------------------------------------------------------------------------------------ */

static void raise_synced(skv_log_state *state, uint64_t position)
{
    uint64_t before = skv_load(&state->synced);
    while (before < position
           && !atomic_compare_exchange_weak_explicit(&state->synced, &before, position, memory_order_release, memory_order_relaxed))
        continue;
}

/* The number comes last: whoever dies before it leaves the segment before, which ends at the same position. */
static void publish_segment(skv_wal *wal, int handle, uint64_t identity, const skv_segment *segment, uint64_t end, uint64_t sequence)
{
    take_handle(wal, handle, identity, segment);
    note_file(wal, handle, segment->number);
    SKV_CRASH("wal.noted");
    skv_store(&wal->state->sequence, sequence);
    skv_store_release(&wal->state->end, end);
    if (end == segment->base)                   /* the head says that what is before it is synced */
        skv_store(&wal->state->vouched, end);
    raise_synced(wal->state, end);
    skv_store_release(&wal->state->segment, segment->number);
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
    const uint64_t identity = identity_of(wal, handle);
    int status = write_head(wal, handle, &segment);
    if (!is_own(wal, handle, identity))
        status = -EBADF;
    if (status) {
        close_handle(wal, &handle, identity);
        wal->files.unlink(wal->files.context, name);
        return status;
    }
    publish_segment(wal, handle, identity, &segment, base, sequence);
    SKV_CRASH("wal.begun");
    return 0;
}

int skv_wal_resume_locked(skv_wal *wal, const skv_segment *segment, uint64_t synced, uint64_t end, uint64_t sequence)
{
    int status = skv_write_again(wal->files, segment->number, synced, end);
    SKV_CRASH("wal.written_again");
    if (status)
        return status;
    int handle = open_log(wal, segment->number, SKV_OPEN_WRITE);
    if (handle < 0)
        return handle;
    const uint64_t identity = identity_of(wal, handle);
    status = wal->files.truncate(wal->files.context, handle, SKV_SEGMENT_HEAD + end - segment->base);
    SKV_CRASH("wal.cut");
    if (status == 0)
        status = wal->files.sync(wal->files.context, handle);
    if (!is_own(wal, handle, identity))
        status = -EBADF;
    if (status) {
        close_handle(wal, &handle, identity);
        return status;
    }
    SKV_CRASH("wal.resumed");
    publish_segment(wal, handle, identity, segment, end, sequence);
    if (end - synced == SKV_FRAME_HEAD)         /* an empty frame, which vouches for the others   */
        skv_store(&wal->state->vouched, end);
    return 0;
}

int skv_wal_open_locked(skv_wal *wal)
{
    int status = ensure_handle_locked(wal);
    if (status)
        return status;
    int64_t size = wal->files.size(wal->files.context, wal->handle);
    if (!is_own(wal, wal->handle, wal->identity))
        return -EBADF;
    return size < 0 ? (int)size : (uint64_t)size < place_of(wal, skv_load(&wal->state->end)) ? -EBADMSG : 0;
}

int skv_wal_rotate_locked(skv_wal *wal)
{
    skv_log_state *state = wal->state;
    int status = skv_load(&state->failed) ? -EROFS : skv_wal_look_locked(wal);
    if (status)
        return status;
    /* Only the last segment may end in anything but its last frame. */
    if (wal->ahead)
        status = wal->files.truncate(wal->files.context, wal->handle, place_of(wal, skv_load(&state->end)));
    SKV_CRASH("wal.shortened");
    if (status == 0)
        status = wal->files.sync(wal->files.context, wal->handle);
    status = judge_sync(wal, status, wal->handle, wal->identity);
    if (status == 0)
        status = look(wal, wal->handle, wal->number, place_of(wal, skv_load(&state->end)));
    if (status)
        return status;
    SKV_CRASH("wal.rotating");
    return skv_wal_begin_segment_locked(wal, skv_load(&state->segment) + 1, skv_load(&state->end), skv_load(&state->sequence));
}

/* ---- Appending ------------------------------------------------------------------------------------- */

/* Is there a whole frame at the end?  Minus an errno: that cannot be told. */
static int read_last(skv_wal *wal, skv_frame_view *view, bool *whole)
{
    uint64_t at = place_of(wal, skv_load(&wal->state->end));
    int64_t size = wal->files.size(wal->files.context, wal->handle);
    *whole = false;
    if (size < 0 || (uint64_t)size <= at)
        return size < 0 ? (int)size : 0;
    uint64_t len = (uint64_t)size - at;
    uint8_t *bytes = malloc(len);
    int64_t got = bytes ? wal->files.read(wal->files.context, wal->handle, bytes, len, at) : -ENOMEM;
    if (got >= 0)
        *whole = skv_frame_read(bytes, (uint64_t)got, wal->salt, view) == SKV_FRAME_OK;
    free(bytes);                /* of the view only numbers are used                          */
    return got < 0 ? (int)got : 0;
}

/* -EBADF: user code has closed the handle meanwhile, and nothing is decided. */
static int repair_once_locked(skv_wal *wal, bool (*accept)(void *context), void *context)
{
    skv_log_state *state = wal->state;
    skv_frame_view view;
    bool whole = false;
    int status = ensure_handle_locked(wal);
    if (status)
        return status;
    status = accept ? read_last(wal, &view, &whole) : 0;
    if (!is_own(wal, wal->handle, wal->identity))
        return -EBADF;
    if (status)
        return status;
    /* `sequence` is moved on before `end` is. */
    if (whole && view.sequence - skv_load(&state->sequence) <= 1 && accept(context)) {
        skv_store(&state->sequence, view.sequence);
        skv_store_release(&state->end, skv_load(&state->end) + view.size);
        return 0;
    }
    SKV_CRASH("wal.voided");
    status = wal->files.truncate(wal->files.context, wal->handle, place_of(wal, skv_load(&state->end)));
    return is_own(wal, wal->handle, wal->identity) ? status : -EBADF;
}

int skv_wal_repair_locked(skv_wal *wal, bool (*accept)(void *context), void *context)
{
    if (skv_load(&wal->state->failed))
        return -EROFS;
    int status = -EBADF;
    for (uint32_t i = 0; status == -EBADF && i < LOSSES; i++)
        status = repair_once_locked(wal, accept, context);
    return status ? fail(wal, status) : 0;
}

/* What is laid out is written twice.  That pays where each frame's sync would write a new size (of 53 KB: 0.8 of the
 * time, docs/decisions.md); where none follows, only while frames are small beside it. */
#define SMALL_FRAME  4096u
#define SYNCED_FRAME (64u << 10)

/* Best effort: without room for it the frame itself is there. */
static void lay_out_ahead(skv_wal *wal, uint64_t end, size_t size, bool soon)
{
    static const uint8_t zeroes[16384];
    if (wal->ahead == 0 || end <= wal->laid_out || size > (soon ? SYNCED_FRAME : SMALL_FRAME))
        return;
    int64_t now = wal->files.size(wal->files.context, wal->handle);
    wal->laid_out = now < 0 ? end : (uint64_t)now;
    for (uint64_t at = wal->laid_out, to = end + wal->ahead; wal->laid_out <= end && at < to; at += sizeof zeroes) {
        if (wal->files.write(wal->files.context, wal->handle, zeroes, sizeof zeroes, at))
            return;
        SKV_CRASH("wal.laid_out");
    }
    if (wal->laid_out <= end)
        wal->laid_out = end + wal->ahead;
}

/* Other threads close descriptors too: a write that fails where the handle is not ours any more is no error of the disk. */
static int write_frame_locked(skv_wal *wal, const skv_frame *frame, uint64_t at)
{
    int status = wal->files.write(wal->files.context, wal->handle, frame->bytes, frame->size, at);
    bool torn = status && status != -EBADF;             /* a part of it may be there          */
    for (uint32_t i = 0; status && i < LOSSES && !is_own(wal, wal->handle, wal->identity); i++) {
        int opened = ensure_handle_locked(wal);
        if (opened)
            return torn ? fail(wal, opened) : opened;
        status = wal->files.write(wal->files.context, wal->handle, frame->bytes, frame->size, at);
        torn = torn || (status && status != -EBADF);
    }
    if (status && !torn)
        return status;
    if (status) {
        /* The next frame may be shorter. */
        int cut = is_own(wal, wal->handle, wal->identity) ? wal->files.truncate(wal->files.context, wal->handle, at) : -EBADF;
        return cut ? fail(wal, cut) : status;
    }
    SKV_CRASH("wal.written");
    return 0;
}

int skv_wal_write_locked(skv_wal *wal, skv_frame *frame, bool soon, uint64_t *position)
{
    skv_log_state *state = wal->state;
    int status = skv_load(&state->failed) ? -EROFS : ensure_handle_lately_locked(wal, soon);
    if (status)
        return status;
    uint64_t end = skv_load(&state->end);
    skv_frame_seal(frame, skv_load(&state->sequence) + 1, skv_load_acquire(&state->synced), wal->salt);
    status = write_frame_locked(wal, frame, place_of(wal, end));
    if (status)
        return status;
    *position = end + frame->size;
    lay_out_ahead(wal, place_of(wal, *position), frame->size, soon);
    return 0;
}

void skv_wal_accept_locked(skv_wal *wal, uint64_t position)
{
    skv_store(&wal->state->sequence, skv_load(&wal->state->sequence) + 1);
    SKV_CRASH("wal.counted");
    skv_store_release(&wal->state->end, position);
    SKV_CRASH("wal.appended");
}

int skv_wal_append_locked(skv_wal *wal, skv_frame *frame, uint64_t *position)
{
    int status = skv_wal_write_locked(wal, frame, false, position);
    if (status == 0)
        skv_wal_accept_locked(wal, *position);
    return status;
}

bool skv_wal_can_vouch(const skv_wal *wal)
{
    const skv_log_state *state = wal->state;
    const uint64_t end = skv_load_acquire(&state->end);
    return skv_load(&state->vouched) != end && skv_load_acquire(&state->synced) >= end;
}

int skv_wal_vouch_locked(skv_wal *wal, bool *said)
{
    _Alignas(8) uint8_t bytes[SKV_FRAME_HEAD];
    skv_frame frame = {.bytes = bytes, .room = sizeof bytes};
    uint64_t position;
    if (!skv_wal_can_vouch(wal))
        return 0;
    skv_frame_begin(&frame, SKV_FRAME_CHANGE);  /* its memory is there                            */
    int status = skv_wal_append_locked(wal, &frame, &position);
    if (status)
        return status;
    skv_store(&wal->state->vouched, position);
    *said = true;
    return 0;
}

/* ---- Stable storage ---------------------------------------------------------------------------------- */

/* The segment that is appended to now.  One that a snapshot has made superfluous may be gone before it is opened. */
static int open_current(skv_wal *wal, skv_wal_file *file)
{
    uint8_t head[SKV_SEGMENT_HEAD];
    skv_segment segment;
    do {
        file->number = skv_load_acquire(&wal->state->segment);
        file->handle = open_log(wal, file->number, SKV_OPEN_WRITE);
    } while (file->handle == -ENOENT && skv_load_acquire(&wal->state->segment) != file->number);
    if (file->handle < 0)
        return file->handle == -ENOENT ? -ESTALE : file->handle;
    file->identity = identity_of(wal, file->handle);
    int64_t got = wal->files.read(wal->files.context, file->handle, head, sizeof head, 0);
    if (!is_own(wal, file->handle, file->identity))
        return -EBADF;
    if (!is_head(wal, head, got, file->number, &segment)) {
        close_handle(wal, &file->handle, file->identity);
        return got < 0 ? (int)got : -ESTALE;
    }
    file->base = segment.base;
    return 0;
}

/* `end` was loaded before the segment was looked up: what is below it lies in that one, or in earlier ones, synced. */
static int sync_file(skv_wal *wal, const skv_wal_file *file, uint64_t end)
{
    SKV_CRASH("wal.leading");
    int status = wal->files.sync(wal->files.context, file->handle);
    SKV_CRASH("wal.told");
    status = judge_sync(wal, status, file->handle, file->identity);
    if (status == 0)
        status = look(wal, file->handle, file->number, SKV_SEGMENT_HEAD + (end > file->base ? end - file->base : 0));
    if (status)
        return status;
    SKV_CRASH("wal.synced");
    /* Somebody else's sync may have been told of a failure that this one was not. */
    if (skv_load_acquire(&wal->state->failed))
        return -EROFS;
    raise_synced(wal->state, end);      /* rotation moves it too                                  */
    return 0;
}

static int sync_as_leader(skv_wal *wal)
{
    uint64_t end = skv_load_acquire(&wal->state->end);
    skv_wal_file *file = &wal->synced;
    if (file->number != skv_load_acquire(&wal->state->segment) || !is_own(wal, file->handle, file->identity)) {
        close_handle(wal, &file->handle, file->identity);
        int status = open_current(wal, file);
        if (status)
            return status;
    }
    return sync_file(wal, file, end);
}

/* What no sync was believed for, up to `end`, which was loaded before: a segment that is not the last one was synced. */
static int write_again(skv_wal *wal, uint64_t end)
{
    const skv_log_state *state = wal->state;
    uint64_t number;
    uint32_t losses = 0;
    int status;
    do {
        number = skv_load_acquire(&state->segment);
        status = skv_write_again(wal->files, number, skv_load_acquire(&state->synced), end);
    } while ((status == -ENOENT && skv_load_acquire(&state->segment) != number) || (status == -EBADF && ++losses < LOSSES));
    return status;
}

/* The leader may be stopped: a sync beside its own does no harm, but it may have been stopped with bad news. */
static int sync_alone(skv_wal *wal)
{
    uint64_t end = skv_load_acquire(&wal->state->end);
    skv_wal_file file;
    int status = write_again(wal, end);
    if (status == 0)
        status = open_current(wal, &file);
    if (status)
        return status == -ENOENT ? -ESTALE : status;
    status = sync_file(wal, &file, end);
    close_handle(wal, &file.handle, file.identity);
    return status;
}

int skv_wal_repair_lead(skv_wal *wal)
{
    if (skv_load_acquire(&wal->state->failed))
        return 0;
    int status = write_again(wal, skv_load_acquire(&wal->state->end));
    SKV_CRASH("wal.lead_repaired");
    return status ? fail(wal, status) : 0;
}

/* As leader, if there is none; else waits for a while. */
static int sync_or_wait(skv_wal *wal, uint64_t position, uint32_t round)
{
    skv_log_state *state = wal->state;
    if (!wal->turns.try_lead(wal->turns.context, &state->sync_lock)) {
        atomic_fetch_add_explicit(&state->sync_waiters, 1, memory_order_relaxed);
        wal->turns.wait(wal->turns.context, &state->sync_round, round, &state->sync_lock);
        atomic_fetch_sub_explicit(&state->sync_waiters, 1, memory_order_relaxed);
        return 0;
    }
    /* Who has just been served is about to append again: without a moment for that, groups come in two halves in turns
     * (measured, 16 threads: 8 a sync without it, 12 with it). */
    if (skv_load(&state->sync_waiters))
        wal->turns.pause(wal->turns.context);
    int status = skv_load_acquire(&state->failed) ? -EROFS : skv_load_acquire(&state->synced) < position ? sync_as_leader(wal) : 0;
    wal->turns.end_lead(wal->turns.context, &state->sync_lock);
    atomic_fetch_add_explicit(&state->sync_round, 1, memory_order_release);
    wal->turns.wake_all(wal->turns.context, &state->sync_round);
    return status;
}

/* Whoever leads has not ended for so long that it may be stopped. */
static int sync_beside(skv_wal *wal, uint32_t round)
{
    if (wal->turns.free_dead(wal->turns.context, &wal->state->sync_lock))
        return 0;
    skv_store(&wal->stalled, round + 1);
    return sync_alone(wal);
}

int skv_wal_sync_within(skv_wal *wal, uint64_t position, uint32_t turns)
{
    skv_log_state *state = wal->state;
    uint32_t last = skv_load(&state->sync_round), losses = 0;
    for (uint32_t waits = 0;; waits++) {
        uint32_t round = skv_load_acquire(&state->sync_round);
        if (skv_load_acquire(&state->synced) >= position)
            return 0;
        if (skv_load_acquire(&state->failed))
            return -EROFS;
        waits = round == last ? waits : 0;
        last = round;
        bool stalled = (waits >= turns || skv_load(&wal->stalled) == round + 1) && skv_load(&state->sync_lock);
        int status = stalled ? sync_beside(wal, round) : sync_or_wait(wal, position, round);
        if (status && (status != -EBADF || ++losses > LOSSES))
            return status;
    }
}
