/* wal.h: appending frames to a log, and making them last.
 *
 * What: segments of a log (segment.h) that are written at one end; a state that says where the end is and how far
 *       the disk has followed.
 * How:  a frame is whole in the file before `end` moves behind it, so whoever takes the lock from a dead writer
 *       cuts the file at `end`, and nothing half written is ever followed by anything.  Group commit (DeWitt et al.,
 *       Implementation Techniques for Main Memory Database Systems, 1984): who needs a position on stable storage,
 *       and finds nobody at it, syncs for all whose frames are in the file by then; the others sleep until the round
 *       is over.  A segment is synced as a whole before the next one begins, so that only the last one can be torn.
 *
 *       A sync that failed may have dropped what it was to write, and would succeed if it were tried again: the log
 *       has failed then, for all and for good.  Who comes after somebody that may have been told of a failure, and was
 *       killed or stopped with it, writes again what was to be synced (again.h).
 *
 *       A file that was removed takes frames and syncs like any other, and what is in it is nowhere once it is closed.
 *       So who has synced looks whether it was the segment, under its name, in the folder, at its path, before it
 *       tells anybody; who appends looks once in a moment.  The inode in the state says which file the segment is to
 *       all processes: one of a backup may have its name, and the same head.
 *
 *       A sync of a file that has become longer also writes its new size, in another place of the disk: where `ahead`
 *       says so, the file is made longer by many frames at a time, with zeroes, which end a log as its end does.
 *
 * Concurrency: one appends at a time, under state->lock; any number wait for a sync.
 */
#ifndef SKV_WAL_H
#define SKV_WAL_H

#include "layout.h"
#include "segment.h"

/* How those who wait for a sync find their leader: in a region its lock has to survive its holder. */
typedef struct skv_turns {
    void *context;
    bool (*try_lead)(void *context, _Atomic uint32_t *lock);
    void (*end_lead)(void *context, _Atomic uint32_t *lock);
    /* Returns when *word is not `seen` any more, after a while, or for no reason; frees the lock of a dead leader. */
    void (*wait)(void *context, _Atomic uint32_t *word, uint32_t seen, _Atomic uint32_t *lock);
    /* Frees the lock of a dead leader: did it? */
    bool (*free_dead)(void *context, _Atomic uint32_t *lock);
    void (*wake_all)(void *context, _Atomic uint32_t *word);
    void (*pause)(void *context);       /* for some 50 us                                      */
} skv_turns;

/* The segment that is synced. */
typedef struct skv_wal_file {
    int handle;
    uint64_t identity;          /* of its file                                                */
    uint64_t number, base;
} skv_wal_file;

typedef struct skv_wal {
    skv_files files;
    skv_turns turns;
    skv_log_state *state;
    uint8_t uuid[16];
    int handle;                 /* to append; guarded by state->lock, and among threads by it too */
    uint64_t number;            /* of the segment behind `handle`                             */
    uint64_t base;              /* position of its first frame                                */
    uint64_t salt;
    uint64_t identity;          /* of its file                                                */
    uint64_t asked;             /* the moment in which it was seen to be that file; 0 = none  */
    uint64_t laid_out;          /* its file has this size, as far as this process knows       */
    _Atomic uint32_t stalled;   /* `sync_round` + 1 of a leader that was waited for in vain; 0 = none */
    uint64_t ahead;             /* so many zeroes are written ahead of the end; 0 = none      */
    skv_wal_file synced;        /* of whoever leads in this process                           */
} skv_wal;

/* Every function returns 0 or minus an errno; -EROFS: the log had failed before. */

void skv_wal_init(skv_wal *wal, skv_files files, skv_turns turns, skv_log_state *state, const uint8_t uuid[16]);
void skv_wal_close(skv_wal *wal);

/* Begins segment `number`, whose first frame will have `base` as its position and come after frame `sequence`.  A
 * file of that number that holds nothing (its maker died) is replaced. */
int skv_wal_begin_segment_locked(skv_wal *wal, uint64_t number, uint64_t base, uint64_t sequence);
/* Goes on in a segment that was read to its end: cuts off what is behind it, and syncs.  What lies between `synced`
 * and `end` is written again first: it was read, which does not say that it is on the disk. */
int skv_wal_resume_locked(skv_wal *wal, const skv_segment *segment, uint64_t synced, uint64_t end, uint64_t sequence);

/* The segment's file is open for this process: -ENOENT, -EBADMSG: it is not in this folder, or an earlier state of it. */
int skv_wal_open_locked(skv_wal *wal);
/* What was appended is in the folder at its path.  -ESTALE: it, or the log in it, was removed, or others were put in their
 * place.  So says whatever appends or syncs as well; once it is there again, the log goes on. */
int skv_wal_look_locked(skv_wal *wal);

/* Seals the frame and writes it behind the last one, where it counts for nothing yet; *position: behind it.  `soon`: a
 * sync of it follows.  On an error the log is as before, or has failed. */
int skv_wal_write_locked(skv_wal *wal, skv_frame *frame, bool soon, uint64_t *position);
/* From now on the frame that was written is part of the log. */
void skv_wal_accept_locked(skv_wal *wal, uint64_t position);
/* Both. */
int skv_wal_append_locked(skv_wal *wal, skv_frame *frame, uint64_t *position);

/* All of the log is on stable storage, and no frame says so yet. */
bool skv_wal_can_vouch(const skv_wal *wal);
/* Then says it, in an empty frame: of the last frames recovery could not tell damage from what a power cut left.  The
 * frame itself need not last. */
int skv_wal_vouch_locked(skv_wal *wal, bool *said);

/* After the death of who held the lock: what it had not finished is cut off, or, where it is a whole frame and
 * `accept` says so, is part of the log.  NULL accepts nothing. */
int skv_wal_repair_locked(skv_wal *wal, bool (*accept)(void *context), void *context);
/* Syncs the segment and begins the next one. */
int skv_wal_rotate_locked(skv_wal *wal);

/* Returns when everything below `position` is on stable storage.  A leader that makes no end is waited for so many turns
 * (of 20 ms at most each): then this process syncs beside it, and does so at once as long as that one has not moved. */
#define SKV_WAL_PATIENCE 100u
int skv_wal_sync_within(skv_wal *wal, uint64_t position, uint32_t turns);
static inline int skv_wal_sync(skv_wal *wal, uint64_t position)
{
    return skv_wal_sync_within(wal, position, SKV_WAL_PATIENCE);
}

/* After the death of who led a sync, before anybody else leads: it may have failed, and only the dead one was told. */
int skv_wal_repair_lead(skv_wal *wal);

#endif
