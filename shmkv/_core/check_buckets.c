/* check_buckets.c: one bucket: its table, its slots, the records that they name.  See check.c.
 *
 * How:  from the table word on, each step is bounded before the next.  Slots are walked once; each
 *       live one is probed for from its home, as a reader would, which finds an EMPTY that hides it
 *       (I1) and an equal key before it (I2) in one go.
 *
 * Concurrency: skv_inspect_bucket is called with the bucket's lock held, or beside writers.  Beside them
 *       a look counts if seq, table and txn stayed; derived fields (I11) are judged only if the lock
 *       was free before and after, because a stopped holder may leave them wrong for long.
 */
#include "check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "pages.h"
#include "read.h"

/* Steps of all probes of a bucket, per slot: 3 are usual at the load limit of 0.8.  Keys that were chosen so that their
 * hashes meet take more, which is no damage: from there on no equal key is looked for before each one. */
#define PROBES_PER_SLOT 256u

typedef struct bucket_look {
    skv_checker *check;
    const skv *store;
    const skv_bucket *bucket;
    uint64_t number, seq, table, txn;
    uint64_t capacity;
    skv_slot *slots;            /* NULL = no table, or none that can be read                  */
    bool     settled;           /* nobody is inside: derived fields are right                 */
    uint64_t steps;             /* probe steps left                                           */
    int64_t  last_empty;        /* slot, before the one that is looked at; negative: counted from the end */
    uint64_t live, tombstones, value_bytes, earliest;
    skv_findings *found;
    skv_tally *tally;
} bucket_look;

/* ---- The table word --------------------------------------------------------------------- */

static void table_problem(bucket_look *look, const char *invariant, const char *why)
{
    skv_finding_add(look->found, invariant,
                    "bucket %" PRIu64 ": the table (offset %" PRIu64 ", capacity %" PRIu64 ") %s", look->number,
                    skv_table_offset(look->table), look->capacity, why);
}

static bool meta_fits(const bucket_look *look)
{
    const skv_meta *meta = (const skv_meta *)(const void *)(look->store->base + skv_table_offset(look->table));
    return skv_load(&meta->kind) == SKV_META_TABLE && skv_load(&meta->owner) == look->number
           && skv_load(&meta->detail) == look->capacity;
}

static void inspect_table_word(bucket_look *look)
{
    skv_extent extent;
    if (look->table == 0)
        return;
    look->capacity = skv_table_capacity(look->table);
    const char *why = skv_extent_at(look->store, skv_table_offset(look->table), &extent);
    if (why) {
        table_problem(look, skv_in_pages(look->store, skv_table_offset(look->table), 1) ? "I3" : "I1", why);
        return;
    }
    if (extent.family != SKV_TABLES)
        table_problem(look, "I1", "lies among records");
    else if (look->capacity == 0 || skv_table_bytes(look->capacity) > extent.bytes)
        table_problem(look, "I1", "does not fit its block");
    else if (!meta_fits(look))
        table_problem(look, "I1", "opens with the header of something else");
    else
        look->slots = skv_slots(look->store, look->table);
    look->tally->tables++;
}

/* ---- One slot ----------------------------------------------------------------------------- */

__attribute__((format(printf, 4, 5)))
static void slot_problem(bucket_look *look, uint64_t i, const char *invariant, const char *format, ...)
{
    char why[128];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    skv_finding_add(look->found, invariant, "bucket %" PRIu64 ", slot %" PRIu64 ": %s", look->number, i, why);
}

/* Does word A name a whole record?  Its size is judged before any byte of key or value is read. */
static bool inspect_record(bucket_look *look, uint64_t i, uint64_t a, skv_head *head)
{
    uint64_t offset = skv_slot_offset(a);
    skv_extent extent;
    const char *why = skv_extent_at(look->store, offset, &extent);
    if (why) {
        /* In the pages, but in no block in use: somebody freed what is still named. */
        slot_problem(look, i, skv_in_pages(look->store, offset, 1) ? "I3" : "I1", "its record (offset %" PRIu64 ") %s",
                     offset, why);
        return false;
    }
    if (extent.family != SKV_RECORDS) {
        slot_problem(look, i, "I1", "its record (offset %" PRIu64 ") lies among tables", offset);
        return false;
    }
    if (!skv_read_head(look->store, offset, head)
        || skv_record_size(head->key_len, head->value_len, head->flags & SKV_REC_EXPIRY) > extent.bytes) {
        slot_problem(look, i, "I1", "its record (offset %" PRIu64 ") does not fit its block of %" PRIu64 " bytes",
                     offset, extent.bytes);
        return false;
    }
    return true;
}

