/* checkpoint.c: see checkpoint.h. */
#include "checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SYNC_BYTES   (16u << 20)
#define PART_BYTES   (256u << 10)       /* of a frame; a larger item has one of its own        */
#define TMP_ROOM     (SKV_NAME_ROOM + 8)
#define UNFINISHED   ".snapshot.tmp"         /* of whoever died in here                           */

typedef struct writing {
    skv *store;
    skv_files files;
    skv_segment segment;
    char name[SKV_NAME_ROOM], tmp[TMP_ROOM];
    int handle;
    uint64_t identity;                  /* of its file: user code may close the handle        */
    uint64_t at, synced, sequence, items, salt;
    uint64_t timeout_ns;                /* behind a process that is stopped in an append      */
    bool late;                          /* it was, for longer                                 */
    skv_frame frame;
} writing;

/* ---- The file ------------------------------------------------------------------------------------- */

static int begin_file(writing *w)
{
    uint8_t head[SKV_SEGMENT_HEAD];
    skv_segment_name(SKV_SEGMENT_SNAPSHOT, w->segment.number, w->name);
    snprintf(w->tmp, sizeof w->tmp, "%s.tmp", w->name);
    w->handle = w->files.open(w->files.context, w->tmp, SKV_OPEN_NEW);
    if (w->handle == -EEXIST) {         /* of a process that died in here                      */
        w->files.unlink(w->files.context, w->tmp);
        w->handle = w->files.open(w->files.context, w->tmp, SKV_OPEN_NEW);
    }
    if (w->handle < 0)
        return w->handle;
    w->identity = w->files.identity(w->files.context, w->handle);
    SKV_CRASH("checkpoint.made");
    skv_segment_encode(&w->segment, head);
    w->salt = skv_segment_salt(&w->segment);
    w->sequence = w->segment.sequence;
    w->at = sizeof head;
    return w->files.write(w->files.context, w->handle, head, sizeof head, 0);
}

/* So that neither the end of the snapshot nor the log beside it waits for all of its bytes. */
static int sync_on_the_way(writing *w)
{
    w->synced = w->at;
    int status = w->files.sync(w->files.context, w->handle);
    if (status)
        return status;
    skv_status synced = skv_journal_sync(w->store, w->timeout_ns);
    w->late = synced == SKV_TIMEOUT;
    return synced == SKV_OK ? 0 : w->late ? -ETIMEDOUT : -EIO;
}

static int write_frame(writing *w)
{
    skv_frame_seal(&w->frame, ++w->sequence, 0, w->salt);
    if (!skv_files_own(&w->files, w->handle, w->identity))
        return -EBADF;
    int status = w->files.write(w->files.context, w->handle, w->frame.bytes, w->frame.size, w->at);
    w->at += w->frame.size;
    SKV_CRASH("checkpoint.frame");
    if (status == 0 && w->at - w->synced >= SYNC_BYTES)
        status = sync_on_the_way(w);
    if (status == 0 && !skv_frame_begin(&w->frame, SKV_FRAME_PART))
        status = -ENOMEM;
    return status;
}

static int add_items(writing *w, const skv_copies *copies)
{
    int status = 0;
    for (size_t i = 0; i < copies->count && status == 0; i++) {
        const skv_copied *item = &copies->items[i];
        const skv_op op = {
            .kind = SKV_OP_PUT, .type = item->type, .bytes_key = item->is_bytes, .key_len = item->key_len, .value_len = item->value_len,
            .expires_ms = skv_wall_of(w->store, item->expires_ms), .key = copies->bytes + item->key_at, .value = copies->bytes + item->value_at};
        if (!skv_frame_add(&w->frame, &op))
            return -ENOMEM;
        w->items++;
        if (w->frame.size >= PART_BYTES)
            status = write_frame(w);
    }
    return status;
}

static int write_items(writing *w)
{
    skv_copies copies = {0};
    int status = skv_frame_begin(&w->frame, SKV_FRAME_PART) ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < skv_bucket_count(w->store) && status == 0; i++) {
        skv_status copied = skv_copy_bucket(w->store, i, true, NULL, NULL, &copies);
        status = copied == SKV_OK ? add_items(w, &copies) : copied == SKV_NO_MEMORY ? -ENOMEM : -EBADMSG;
        skv_free_items(&copies);
    }
    if (status == 0 && w->frame.size > SKV_FRAME_HEAD)
        status = write_frame(w);
    return status;
}

static int end_file(writing *w)
{
    const skv_op count = {.kind = SKV_OP_COUNT, .expires_ms = w->items};
    if (!skv_frame_begin(&w->frame, SKV_FRAME_END) || !skv_frame_add(&w->frame, &count))
        return -ENOMEM;
    int status = write_frame(w);
    if (status == 0)
        status = w->files.sync(w->files.context, w->handle);
    SKV_CRASH("checkpoint.synced");
    return status ? status : skv_files_own(&w->files, w->handle, w->identity) ? 0 : -EBADF;
}

