/* layout.h: everything that lies in the region, and nothing else.
 *
 * The region is a POSIX shared-memory object of a fixed, sparse size.  It holds offsets and
 * fixed-width integers only: no pointer, no libc type, no padding that is not spelled out.
 *
 *     0            4 KiB          324 KiB
 *     +------------+--------------+-----------+-----------+----------------+------------------
 *     | header     | process      | buckets   | page      | page           | pages, 64 KiB each
 *     | 1 page     | table        | 64 B each | kinds     | descriptors    | (records, tables,
 *     |            | 1,023 x 320B | 2^bits    | 1 B each  | 320 B each     |  intents, runs)
 *     +------------+--------------+-----------+-----------+----------------+------------------
 *     committed when the store is created ---------------->| committed with their pages ------>
 *
 *     bucket --table word--> table: [header | slot | slot | slot ...]   16 B each
 *                                             |
 *                                             +--offset--> record: [header | expiry? | key | value]
 *
 * Who commits what (the linearization points):
 *     put, delete, evict    one store of a slot's word A
 *     growth of a table     one store of the bucket's table word
 *     put_many, delete_many, clear    one store of the process slot's `status`
 *     page, run             one store of the (head) descriptor's `word`
 *     region growth         one store of `committed_pages`
 *
 * Readers: table.h, intent.h.  Writers: store.c, batch.c.  Checker: check.c.  The Python twin
 * of this file, which reads a region without the engine, is shmkv/deepcheck.py.
 */
#ifndef SKV_LAYOUT_H
#define SKV_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Numbers ------------------------------------------------------------------------- */

#define SKV_MAGIC            UINT64_C(0x0a31766b6d68730d) /* "\rshmkv1\n" read little-endian  */
#define SKV_LAYOUT_VERSION   1u
#define SKV_BYTE_ORDER       0x01020304u                  /* reads differently when swapped   */

#define SKV_PAGE_SHIFT       16                           /* 64 KiB: 16 to a 1 MiB growth step */
#define SKV_PAGE_SIZE        (1u << SKV_PAGE_SHIFT)
#define SKV_GROW_STEP_PAGES  16u
#define SKV_HUGE_PAGE        (UINT64_C(2) << 20)          /* large stores grow in these, aligned  */
#define SKV_HUGE_FROM        (UINT64_C(64) << 20)         /* size of a large store                */
#define SKV_UNIT             16u                          /* offsets count units of 16 bytes  */

#define SKV_MAX_KEY          65535u
#define SKV_MAX_VALUE        UINT64_C(0xffffffff)         /* and a quarter of the store       */
#define SKV_MAX_BATCH        65536u
#define SKV_MIN_SIZE         (UINT64_C(1) << 20)
#define SKV_MAX_SIZE         (UINT64_C(1) << 43)          /* half of what 40 bits of units name */
#define SKV_MIN_BUCKET_BITS  4u
#define SKV_MAX_BUCKET_BITS  26u
#define SKV_PROCS            1023u                        /* 10 bits of a lock word, 0 is free */
#define SKV_NO_PROC          0xffffffffu
/* Word B has room for 34.8 years since boot, enough for the longest ttl, 30 years, until a machine has been up for
 * 4.8: from then on B may say SKV_MAX_EXPIRY, "then or later", and the record says when. */
#define SKV_EXPIRY_BITS      40
#define SKV_MAX_EXPIRY       ((UINT64_C(1) << SKV_EXPIRY_BITS) - 1)
#define SKV_NO_CLOCK         (UINT64_C(1) << 44)          /* 557 years after boot              */

/* ---- Header -------------------------------------------------------------------------- */

enum skv_store_flag {
    SKV_FLAG_EVICT = 1u,
    SKV_FLAG_DURABLE = 2u,      /* every change goes through the log of a folder: journal.h   */
};

/* Written once before `state` says ready, never again; `checksum` is XXH3-64 (seed 0) of the
 * 248 bytes before it, so that a foreign or torn header is refused before anything is used. */
