/* recover.h: reading a log from its snapshot to its end, after whatever has happened to it.
 *
 * What: the snapshot with the highest number n, then the segments n, n + 1, ...; without a snapshot, from segment 1, or,
 *       in a log that sheds them, from the oldest one.
 * How:  frames are applied in order, each whole or not at all.  Where the last segment ends in something that is no
 *       frame, that was being written in the end, and is cut off; anywhere else it is damage, and nothing that
 *       comes after it is applied.  Files with lower numbers are left over from a removal that was cut short.
 *
 * Concurrency: the caller has the folder to itself.
 */
#ifndef SKV_RECOVER_H
#define SKV_RECOVER_H

#include "segment.h"

/* Takes a frame; 0 to go on, anything else ends the recovery with it. */
typedef int (*skv_apply)(void *to, const skv_frame_view *view, const skv_segment *segment, uint64_t position);

enum skv_damage_kind {
    SKV_UNDAMAGED = 0,
    SKV_DAMAGE_FRAME,           /* a frame that was acknowledged is not whole                 */
    SKV_DAMAGE_HEAD,            /* the head of a file                                         */
    SKV_DAMAGE_MISSING,         /* a segment                                                  */
    SKV_DAMAGE_GAP,             /* between two segments                                       */
    SKV_DAMAGE_FOREIGN_LOG,     /* a file of another log                                      */
    SKV_DAMAGE_VERSION,         /* of a later shmkv                                           */
    SKV_DAMAGE_SNAPSHOT,        /* it has no end                                              */
};

typedef struct skv_recovered {
    bool found;                 /* there is a log; else it is to be begun                     */
    skv_segment last;           /* to be appended to, if `has_last`; else segment last.number is to be begun */
    bool has_last;
    uint64_t end, sequence;     /* of the whole frames                                        */
    uint64_t synced;            /* position below which a frame or the head of the last segment vouches for the disk */
    uint64_t snapshot_end;      /* position from which the snapshot goes on; 0 = there is none */
    uint64_t first;             /* files with a lower number are to be removed                */
    uint64_t cut;               /* bytes behind the last whole frame                          */
    enum skv_damage_kind damage;
    char name[SKV_NAME_ROOM];   /* of the damaged file                                        */
    uint64_t offset;            /* in it                                                      */
} skv_recovered;

/* 0, minus an errno, or what `apply` returned.  With 0, out->damage tells whether everything was applied.
 * `sheds`: this log has no snapshots, and gives its oldest segments up once nothing in them counts; then it begins
 * with the lowest one that there is. */
int skv_recover(skv_files files, bool sheds, skv_apply apply, void *to, skv_recovered *out);

#endif
