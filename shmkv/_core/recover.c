/* recover.c: see recover.h. */
#include "recover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Which files there are --------------------------------------------------------------------- */

typedef struct numbers {
    uint64_t *all;              /* of segments                                                */
    size_t count, room;
    uint64_t snapshot;          /* the highest; 0 = none                                      */
    bool no_memory;
} numbers;

static void note_name(void *to, const char *name)
{
    numbers *n = to;
    enum skv_segment_kind kind;
    uint64_t number;
    if (!skv_segment_named(name, &kind, &number) || number == 0)
        return;
    if (kind == SKV_SEGMENT_SNAPSHOT) {
        if (number > n->snapshot)
            n->snapshot = number;
        return;
    }
    if (n->count == n->room) {
        size_t room = n->room * 2 + 16;
        uint64_t *all = realloc(n->all, room * sizeof *all);
        if (!all) {
            n->no_memory = true;
            return;
        }
        n->all = all;
        n->room = room;
    }
    n->all[n->count++] = number;
}

static int ascending(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* ---- One file -------------------------------------------------------------------------------------- */

typedef struct recovery {
    skv_files files;
    skv_apply apply;
    void *to;
    skv_recovered *out;
    bool knows_uuid;
    bool starts_anywhere;       /* the first segment says where the log begins                */
    uint64_t snapshot;          /* its number; 0 = there is none                              */
    uint8_t uuid[16];
} recovery;

static int damaged(recovery *r, enum skv_segment_kind kind, uint64_t number, enum skv_damage_kind damage, uint64_t offset)
{
    r->out->damage = damage;
    r->out->offset = offset;
    skv_segment_name(kind, number, r->out->name);
    return 0;
}

static enum skv_damage_kind fault_of_head(recovery *r, const skv_reader *reader, enum skv_segment_fault fault, enum skv_segment_kind kind, uint64_t number)
{
    if (fault == SKV_SEGMENT_FOREIGN)
        return SKV_DAMAGE_VERSION;
    if (fault != SKV_SEGMENT_OK || reader->segment.number != number || reader->segment.kind != kind)
        return SKV_DAMAGE_HEAD;
    if (r->knows_uuid && memcmp(r->uuid, reader->segment.uuid, sizeof r->uuid) != 0)
        return SKV_DAMAGE_FOREIGN_LOG;
    memcpy(r->uuid, reader->segment.uuid, sizeof r->uuid);
    r->knows_uuid = true;
    return SKV_UNDAMAGED;
}

/* Applies the frames; *ended says with what the file ends. */
static int apply_frames(recovery *r, skv_reader *reader, enum skv_read_result *ended, bool *closed)
{
    skv_frame_view view;
    *closed = false;
    for (;;) {
        uint64_t position = skv_reader_position(reader);
        *ended = skv_reader_next(reader, &view);
        if (*ended == SKV_READ_ERROR)
            return reader->error;
        if (*ended == SKV_READ_NO_MEMORY)
            return -ENOMEM;
        if (*ended != SKV_READ_FRAME)
            return 0;
        *closed = view.kind == SKV_FRAME_END;
        int status = r->apply(r->to, &view, &reader->segment, position);
        if (status)
            return status;
    }
}

static int read_snapshot(recovery *r, uint64_t number)
{
    char name[SKV_NAME_ROOM];
    skv_reader reader;
    enum skv_segment_fault fault;
    skv_segment_name(SKV_SEGMENT_SNAPSHOT, number, name);
    int status = skv_reader_open(&reader, r->files, name, &fault);
    enum skv_damage_kind head = status ? SKV_UNDAMAGED : fault_of_head(r, &reader, fault, SKV_SEGMENT_SNAPSHOT, number);
    if (status == 0 && head) {
        status = damaged(r, SKV_SEGMENT_SNAPSHOT, number, head, 0);
    } else if (status == 0) {
        enum skv_read_result ended;
        bool closed;
        status = apply_frames(r, &reader, &ended, &closed);
        /* It was renamed when all of it was on stable storage: whatever is wrong with it is damage. */
        if (status == 0 && (ended != SKV_READ_END || !closed))
            status = damaged(r, SKV_SEGMENT_SNAPSHOT, number,
                             ended == SKV_READ_FOREIGN ? SKV_DAMAGE_VERSION
                             : ended == SKV_READ_END   ? SKV_DAMAGE_SNAPSHOT
                                                       : SKV_DAMAGE_FRAME,
                             reader.at);
        r->out->end = r->out->snapshot_end = reader.segment.base;
        r->out->sequence = reader.segment.sequence;
    }
    skv_reader_close(&reader);
    return status;
}

/* Its maker died, or the power went, before the head was whole; then no frame had followed. */
static bool holds_nothing(const skv_reader *reader, enum skv_segment_fault fault)
{
    return fault == SKV_SEGMENT_SHORT || (fault == SKV_SEGMENT_DAMAGED && reader->file_size <= SKV_SEGMENT_HEAD);
}

static int read_segment(recovery *r, uint64_t number, bool last)
{
    char name[SKV_NAME_ROOM];
    skv_reader reader;
    enum skv_segment_fault fault;
    skv_recovered *out = r->out;
    skv_segment_name(SKV_SEGMENT_LOG, number, name);
    int status = skv_reader_open(&reader, r->files, name, &fault);
    enum skv_damage_kind head = status ? SKV_UNDAMAGED : fault_of_head(r, &reader, fault, SKV_SEGMENT_LOG, number);
    /* A snapshot is begun when the head of the segment that follows it is on stable storage. */
    if (status == 0 && last && number != r->snapshot && holds_nothing(&reader, fault)) {
        out->last.number = number;
        out->has_last = false;
    } else if (status == 0 && head) {
        status = damaged(r, SKV_SEGMENT_LOG, number, head, 0);
    } else if (status == 0 && !r->starts_anywhere
               && (reader.segment.base != out->end || reader.segment.sequence != out->sequence)) {
        status = damaged(r, SKV_SEGMENT_LOG, number, SKV_DAMAGE_GAP, 0);
    } else if (status == 0) {
        enum skv_read_result ended;
        bool closed;
        r->starts_anywhere = false;
        status = apply_frames(r, &reader, &ended, &closed);
        out->last = reader.segment;
        out->has_last = true;
        out->end = skv_reader_position(&reader);
        out->sequence = reader.sequence;
        out->synced = reader.synced > reader.segment.base ? reader.synced : reader.segment.base;
        out->cut = reader.file_size - reader.at;
        if (status == 0 && ended == SKV_READ_FOREIGN)
            status = damaged(r, SKV_SEGMENT_LOG, number, SKV_DAMAGE_VERSION, reader.at);
        else if (status == 0 && (ended == SKV_READ_ROTTEN || (!last && ended != SKV_READ_END)))
            status = damaged(r, SKV_SEGMENT_LOG, number, SKV_DAMAGE_FRAME, reader.at);
    }
    skv_reader_close(&reader);
    return status;
}

/* ---- All files ----------------------------------------------------------------------------------------- */

/* A last segment without a frame was begun before the power went, or in vain: then the one before it was gone on with. */
static int look_at_last(recovery *r, uint64_t number, bool *hollow, bool *has_head, skv_segment *segment)
{
    char name[SKV_NAME_ROOM];
    skv_reader reader;
    enum skv_segment_fault fault;
    skv_segment_name(SKV_SEGMENT_LOG, number, name);
    int status = skv_reader_open(&reader, r->files, name, &fault);
    *hollow = status == 0 && reader.file_size <= SKV_SEGMENT_HEAD;
    *has_head = *hollow && fault == SKV_SEGMENT_OK;
    *segment = reader.segment;
    skv_reader_close(&reader);
    return status;
}

/* The last two, of which the later is hollow: which of them is to be gone on with? */
static int read_last_two(recovery *r, uint64_t number, bool has_head, const skv_segment *hollow)
{
    skv_recovered *out = r->out;
    int status = read_segment(r, number, true);
    if (status || out->damage || !has_head)
        return status;
    /* It was begun when all before it was on stable storage: that is less now. */
    if (out->end < hollow->base)
        return damaged(r, SKV_SEGMENT_LOG, number, SKV_DAMAGE_FRAME, SKV_SEGMENT_HEAD + out->end - out->last.base);
    return out->end == hollow->base && out->cut == 0 ? read_segment(r, number + 1, true) : 0;
}

static int read_segments(recovery *r, const uint64_t *numbers, size_t count)
{
    skv_recovered *out = r->out;
    skv_segment last = {0};
    bool hollow = false, has_head = false;
    int status = count > 1 ? look_at_last(r, numbers[count - 1], &hollow, &has_head, &last) : 0;
    for (size_t i = 0; i < count && status == 0 && !out->damage; i++) {
        if (numbers[i] != out->first + i)
            return damaged(r, SKV_SEGMENT_LOG, out->first + i, SKV_DAMAGE_MISSING, 0);
        if (hollow && i + 2 == count)
            return read_last_two(r, numbers[i], has_head, &last);
        status = read_segment(r, numbers[i], i + 1 == count);
    }
    return status;
}

/* Where those that count begin. */
static size_t left_over(const numbers *n, uint64_t first)
{
    size_t i = 0;
    while (i < n->count && n->all[i] < first)
        i++;
    return i;
}

int skv_recover(skv_files files, bool sheds, skv_apply apply, void *to, skv_recovered *out)
{
    numbers n = {0};
    recovery r = {.files = files, .apply = apply, .to = to, .out = out};
    *out = (skv_recovered){0};
    int status = files.list(files.context, note_name, &n);
    if (status == 0 && n.no_memory)
        status = -ENOMEM;
    if (n.count)
        qsort(n.all, n.count, sizeof *n.all, ascending);
    out->found = n.count || n.snapshot;
    r.starts_anywhere = sheds && n.count;
    r.snapshot = n.snapshot;
    out->first = n.snapshot ? n.snapshot : r.starts_anywhere ? n.all[0] : 1;
    out->last = (skv_segment){.kind = SKV_SEGMENT_LOG, .number = out->first};
    if (status == 0 && n.snapshot)
        status = read_snapshot(&r, n.snapshot);
    if (status == 0 && !out->damage) {
        size_t old = left_over(&n, out->first);
        if (n.snapshot && old == n.count)
            damaged(&r, SKV_SEGMENT_LOG, n.snapshot, SKV_DAMAGE_MISSING, 0);
        else
            status = n.count ? read_segments(&r, n.all + old, n.count - old) : 0;
    }
    memcpy(out->last.uuid, r.uuid, sizeof r.uuid);
    free(n.all);
    return status;
}