typedef struct skv_fixed {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t byte_order;
    uint64_t size;              /* bytes, the whole region                                    */
    uint8_t  page_shift;
    uint8_t  bucket_bits;       /* number of buckets = 2^bucket_bits                          */
    uint16_t flags;             /* enum skv_store_flag                                        */
    uint32_t mode;              /* permission bits that the creator asked for                 */
    uint8_t  uuid[16];
    uint8_t  boot_id[16];       /* of the boot that created it: another one makes it stale    */
    uint64_t hash_seed;
    uint64_t created_boot_ms;   /* CLOCK_BOOTTIME                                             */
    uint64_t created_wall_ms;   /* CLOCK_REALTIME, Unix epoch                                 */
    uint64_t procs_offset;      /* bytes from the region's start, as are the next four        */
    uint64_t buckets_offset;
    uint64_t kinds_offset;
    uint64_t descriptors_offset;
    uint64_t pages_offset;      /* multiple of 64 KiB                                         */
    uint64_t pages;             /* how many fit, committed or not                             */
    uint64_t time_namespace;    /* inode of the time namespace that the clocks belong to      */
    uint32_t uid;               /* of the creator                                             */
    uint32_t reserved32;
    uint8_t  log_uuid[16];      /* of the log whose data these are, in a durable store        */
    uint8_t  reserved[80];
    uint64_t checksum;
} skv_fixed;

enum skv_state { SKV_CREATING = 0, SKV_READY = 1, SKV_POISONED = 2 };

/* A log that is appended to by many: wal.h.  Positions count the bytes of frames since the log began. */
typedef struct skv_log_state {
    _Alignas(64) _Atomic uint32_t lock;     /* guards all but what is below `sync_lock`       */
    _Atomic uint32_t failed;                /* errno of what left the disk in doubt; 0 = none */
    _Atomic uint64_t segment;               /* number of the segment that is appended to; 0 = there is no log yet */
    _Atomic uint64_t end;                   /* position behind the last whole frame           */
    _Atomic uint64_t sequence;              /* of that frame                                  */
    _Atomic uint64_t kept_from;             /* position from which the newest snapshot goes on */
    _Atomic uint32_t writer;                /* process slot + 1 of who appends; 0 = nobody    */
    _Atomic uint64_t writer_status;         /* `status` of that process while its frame counts for nothing yet */
    _Atomic uint64_t vouched;               /* `end` when the last frame, or a segment's head, said that all was synced */
    _Alignas(64) _Atomic uint32_t sync_lock;        /* one syncs for all who wait             */
    _Atomic uint32_t sync_round;            /* +1 after each sync; who waits sleeps on it     */
    _Atomic uint64_t synced;                /* what is below it is on stable storage          */
    _Atomic uint32_t sync_waiters;          /* who sleeps until a round is over (hint)        */
    struct {                                /* which file a segment is, at number % 2: wal.c  */
        _Atomic uint64_t number;            /* 0 = nobody noted one                           */
        _Atomic uint64_t inode;
    } file[2];
} skv_log_state;

#define SKV_CLASSES   56u       /* 55 block sizes up to 8 KiB, and the unit class: pages.h    */
#define SKV_FAMILIES  2u        /* records; tables and intents                                */