/* ---- Names -------------------------------------------------------------------------------------------- */

/* The rename is the commit.  Whether it will be there after a power cut is not known until the folder is synced. */
static int publish_file(writing *w)
{
    int status = w->files.rename(w->files.context, w->tmp, w->name);
    SKV_CRASH("checkpoint.renamed");
    return status ? status : w->files.sync_folder(w->files.context);
}

typedef struct old_files {
    uint64_t before;
    char (*names)[SKV_NAME_ROOM];
    size_t count, room;
} old_files;

static void note_old(void *to, const char *name)
{
    old_files *old = to;
    enum skv_segment_kind kind;
    uint64_t number;
    const size_t len = strlen(name);
    const bool unfinished = len > strlen(UNFINISHED) && len < SKV_NAME_ROOM && strcmp(name + len - strlen(UNFINISHED), UNFINISHED) == 0;
    if (!unfinished && (!skv_segment_named(name, &kind, &number) || number >= old->before))
        return;
    if (old->count == old->room) {
        size_t room = old->room * 2 + 16;
        void *names = realloc(old->names, room * sizeof *old->names);
        if (!names)
            return;             /* it stays until the next time                               */
        old->names = names;
        old->room = room;
    }
    snprintf(old->names[old->count++], SKV_NAME_ROOM, "%s", name);
}

/* What cannot be removed now is left over, and does no harm. */
static void remove_older(writing *w)
{
    old_files old = {.before = w->segment.number};
    w->files.list(w->files.context, note_old, &old);
    for (size_t i = 0; i < old.count; i++) {
        w->files.unlink(w->files.context, old.names[i]);
        SKV_CRASH("checkpoint.removed");
    }
    free(old.names);
}

/* ---- All of it -------------------------------------------------------------------------------------------- */

static skv_status begin_segment(writing *w)
{
    skv *store = w->store;
    skv_log_state *log = &store->header->log;
    skv_status status = skv_journal_sync(store, w->timeout_ns);
    if (status == SKV_OK)
        status = skv_journal_sync(store, w->timeout_ns);        /* what was written meanwhile: less */
    if (status == SKV_OK)
        status = skv_journal_lock_within(store, w->timeout_ns);
    if (status)
        return status;
    int rotated = skv_wal_rotate_locked(&store->journal->wal);
    w->segment = (skv_segment){.kind = SKV_SEGMENT_SNAPSHOT, .number = skv_load(&log->segment), .base = skv_load(&log->end),
                               .sequence = skv_load(&log->sequence)};
    skv_journal_unlock(store);
    memcpy(w->segment.uuid, store->journal->wal.uuid, sizeof w->segment.uuid);
    SKV_CRASH("checkpoint.rotated");
    return rotated ? skv_journal_failure(store, rotated) : SKV_OK;
}

static skv_status write_snapshot(writing *w)
{
    int status = begin_file(w);
    if (status == 0)
        status = write_items(w);
    if (status == 0)
        status = end_file(w);
    if (w->late)
        return SKV_TIMEOUT;
    skv_status synced = status ? skv_journal_failure(w->store, status) : skv_journal_sync(w->store, w->timeout_ns);
    if (synced)
        return synced;
    status = publish_file(w);
    return status ? skv_journal_failure(w->store, status) : SKV_OK;
}

static skv_status make_locked(skv *store, skv_checkpoint *out, uint64_t timeout_ns)
{
    writing w = {.store = store, .files = store->journal->files, .handle = -1, .timeout_ns = timeout_ns};
    skv_status status = begin_segment(&w);
    if (status)
        return status;
    status = write_snapshot(&w);
    if (skv_files_own(&w.files, w.handle, w.identity))
        w.files.close(w.files.context, w.handle);
    skv_frame_free(&w.frame);
    if (status) {
        int error = errno;
        w.files.unlink(w.files.context, w.tmp);
        errno = error;
        return status;
    }
    skv_store_release(&store->header->log.kept_from, w.segment.base);
    remove_older(&w);
    *out = (skv_checkpoint){w.segment.number, w.items, w.at};
    return SKV_OK;
}

skv_status skv_make_checkpoint(skv *store, skv_checkpoint *out, skv_wait *wait)
{
    *out = (skv_checkpoint){0};
    skv_status status = store->read_only ? SKV_READ_ONLY : skv_register(store);
    if (status == SKV_OK && (!store->journal || !wait->block))
        status = SKV_BUSY;
    skv_wait turn = {.block = true, .shared = wait->shared};
    if (status == SKV_OK)
        status = skv_lock(store, &store->header->checkpoint_lock, &turn, NULL, NULL);
    if (status)
        return status;
    status = make_locked(store, out, wait->timeout_ns);
    skv_unlock(store, &store->header->checkpoint_lock);
    return status;
}
