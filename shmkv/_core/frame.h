/* frame.h: a change, or a batch of changes, as bytes of a log or a snapshot.
 *
 *     0        4  5  6     8         16         24         32         40
 *     +--------+--+--+-----+---------+----------+----------+----------+------------------+-----+
 *     | "skvF" | v| k|  0  | length  | sequence | synced   | checksum | operations ...   | 0.. |
 *     +--------+--+--+-----+---------+----------+----------+----------+------------------+-----+
 *                                                                      `length` bytes      to 8
 *     an operation:
 *     0    1    2     3   4         8              16             24
 *     +----+----+-----+---+---------+--------------+--------------+-----+-------+
 *     |kind|type|flags| 0 | key len | value length | expires (ms) | key | value |
 *     +----+----+-----+---+---------+--------------+--------------+-----+-------+
 *
 * Little-endian, whatever the machine is.  A frame is all or nothing: its checksum (XXH3-64) covers everything in
 * it, under a seed that follows from the salt of the log, so that a frame of another log is none.  `sequence`
 * counts the frames of a log from 1 without a gap.  `synced` is the position in the log below which everything was
 * on stable storage when the frame was made: a frame that is damaged below it was not torn by a power cut, but
 * has rotted.  Times are Unix time: they mean the same after a reboot.
 *
 * Concurrency: plain memory of the caller.
 */
#ifndef SKV_FRAME_H
#define SKV_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SKV_FRAME_HEAD     40u
#define SKV_FRAME_FIRST    0x73u        /* its first byte                                         */
#define SKV_FRAME_VERSION  1u
#define SKV_OP_HEAD        24u

enum skv_frame_kind {
    SKV_FRAME_CHANGE = 1,
    SKV_FRAME_PART = 2,         /* of a snapshot: items                                       */
    SKV_FRAME_END = 3,          /* of a snapshot: how many items there are                    */
};

enum skv_op_kind {
    SKV_OP_PUT = 1,             /* the item has this value and expiry, whatever it had before  */
    SKV_OP_DELETE = 2,
    SKV_OP_CLEAR = 3,           /* no key                                                     */
    SKV_OP_COUNT = 4,           /* `expires_ms` holds a number: in SKV_FRAME_END, of the items; in the log of a
                                 * DataStore, of the last segment that was removed            */
};

enum skv_op_flag { SKV_OP_BYTES_KEY = 1 };

typedef struct skv_op {
    enum skv_op_kind kind;
    uint8_t type;               /* of the value, enum skv_type                                */
    bool bytes_key;
    uint32_t key_len;
    uint64_t value_len;
    uint64_t expires_ms;        /* Unix time; 0 = never                                       */
    const uint8_t *key, *value; /* into the frame, when it was read from one                  */
} skv_op;

/* ---- Making ------------------------------------------------------------------------------ */

/* A frame that grows: kept and used again by its owner.  All zeroes is a new one; one in memory of the owner's own, of
 * skv_frame_room bytes, does not grow and is not freed. */
typedef struct skv_frame {
    uint8_t *bytes;
    size_t size, room;          /* size: with its padding once it is sealed                   */
} skv_frame;

/* For operations of so many bytes in all, SKV_OP_HEAD for each included. */
size_t skv_frame_room(uint64_t bytes);
/* False: no memory. */
bool skv_frame_begin(skv_frame *frame, enum skv_frame_kind kind);
bool skv_frame_add(skv_frame *frame, const skv_op *op);
/* What is added next, up to so many bytes of key and value, will not need memory. */
bool skv_frame_reserve(skv_frame *frame, uint64_t bytes);
/* What is known only when its turn has come; may be called again.  O(size), for the checksum. */
void skv_frame_seal(skv_frame *frame, uint64_t sequence, uint64_t synced, uint64_t salt);
void skv_frame_free(skv_frame *frame);

/* ---- Reading ------------------------------------------------------------------------------- */

enum skv_frame_fault {
    SKV_FRAME_OK = 0,
    SKV_FRAME_NOTHING,          /* the end, or zeroes                                         */
    SKV_FRAME_SHORT,            /* the bytes end before it does                               */
    SKV_FRAME_FOREIGN,          /* another version, with a good checksum                      */
    SKV_FRAME_DAMAGED,          /* anything else                                              */
};

typedef struct skv_frame_view {
    enum skv_frame_kind kind;
    uint64_t sequence, synced;
    uint64_t size;              /* bytes to the next one                                      */
    const uint8_t *ops;
    uint64_t length;
} skv_frame_view;

/* The frame at `at`, of which `available` bytes are there.  Trusts nothing.  O(size). */
enum skv_frame_fault skv_frame_read(const uint8_t *at, uint64_t available, uint64_t salt, skv_frame_view *view);

/* The operation at `*at` (0 for the first), which is moved behind it.  False: there is none, and then `*at` is the
 * length; or, where the maker was wrong or hostile, it does not fit, and then `*at` is not. */
bool skv_frame_next(const skv_frame_view *view, uint64_t *at, skv_op *op);

#endif