typedef struct skv_header {
    skv_fixed fixed;
    _Alignas(64) _Atomic uint32_t state;            /* enum skv_state                         */
    _Alignas(64) _Atomic uint32_t pages_lock;       /* guards descriptors' words, kinds, hands */
    _Atomic uint32_t leased_pages;                  /* derived                                */
    _Alignas(64) _Atomic uint32_t grow_lock;        /* guards committed_pages                 */
    _Alignas(64) _Atomic uint64_t committed_pages;  /* pages below it are allocated memory    */
    _Alignas(64) _Atomic uint64_t epoch;            /* grace periods, see compact.c           */
    _Atomic uint32_t compact_lock;                  /* one audit or compaction at a time      */
    _Atomic uint32_t deaths;                        /* slots reclaimed so far: each may leak  */
    _Atomic uint32_t audited_deaths;                /* `deaths` at the last whole audit       */
    _Atomic uint32_t auditing;                      /* an audit runs: see spare.h; a hint once its process died */
    _Alignas(64) _Atomic uint64_t evict_hand;       /* next bucket of the clock (hint)        */
    _Atomic uint64_t sweep_hand;                    /* next bucket of the expiry sweep (hint) */
    _Atomic uint64_t written;                       /* bytes of records written so far, in evicting stores: age.h (hint) */
    _Alignas(64) _Atomic uint32_t page_hand[SKV_FAMILIES][SKV_CLASSES]; /* hints              */
    _Atomic uint32_t free_hand;                     /* below it no page is free (hint)        */
    skv_log_state log;                              /* of a durable store: journal.h          */
    _Alignas(64) _Atomic uint32_t checkpoint_lock;  /* one snapshot to disk at a time         */
} skv_header;

#define SKV_HEADER_SIZE 4096u
#define SKV_PATH_OFFSET 2048u   /* of a durable store: the path of its directory, for people; region.py writes it */

static_assert(sizeof(skv_fixed) == 256, "the checked part of the header is 256 bytes");
static_assert(offsetof(skv_fixed, checksum) == 248, "checksum closes the fixed part");
static_assert(offsetof(skv_header, state) == 256, "published in docs/memory-layout.md");
static_assert(offsetof(skv_header, committed_pages) == 448, "published in docs/memory-layout.md");
static_assert(offsetof(skv_log_state, file) == 88, "published as well");
static_assert(offsetof(skv_header, log) == 1152 && offsetof(skv_header, checkpoint_lock) == 1280, "published as well");
static_assert(sizeof(skv_header) <= SKV_PATH_OFFSET, "the header leaves half of its page to the path");

/* ---- Process table ------------------------------------------------------------------- */

enum skv_proc_state { SKV_PROC_FREE = 0, SKV_PROC_USED = 1 };

/* The state of the one batch that a process may have in flight.  The word also holds the
 * generation (<< 2), so that an intent of an earlier batch can never look committed. */
enum skv_batch_status { SKV_BATCH_IDLE = 0, SKV_BATCH_PENDING = 1, SKV_BATCH_COMMITTED = 2 };

enum skv_counter {
    SKV_HITS, SKV_MISSES, SKV_SETS, SKV_DELETES, SKV_EXPIRED, SKV_EVICTED, SKV_RETRIES,
    SKV_LOCK_WAITS, SKV_COUNTERS
};

/* Counters are never reset: the sum over all slots is the sum over all processes that ever
 * were.  Threads that hold the GIL add to `counters` with a plain load and store, all others
 * to `shared_counters` with an atomic add; no line is ever written by two processes. */
typedef struct skv_proc {
    _Atomic uint32_t state;             /* enum skv_proc_state                                */
    _Atomic uint32_t generation;        /* +1 at each registration                            */
    _Atomic uint32_t pid;               /* in the process's own pid namespace                 */
    uint32_t reserved0;
    _Atomic uint64_t start_time;        /* clock ticks since boot, field 22 of /proc/pid/stat */
    _Atomic uint64_t pid_namespace;     /* inode                                              */
    _Atomic uint64_t attached_wall_ms;
    _Atomic uint64_t spare;             /* offset of a block kept for the next put, or 0: spare.h */
    uint64_t reserved1[2];

    _Atomic uint64_t intent;            /* offset in bytes of the batch's intent, or 0        */
    _Atomic uint64_t status;            /* batch generation << 2 | enum skv_batch_status      */
    _Atomic uint32_t busy[2];           /* operations in flight by parity of `epoch`          */
    _Atomic uint32_t alone[2];          /* the same of the thread that holds the GIL: 0 or 1  */
    uint64_t removal[4];                /* the skv_intent of what needs no allocation, and    */
    uint64_t single[4];                 /* its one entry: a removal has none                  */
    uint64_t reserved2[4];

    _Atomic uint64_t counters[SKV_COUNTERS];
    _Atomic uint64_t shared_counters[SKV_COUNTERS];
} skv_proc;

