/* segment.h: a file of frames: its head, its name, reading it from end to end.
 *
 *     0           8         12     16      32        40       48         56         64
 *     +-----------+---------+------+-------+---------+--------+----------+----------+-------
 *     | \rshmlog\n| version | kind | uuid  | number  | base   | sequence | checksum | frames
 *     +-----------+---------+------+-------+---------+--------+----------+----------+-------
 *
 * A log is segments with the numbers n, n + 1, ...; the highest is appended to.  `base` is the position in the log
 * (bytes of frames since it began) of the first frame of the segment, `sequence` the number of the frame before
 * it: nothing can be missing between two segments, or be in another order, unseen.  A snapshot `n` holds what all
 * segments before n led to.  The checksum (XXH3-64, seed 0) covers what is before it; the salt of the frames follows
 * from the same bytes, so that a frame of another file is none.
 *
 * Concurrency: a reader belongs to one thread.
 */
#ifndef SKV_SEGMENT_H
#define SKV_SEGMENT_H

#include "files.h"
#include "frame.h"

#define SKV_SEGMENT_HEAD     64u
#define SKV_SEGMENT_VERSION  1u
#define SKV_NAME_ROOM        40u

enum skv_segment_kind { SKV_SEGMENT_LOG = 1, SKV_SEGMENT_SNAPSHOT = 2 };

typedef struct skv_segment {
    enum skv_segment_kind kind;
    uint8_t uuid[16];           /* of the log                                                 */
    uint64_t number, base, sequence;
} skv_segment;

/* "00000000000000000007.log", or ".snapshot". */
void skv_segment_name(enum skv_segment_kind kind, uint64_t number, char name[SKV_NAME_ROOM]);
/* False: the name is not of that form. */
bool skv_segment_named(const char *name, enum skv_segment_kind *kind, uint64_t *number);
void skv_segment_encode(const skv_segment *segment, uint8_t head[SKV_SEGMENT_HEAD]);
uint64_t skv_segment_salt(const skv_segment *segment);

enum skv_segment_fault {
    SKV_SEGMENT_OK = 0,
    SKV_SEGMENT_SHORT,          /* its maker died before the head was whole: it holds nothing */
    SKV_SEGMENT_FOREIGN,        /* another version                                            */
    SKV_SEGMENT_DAMAGED,
};
enum skv_segment_fault skv_segment_decode(const uint8_t *head, size_t len, skv_segment *segment);

/* ---- Reading ------------------------------------------------------------------------------ */

enum skv_read_result {
    SKV_READ_FRAME = 0,
    SKV_READ_END,               /* nothing follows                                            */
    SKV_READ_TORN,              /* what follows was never whole on stable storage: cut it off */
    SKV_READ_ROTTEN,            /* what follows was acknowledged, and is damaged              */
    SKV_READ_FOREIGN,           /* it was written by another version                          */
    SKV_READ_ERROR,             /* reader->error tells                                        */
    SKV_READ_NO_MEMORY,
};

typedef struct skv_reader {
    skv_files files;
    int handle;
    uint64_t identity;          /* of its file: user code may close the handle                */
    skv_segment segment;
    uint64_t salt;
    uint64_t file_size;
    uint64_t at;                /* in the file, of the next frame                             */
    uint64_t sequence;          /* of the last frame that was read                            */
    uint64_t synced;            /* the furthest position that a frame says is on stable storage */
    uint8_t *bytes;             /* of the file from `bytes_at` on                             */
    size_t filled, room;
    uint64_t bytes_at;
    enum skv_read_result ended; /* what it ended with; FRAME = it has not                     */
    int error;                  /* minus an errno, with SKV_READ_ERROR                        */
} skv_reader;

/* Opens `name` and reads its head into reader->segment.  0, or minus an errno; *fault tells about the head, and
 * nothing is to be read unless it is OK.  -EBADF, here and later: the handle was closed, which tells nothing about the
 * file.  skv_reader_close in every case. */
int skv_reader_open(skv_reader *reader, skv_files files, const char *name, enum skv_segment_fault *fault);
/* The next frame; it is valid until the next call.  After another result than FRAME, the same again. */
enum skv_read_result skv_reader_next(skv_reader *reader, skv_frame_view *view);
/* To a position in the file at which a frame begins, whatever number it has. */
void skv_reader_go_to(skv_reader *reader, uint64_t position);
/* Position in the log of what is read next. */
uint64_t skv_reader_position(const skv_reader *reader);
void skv_reader_close(skv_reader *reader);

#endif