static void inspect_head(bucket_look *look, uint64_t i, const skv_head *head)
{
    if (head->flags & ~(SKV_REC_BYTES_KEY | SKV_REC_EXPIRY))
        slot_problem(look, i, "I1", "its record has the unknown flags 0x%x", head->flags);
    if (!skv_is_known_type(head->type))
        slot_problem(look, i, "I1", "its record has the unknown type %u", head->type);
    else if (head->type == SKV_T_INT && head->value_len != 8)
        slot_problem(look, i, "I1", "its record is an integer of %" PRIu32 " bytes", head->value_len);
    if (head->expires_ms >= SKV_NO_CLOCK)
        slot_problem(look, i, "I1", "its record expires at %" PRIu64 ", beyond all clocks", head->expires_ms);
    /* The version is what seq becomes with the bump after it was written. */
    if (head->version > look->seq + !look->settled)
        slot_problem(look, i, "I11", "its version %" PRIu64 " is later than the bucket's seq %" PRIu64, head->version,
                     look->seq);
}

static bool inspect_hash(bucket_look *look, uint64_t i, uint64_t a, const skv_key *key)
{
    uint64_t bucket = key->hash >> look->store->bucket_shift;
    if (bucket != look->number)
        slot_problem(look, i, "I1", "its key belongs into bucket %" PRIu64, bucket);
    else if (skv_slot_tag(a) != skv_tag_of(key->hash))
        slot_problem(look, i, "I1", "its tag is 0x%06" PRIx32 ", its key's is 0x%06" PRIx32, skv_slot_tag(a),
                     skv_tag_of(key->hash));
    else
        return true;
    return false;
}

/* B is written after A in an overwrite, so it is judged only while nobody is inside. */
static void inspect_b(bucket_look *look, uint64_t i, uint64_t hash, uint64_t expires_ms)
{
    const uint64_t clock = UINT64_C(3) << SKV_CLOCK_SHIFT, age = SKV_B_HASH_MASK << SKV_B_HASH_SHIFT;
    /* What only eviction goes by may be anything. */
    const uint64_t any = clock | (look->store->evict ? age : 0);
    uint64_t b = skv_load(&look->slots[i].b) & ~any, right = skv_b_word(hash, expires_ms) & ~any;
    if (!look->settled || b == right)
        return;
    if (skv_b_expiry(b) != skv_b_expiry(right))
        slot_problem(look, i, "I11", "word B says expiry %" PRIu64 ", the record %" PRIu64, skv_b_expiry(b),
                     skv_b_expiry(right));
    else
        slot_problem(look, i, "I11", "word B has other hash bits than the key (0x%016" PRIx64 ", not 0x%016" PRIx64 ")",
                     b, right);
}

static int64_t last_empty_of(const bucket_look *look)
{
    for (uint64_t back = 1; back <= look->capacity; back++)
        if (skv_load_acquire(&look->slots[look->capacity - back].a) == SKV_EMPTY)
            return -(int64_t)back;
    return INT64_MIN / 2;
}

/* Does an empty slot lie between the key's home and this slot?  Without going there. */
static void inspect_reach(bucket_look *look, uint64_t i, uint32_t tag)
{
    uint64_t home = skv_home(tag, look->capacity);
    uint64_t distance = i >= home ? i - home : i + look->capacity - home;
    if ((int64_t)i - look->last_empty <= (int64_t)distance)
        slot_problem(look, i, "I1", "a reader stops at an empty slot after %" PRIu64 " and misses it", home);
}

/* Goes the way of a reader: from the key's home to this slot. */
static void inspect_probe(bucket_look *look, uint64_t i, uint64_t a, const skv_key *key)
{
    uint32_t tag = skv_slot_tag(a);
    for (uint64_t at = skv_home(tag, look->capacity); at != i; at = at + 1 == look->capacity ? 0 : at + 1) {
        if (look->steps == 0) {
            inspect_reach(look, i, tag);
            return;
        }
        look->steps--;
        uint64_t other = skv_load_acquire(&look->slots[at].a);
        skv_head head;
        if (other == SKV_EMPTY) {
            slot_problem(look, i, "I1", "a reader stops at the empty slot %" PRIu64 " and misses it", at);
            return;
        }
        if (skv_slot_tag(other) == tag && skv_slot_is_live(other) && skv_read_head(look->store, skv_slot_offset(other), &head)
            && skv_head_has_key(&head, key)) {
            slot_problem(look, i, "I2", "slot %" PRIu64 " holds the same key%s", at,
                         other == a ? ", in the same record" : "");
            return;
        }
    }
}

/* Hashes a copy: beside writers the block may be somebody else's by now. */
static skv_key hash_of_head(bucket_look *look, const skv_head *head)
{
    const uint8_t *key = head->key;
    if (look->check->key) {
        skv_copy_racy(look->check->key, key, head->key_len);
        key = look->check->key;
    }
    return skv_hash_key(look->store, key, head->key_len, head->flags & SKV_REC_BYTES_KEY);
}