static_assert(sizeof(skv_proc) == 320, "five cache lines");
static_assert(offsetof(skv_proc, removal) == 96, "aligned to 16, as every intent");
static_assert(offsetof(skv_proc, intent) == 64, "the batch has its own line");
static_assert(offsetof(skv_proc, single) == 128, "behind the head of its intent");
static_assert(offsetof(skv_proc, counters) == 192, "counters have their own lines");

/* ---- Lock words ---------------------------------------------------------------------- */

/*  31       30          29 ............. 10   9 ........ 0
 * +--------+-----------+--------------------+-------------+
 * | waiters| recovering| thread tag         | slot + 1    |    0 = free
 * +--------+-----------+--------------------+-------------+ */
#define SKV_LOCK_OWNER_MASK  0x3ffu
#define SKV_LOCK_TAG_SHIFT   10
#define SKV_LOCK_TAG_MASK    0xfffffu
#define SKV_LOCK_RECOVERING  0x40000000u
#define SKV_LOCK_WAITERS     0x80000000u

/* ---- Buckets, tables, slots ---------------------------------------------------------- */

/* One cache line.  `lock` guards all of it and the slots; readers load seq, table and txn. */
typedef struct skv_bucket {
    _Atomic uint32_t lock;
    _Atomic uint32_t count;             /* live slots, expired ones included; derived         */
    _Atomic uint64_t seq;               /* +1 after each committed change; never odd or even  */
    _Atomic uint64_t table;             /* capacity << 40 | offset in units; 0 = no table yet */
    _Atomic uint64_t txn;               /* 0, or offset in bytes of the intent applied here   */
    _Atomic uint32_t tombstones;        /* derived                                            */
    _Atomic uint32_t hand;              /* clock and sweep position in the table (hint)       */
    _Atomic uint64_t value_bytes;       /* derived                                            */
    _Atomic uint64_t earliest_expiry;   /* no item expires before it, ms; 0 = none does; derived */
    _Atomic uint64_t rebuilds;          /* +1 before each store of `table`: who walks it sees one that came back */
} skv_bucket;

static_assert(sizeof(skv_bucket) == 64, "one cache line");

/* Word A:  63 ... 40      39 ......... 0
 *         +-----------+------------------+
 *         | tag       | offset (units)   |   0 = empty, 1 = tombstone, else the slot is live
 *         +-----------+------------------+
 * Word B:  63 62    61       60 ........... 40     39 ........... 0
 *         +---------+--------+--------------------+-----------------+
 *         | clock   | doomed | hash bits 24 to 44 | expiry, ms or 0 |   a hint, repaired from the record
 *         +---------+--------+--------------------+-----------------+
 *  in evicting stores, instead of hash bits:
 *         +---------+--------+--------+-----------+-----------------+
 *         | clock   | doomed | proven | stamp     | expiry, ms or 0 |   60 = proven (evict.c), 59 to 40: age.h
 *         +---------+--------+--------+-----------+-----------------+
 *         and in a slot that is not live, five fingerprints of keys that were evicted (ghost.h)
 * A doomed slot is removed by the batch in the bucket's txn, once that is committed. */
typedef struct skv_slot {
    _Atomic uint64_t a;
    _Atomic uint64_t b;
} skv_slot;

#define SKV_OFFSET_BITS   40
#define SKV_OFFSET_MASK   ((UINT64_C(1) << SKV_OFFSET_BITS) - 1)
#define SKV_TAG_BITS      24
#define SKV_TAG_MASK      ((1u << SKV_TAG_BITS) - 1)
#define SKV_EMPTY         UINT64_C(0)
#define SKV_TOMBSTONE     UINT64_C(1)
#define SKV_CLOCK_SHIFT   62
#define SKV_B_HASH_SHIFT  40
#define SKV_B_HASH_MASK   UINT64_C(0x1fffff)
#define SKV_B_STAMP_MASK  0xfffffu
#define SKV_B_PROVEN      (UINT64_C(1) << 60)
#define SKV_B_DOOMED      (UINT64_C(1) << 61)

