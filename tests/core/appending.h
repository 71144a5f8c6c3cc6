/* appending.h: a log on a disk in memory (disk.h), of frames that tell what they are.
 *
 * How: a frame holds its own number, and bytes that follow from it, so whatever a recovery brings back can be judged.
 */
#ifndef SKV_TEST_APPENDING_H
#define SKV_TEST_APPENDING_H

#include "disk.h"
#include "os_files.h"
#include "recover.h"
#include "wal.h"

static const uint8_t uuid[16] = "a log of a test";

/* ---- Frames that tell what they are ------------------------------------------------------------- */

static inline uint32_t ops_of(uint64_t number) { return (uint32_t)(mix64(number) % 4); }

static inline size_t value_of(uint64_t number, uint32_t op, uint8_t *out)
{
    uint64_t x = mix64(number * 8 + op);
    size_t len = VALUE_HEAD + (x % 16 ? x / 16 % 120 : x / 16 % 2500);
    make_value(out, number, op + 1, len);
    return len;
}

static inline void fill_frame(skv_frame *frame, uint64_t number)
{
    uint8_t value[4096];
    REQUIRE(skv_frame_begin(frame, SKV_FRAME_CHANGE), "no memory");
    for (uint32_t i = 0; i < ops_of(number); i++) {
        skv_op op = {.kind = SKV_OP_PUT, .key = (const uint8_t *)"key", .key_len = 3, .value = value};
        op.value_len = value_of(number, i, value);
        REQUIRE(skv_frame_add(frame, &op), "no memory");
    }
}

typedef struct seen {
    uint64_t frames;            /* whose numbers were 1, 2, ... */
} seen;

static inline int judge_frame(void *to, const skv_frame_view *view, const skv_segment *segment, uint64_t position)
{
    seen *s = to;
    skv_op op;
    uint64_t at = 0;
    (void)segment, (void)position;
    REQUIRE(view->sequence == s->frames + 1, "frame %" PRIu64 " comes after %" PRIu64, view->sequence, s->frames);
    s->frames = view->sequence;
    for (uint32_t i = 0; i < ops_of(view->sequence); i++) {
        uint8_t value[4096];
        size_t len = value_of(view->sequence, i, value);
        REQUIRE(skv_frame_next(view, &at, &op) && op.value_len == len && memcmp(op.value, value, len) == 0,
                "frame %" PRIu64 " brings something else", view->sequence);
    }
    REQUIRE(!skv_frame_next(view, &at, &op) && at == view->length, "frame %" PRIu64 " is longer", view->sequence);
    return 0;
}

/* ---- A log --------------------------------------------------------------------------------------- */

typedef struct journal {
    disk *d;
    skv_wal wal;
    skv_log_state state;
    skv_frame frame;
    uint64_t appended, acknowledged;    /* frames: in the file; on stable storage, as was answered */
} journal;

/* As a first process does: recovers what is there, and gets ready to append. */
static inline int open_journal(journal *j, disk *d)
{
    skv_recovered found;
    seen s = {0};
    j->d = d;
    memset(&j->state, 0, sizeof j->state);
    skv_wal_init(&j->wal, files_on(d), skv_private_turns(), &j->state, uuid);
    int status = skv_recover(files_on(d), false, judge_frame, &s, &found);
    if (status)
        return status;
    REQUIRE(!found.damage, "damage %d in %s at %" PRIu64 " (%" PRIu64 " frames were read)", (int)found.damage, found.name,
            found.offset, s.frames);
    REQUIRE(found.sequence == s.frames, "%" PRIu64 " frames, not %" PRIu64, s.frames, found.sequence);
    j->appended = s.frames;
    if (found.has_last)
        return skv_wal_resume_locked(&j->wal, &found.last, found.synced, found.end, found.sequence);
    return skv_wal_begin_segment_locked(&j->wal, found.last.number, found.end, found.sequence);
}

static inline void close_journal(journal *j)
{
    skv_wal_close(&j->wal);
    skv_frame_free(&j->frame);
}

static inline void wait_no_time(void *context, _Atomic uint32_t *word, uint32_t old, _Atomic uint32_t *lock)
{
    (void)context, (void)word, (void)old, (void)lock;
}

static inline int append_one(journal *j, uint64_t *position)
{
    fill_frame(&j->frame, j->appended + 1);
    int status = skv_wal_append_locked(&j->wal, &j->frame, position);
    j->appended += status == 0;
    return status;
}

static inline int sync_all(journal *j)
{
    int status = skv_wal_sync(&j->wal, skv_load(&j->state.end));
    if (status == 0)
        j->acknowledged = j->appended;
    return status;
}

#endif