static void inspect_slot(bucket_look *look, uint64_t i)
{
    uint64_t a = skv_load_acquire(&look->slots[i].a);
    skv_head head;
    if (!skv_slot_is_live(a)) {
        look->last_empty = a == SKV_EMPTY ? (int64_t)i : look->last_empty;
        look->tombstones += a == SKV_TOMBSTONE;
        if (a != SKV_EMPTY && a != SKV_TOMBSTONE)
            slot_problem(look, i, "I1", "word A 0x%016" PRIx64 " is neither empty, nor a tombstone, nor a record", a);
        return;
    }
    look->live++;
    if (!inspect_record(look, i, a, &head))
        return;
    look->tally->records++;
    look->tally->items += head.expires_ms == 0 || look->check->now_ms < head.expires_ms;
    look->value_bytes += head.value_len;
    if (head.expires_ms && (look->earliest == 0 || head.expires_ms < look->earliest))
        look->earliest = head.expires_ms;
    inspect_head(look, i, &head);
    skv_key key = hash_of_head(look, &head);
    if (!inspect_hash(look, i, a, &key))
        return;
    inspect_b(look, i, key.hash, head.expires_ms);
    inspect_probe(look, i, a, &key);
}

static void inspect_slots(bucket_look *look)
{
    if (!look->slots)
        return;
    look->steps = look->capacity * PROBES_PER_SLOT;
    look->last_empty = last_empty_of(look);
    for (uint64_t i = 0; i < look->capacity; i++)
        inspect_slot(look, i);
    if (look->live + look->tombstones >= look->capacity)
        table_problem(look, "I11", "has no empty slot, so that a miss looks at all of it");
}

/* ---- Words of the bucket -------------------------------------------------------------------- */

/* A txn word names an intent while the lock is held, and is 0 while it is free (I5). */
static void inspect_txn(bucket_look *look)
{
    skv_extent extent;
    if (look->txn == 0)
        return;
    if (look->settled) {
        skv_finding_add(look->found, "I5",
                        "bucket %" PRIu64 " refers to a batch (txn %" PRIu64 ") while nobody has its lock",
                        look->number, look->txn);
        return;
    }
    const uint32_t owner = skv_intent_owner(look->store, look->txn);
    if (owner != SKV_NO_PROC && look->txn == skv_row_intent(look->store, owner))
        return;
    const char *why = skv_extent_at(look->store, look->txn, &extent);
    if (!why && (extent.family != SKV_TABLES || skv_intent_owner(look->store, look->txn) == SKV_NO_PROC))
        why = "is no intent";
    if (why)
        skv_finding_add(look->found, "I5", "bucket %" PRIu64 ": txn %" PRIu64 " %s", look->number, look->txn, why);
}

static void inspect_number(bucket_look *look, const char *name, uint64_t says, uint64_t is)
{
    if (says != is)
        skv_finding_add(look->found, "I11", "bucket %" PRIu64 ": %s is %" PRIu64 ", a recount gives %" PRIu64,
                        look->number, name, says, is);
}

static void inspect_derived(bucket_look *look)
{
    const skv_bucket *bucket = look->bucket;
    if (!look->settled || (look->table && !look->slots))
        return;
    inspect_number(look, "count", skv_load(&bucket->count), look->live);
    inspect_number(look, "tombstones", skv_load(&bucket->tombstones), look->tombstones);
    inspect_number(look, "value_bytes", skv_load(&bucket->value_bytes), look->value_bytes);
    uint64_t earliest = skv_load(&bucket->earliest_expiry);
    if (look->earliest && (earliest == 0 || earliest > look->earliest))
        skv_finding_add(look->found, "I11",
                        "bucket %" PRIu64 ": earliest_expiry is %" PRIu64 ", an item expires at %" PRIu64, look->number,
                        earliest, look->earliest);
}

static void inspect_lock(bucket_look *look, uint32_t word)
{
    char name[32];
    snprintf(name, sizeof name, "bucket %" PRIu64, look->number);
    skv_check_lock_word(look->store, name, word, look->found);
}

bool skv_inspect_bucket(skv_checker *check, uint64_t number, enum skv_look how, skv_findings *found, skv_tally *tally)
{
    const skv_bucket *bucket = &check->store->buckets[number];
    const bool locked = how == SKV_LOOK_LOCKED;
    bucket_look look = {.check = check, .store = check->store, .bucket = bucket, .number = number, .found = found, .tally = tally};
    uint32_t word = skv_load_acquire(&bucket->lock);
    look.settled = locked || word == 0;
    look.seq = skv_load_acquire(&bucket->seq);
    look.table = skv_load_acquire(&bucket->table);
    look.txn = skv_load_acquire(&bucket->txn);
    inspect_lock(&look, word);
    inspect_txn(&look);
    inspect_table_word(&look);
    inspect_slots(&look);
    inspect_derived(&look);
    if (locked)
        return true;
    /* Lock before seq: who took and released it meanwhile has bumped seq before it did. */
    bool same_lock = skv_load_acquire(&bucket->lock) == word;
    skv_fence_acquire();
    return same_lock && skv_load_acquire(&bucket->seq) == look.seq && skv_load_acquire(&bucket->table) == look.table
           && skv_load_acquire(&bucket->txn) == look.txn;
}