/* Tables and intents open with 16 bytes that say what they are, so that an audit can ask the
 * one word that may name them. */
enum skv_meta_kind { SKV_META_TABLE = 0x6c626174 /* "tabl" */, SKV_META_INTENT = 0x746e746e };

typedef struct skv_meta {
    _Atomic uint32_t kind;      /* enum skv_meta_kind                                         */
    _Atomic uint32_t owner;     /* table: bucket index; intent: process slot                  */
    _Atomic uint64_t detail;    /* table: capacity in slots; intent: batch generation         */
} skv_meta;

static_assert(sizeof(skv_slot) == 16 && sizeof(skv_meta) == 16, "slots start 16 bytes in");

/* WRITE lists entries.  CLEAR empties every bucket whose txn names it; REMOVE takes the slots out that
 * are marked in word B: both have no entries, so that a full store can always be made emptier. */
enum skv_intent_action { SKV_INTENT_WRITE = 1, SKV_INTENT_CLEAR = 2, SKV_INTENT_REMOVE = 3 };

/* Entries are sorted by bucket.  A committed entry means: slot `index` of that bucket's table
 * holds `new_a`, whatever the slot's own word says yet. */
typedef struct skv_intent_entry {
    uint32_t bucket;
    uint32_t index;
    uint64_t new_a;             /* a record                                                   */
    uint64_t old_a;             /* what the slot held: a record, SKV_TOMBSTONE or SKV_EMPTY   */
    uint64_t new_b;
} skv_intent_entry;

typedef struct skv_intent {
    skv_meta meta;
    uint32_t action;            /* enum skv_intent_action                                     */
    uint32_t count;             /* entries                                                    */
    uint64_t reserved;
    skv_intent_entry entries[];
} skv_intent;

static_assert(sizeof(skv_intent_entry) == 32 && sizeof(skv_intent) == 32, "no padding");
static_assert(sizeof(skv_intent) == sizeof(((skv_proc *)0)->removal), "it fits the row");
static_assert(sizeof(skv_intent_entry) == sizeof(((skv_proc *)0)->single), "and so does one entry");

/* ---- Records ------------------------------------------------------------------------- */

enum skv_record_flag {
    SKV_REC_BYTES_KEY = 1,      /* the key was given as bytes, not as str                     */
    SKV_REC_EXPIRY = 2,         /* eight bytes of expiry (ms, boot time) precede the key      */
};

/* Immutable once published, except the expiry word. */
typedef struct skv_record {
    uint32_t value_len;
    uint16_t key_len;
    uint8_t  type;              /* enum skv_type, opaque to the engine but for SKV_T_INT      */
    uint8_t  flags;             /* enum skv_record_flag                                       */
    uint64_t version;           /* the bucket's seq after the change that wrote it            */
} skv_record;

static_assert(sizeof(skv_record) == 16, "16 bytes before expiry, key and value");

/* ---- Value types: the first level of the "safe" codec (binding/codec_format.h) -------- */

enum skv_type {
    SKV_T_BYTES = 1,            /* the bytes                                                  */
    SKV_T_STR = 2,              /* UTF-8                                                      */
    SKV_T_INT = 3,              /* signed 64 bits, little-endian, always 8 bytes              */
    SKV_T_BIGINT = 4,           /* two's complement, little-endian, shortest                  */
    SKV_T_FLOAT = 5,            /* IEEE 754 binary64, little-endian                           */
    SKV_T_FALSE = 6,
    SKV_T_TRUE = 7,
    SKV_T_NONE = 8,
    SKV_T_LIST = 9,             /* varint count, then items, each a type byte and its payload */
    SKV_T_TUPLE = 10,
    SKV_T_DICT = 11,            /* varint count, then key, value, key, value, ...             */
    SKV_T_SET = 12,
    SKV_T_FROZENSET = 13,
    SKV_T_DATETIME = 14,
    SKV_T_DATE = 15,
    SKV_T_TIMEDELTA = 16,
    SKV_T_BYTES_TYPED = 17,     /* one byte n, n bytes of content type, then the bytes        */
    SKV_T_CODEC = 32,           /* bytes of a user's codec object                             */
    SKV_T_PICKLE = 33,
    SKV_T_JSON = 34,
};

static inline int skv_is_known_type(uint8_t type)
{
    return (type >= SKV_T_BYTES && type <= SKV_T_BYTES_TYPED) || (type >= SKV_T_CODEC && type <= SKV_T_JSON);
}

/* ---- Pages --------------------------------------------------------------------------- */

enum skv_page_state {
    SKV_PAGE_FREE = 0,          /* zeroed memory is a free page                               */
    SKV_PAGE_BLOCKS = 1,        /* blocks of one class                                        */
    SKV_PAGE_RUN = 2,           /* head of `run` contiguous pages                             */
    SKV_PAGE_TAIL = 3,          /* inside a run; derived from the head                        */
    SKV_PAGE_PUNCHED = 4,       /* free, and its memory given back to the system              */
};

/* Descriptor word, the truth about a page; changed by one store under pages_lock:
 *     63 ..... 32   31 .. 28   27 .. 20   19     18 ....... 8   7 .. 4   3 .. 0
 *    +------------+----------+----------+------+--------------+--------+-------+
 *    | run length | zero     | class    | evac | owner slot+1 | family | state |
 *    +------------+----------+----------+------+--------------+--------+-------+
 * In a tail, the run length is the distance to the head. */
#define SKV_PW_STATE_MASK    0xfu
#define SKV_PW_FAMILY_SHIFT  4
#define SKV_PW_FAMILY_MASK   0xfu
#define SKV_PW_OWNER_SHIFT   8
#define SKV_PW_OWNER_MASK    0x7ffu
#define SKV_PW_EVAC          (UINT64_C(1) << 19)
#define SKV_PW_CLASS_SHIFT   20
#define SKV_PW_CLASS_MASK    0xffu
#define SKV_PW_RUN_SHIFT     32

#define SKV_BITMAP_WORDS     32u        /* 64 KiB / 32 B = 2,048 blocks at most               */
#define SKV_UNIT_SHIFT       10         /* units of the unit class are 1 KiB                  */
#define SKV_PAGE_UNITS       (SKV_PAGE_SIZE >> SKV_UNIT_SHIFT)

/* Bit set = block in use.  A page of the unit class uses bitmap[0] only, a bit for each KiB in
 * use, and `lengths`: the units of the block that starts at a unit, written before its bits. */
typedef struct skv_page {
    _Atomic uint64_t word;
    _Atomic uint64_t generation;        /* +1 each time a run starts here                     */
    uint64_t reserved[6];
    union {
        _Atomic uint64_t bitmap[SKV_BITMAP_WORDS];
        struct {
            uint64_t units;             /* = bitmap[0]                                        */
            _Atomic uint8_t lengths[SKV_PAGE_UNITS];
        };
    };
} skv_page;

static_assert(sizeof(skv_page) == 320, "one line and the bitmap");

/* Page kinds, one byte a page: what a search for room needs, 64 pages to a cache line.
 * Derived from descriptor and bitmap; a wrong one costs time, never data. */
enum skv_kind {
    SKV_KIND_FREE = 0,
    SKV_KIND_RUN = 1,
    SKV_KIND_PUNCHED = 2,
    SKV_KIND_TAKEN = 3,         /* leased, or being evacuated                                 */
    SKV_KIND_FULL = 4,
    SKV_KIND_ROOM = 16,         /* + family * 56 + class: an eighth of it or more is free     */
    SKV_KIND_SOME = 128,        /* + family * 56 + class: something is free                   */
};

static_assert(SKV_KIND_ROOM + SKV_FAMILIES * SKV_CLASSES <= SKV_KIND_SOME, "no overlap");
static_assert(SKV_KIND_SOME + SKV_FAMILIES * SKV_CLASSES <= 256, "kinds fit a byte");

#endif
