/* test_orders.c: what each operation asks of the memory, step by step, against what the protocol needs.
 *
 * What: built with traced.h, so that each atomic operation and each copy comes by here with its memory order.  A watcher
 *       knows what each word of the region is and holds the steps to the rules of docs/concurrency.md: who publishes
 *       releases, who reads acquires, a block is written only behind a fence and freed only behind a bump, words
 *       are changed only under their lock, txn before bump before commit.  Rules are cited by invariant (I1 ... I11).
 * Why:  a lost release, fence or swap is invisible on x86 until the compiler makes use of it, and on other machines
 *       shows once in a million.  Here each is found at the first operation.
 *
 * Concurrency: one thread; another handle of the same region stands for another process where one is needed.
 */
#include "lock.h"
#include "procs.h"
#include "util.h"

void (*skv_trace_hook)(const skv_event *event);

#define HELD    1024u
#define UNNAMED 4096u

static box b;
static const char *operation = "";      /* for messages                                       */

typedef struct unnamed {                /* a block whose name went, in a bucket that was not bumped yet */
    uint64_t offset;
    const skv_bucket *bucket;
} unnamed;

static struct {
    uint64_t events;
    uint64_t release_fence, acquire_fence;      /* when the last of them was                  */
    uint64_t allocated;                 /* when a block became ours                           */
    uint64_t status_stored;
    uint64_t record_read, status_read;  /* without a lock                                     */
    bool unvalidated;                   /* a record was read, its bucket's counter not again  */
    bool reading;                       /* a read is watched: other operations may look at any block */
    bool a_acquired;                    /* the last load of an A was an acquire               */
    bool entering;                      /* an operation was announced, the epoch not read again */
    const skv_bucket *held[HELD];
    bool dirty[HELD];                   /* something was committed under it, and not bumped   */
    uint32_t held_count;
    unnamed lost[UNNAMED];
    uint32_t lost_count;
    const volatile void *last_b;        /* word B that was stored last                        */
    const skv_bucket *rebuilt;          /* its `rebuilds` rose, its table word comes next     */
    uint64_t bumps, publications, validations;
} w;

#define RULE(condition, rule)                                                                    \
    do {                                                                                         \
        if (!(condition))                                                                        \
            broken(event, (rule), #condition);                                                   \
    } while (0)

__attribute__((noreturn))
static void broken(const skv_event *event, const char *rule, const char *condition)
{
    static const char *const kinds[] = {"load", "store", "read-modify-write", "fence", "read", "write"};
    skv_trace_hook = NULL;
    fail(__FILE__, __LINE__, condition, "%s: %s (a %s of order %d at offset %td, %zu bytes, %#" PRIx64 " -> %#" PRIx64 ")",
         operation, rule, kinds[event->kind], (int)event->order, (const uint8_t *)event->at - b.store->base, event->size,
         event->before, event->after);
}

/* ---- Orders ------------------------------------------------------------------------------------------ */

static bool releases(memory_order order)
{
    return order == memory_order_release || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static bool acquires(memory_order order)
{
    return order == memory_order_acquire || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static bool is_write(const skv_event *event)
{
    return event->kind == TRACE_STORE || event->kind == TRACE_CHANGE || event->kind == TRACE_WRITE;
}

/* ---- What a place is ------------------------------------------------------------------------------------ */

static uint64_t offset_of(const skv_event *event)
{
    return (uint64_t)((const uint8_t *)event->at - b.store->base);
}

static bool in_region(const skv_event *event)
{
    const uint8_t *at = (const uint8_t *)event->at;
    return at >= b.store->base && at < b.store->base + b.store->size;
}

static bool in_area(const skv_event *event, const void *start, uint64_t bytes)
{
    const uint8_t *at = (const uint8_t *)event->at;
    return at >= (const uint8_t *)start && at < (const uint8_t *)start + bytes;
}

static const skv_bucket *bucket_at(const skv_event *event)
{
    const skv *s = b.store;
    if (!in_area(event, s->buckets, s->bucket_count * sizeof(skv_bucket)))
        return NULL;
    return &s->buckets[(offset_of(event) - s->fixed.buckets_offset) / sizeof(skv_bucket)];
}

/* The bucket whose table the place lies in, and the slot; NULL for any other place. */
static const skv_bucket *bucket_of_slot(const skv_event *event, const skv_slot **slot)
{
    const uint64_t at = offset_of(event);
    for (uint64_t i = 0; i < b.store->bucket_count; i++) {
        uint64_t word = __atomic_load_n((const uint64_t *)(const void *)&b.store->buckets[i].table, __ATOMIC_RELAXED);
        uint64_t start = skv_table_offset(word) + sizeof(skv_slot);
        uint64_t bytes = skv_table_capacity(word) * sizeof(skv_slot);
        if (word && at >= start && at < start + bytes) {
            *slot = (const skv_slot *)(const void *)(b.store->base + start) + (at - start) / sizeof(skv_slot);
            return &b.store->buckets[i];
        }
    }
    return NULL;
}

static uint64_t plain(const volatile void *word)
{
    uint64_t value;
    __builtin_memcpy(&value, (const void *)(uintptr_t)word, sizeof value);
    return value;
}

/* The offset of the record that the place lies in, if a slot names it; else 0. */
static uint64_t named_record_at(const skv_event *event)
{
    const uint64_t at = offset_of(event);
    for (uint64_t i = 0; i < b.store->bucket_count; i++) {
        uint64_t word = plain(&b.store->buckets[i].table), capacity = skv_table_capacity(word);
        const skv_slot *slots = (const skv_slot *)(const void *)(b.store->base + skv_table_offset(word)) + 1;
        for (uint64_t n = 0; word && n < capacity; n++) {
            uint64_t a = plain(&slots[n].a), start = skv_slot_offset(a);
            skv_record head;
            if (!skv_slot_is_live(a) || at < start)
                continue;
            __builtin_memcpy(&head, b.store->base + start, sizeof head);
            if (at < start + skv_record_size(head.key_len, head.value_len, head.flags & SKV_REC_EXPIRY))
                return start;
        }
    }
    return 0;
}

/* ---- Locks (I4, I9) ---------------------------------------------------------------------------------------- */

static uint32_t held_at(const skv_bucket *bucket)
{
    for (uint32_t i = 0; i < w.held_count; i++)
        if (w.held[i] == bucket)
            return i;
    return HELD;
}

static bool allocator_locked(void)
{
    return plain(&b.store->header->pages_lock) & UINT32_MAX;
}

static void on_bucket_lock(const skv_event *event, const skv_bucket *bucket)
{
    if (event->before == 0 && event->after) {
        RULE(event->kind == TRACE_CHANGE && acquires(event->order), "who takes a lock acquires");
        RULE(w.held_count == 0 || w.held[w.held_count - 1] < bucket, "I9: buckets are locked in ascending order");
        RULE(!allocator_locked(), "I9: no bucket is locked by who holds the allocator");
        RULE(w.held_count < HELD, "the test has room for so many locks");
        w.dirty[w.held_count] = false;
        w.held[w.held_count++] = bucket;
    } else if (event->after == 0) {
        uint32_t i = held_at(bucket);
        RULE(i < HELD, "only a lock that is held is given up");
        RULE(releases(event->order), "who gives a lock up releases");
        RULE(!w.dirty[i], "a bump comes between a commit and the unlock");
        w.held[i] = w.held[--w.held_count];
        w.dirty[i] = w.dirty[w.held_count];
    }
}

static void on_global_lock(const skv_event *event)
{
    if (event->before == 0 && event->after) {
        RULE(event->kind == TRACE_CHANGE && acquires(event->order), "who takes a lock acquires");
        RULE(w.held_count == 0, "I9: a bucket's lock and the allocator's are never held together");
    } else if (event->after == 0) {
        RULE(releases(event->order), "who gives a lock up releases");
    }
}

static void mark_dirty(const skv_event *event, const skv_bucket *bucket)
{
    uint32_t i = held_at(bucket);
    RULE(i < HELD, "I4: only who holds the bucket's lock changes what it guards");
    w.dirty[i] = true;
}

/* ---- Names (I1, I3) ------------------------------------------------------------------------------------------ */

static void lose_name(const skv_event *event, const skv_bucket *bucket, uint64_t offset)
{
    RULE(w.lost_count < UNNAMED, "the test has room for so many blocks");
    w.lost[w.lost_count++] = (unnamed){offset, bucket};
}

static void names_settled(const skv_bucket *bucket)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < w.lost_count; i++)
        if (w.lost[i].bucket != bucket)
            w.lost[kept++] = w.lost[i];
    w.lost_count = kept;
}

static bool is_lost(uint64_t offset)
{
    for (uint32_t i = 0; i < w.lost_count; i++)
        if (w.lost[i].offset == offset)
            return true;
    return false;
}

/* ---- Buckets ----------------------------------------------------------------------------------------------------- */

static uint32_t my_status(void)
{
    return (uint32_t)plain(&b.store->proc->status) & 3;
}

static void on_bump(const skv_event *event, const skv_bucket *bucket)
{
    uint32_t i = held_at(bucket);
    uint64_t txn = plain(&bucket->txn);
    RULE(i < HELD, "I4: only who holds the bucket's lock bumps");
    RULE(event->after == event->before + 1, "a bump adds one");
    RULE(releases(event->order), "a bump releases");
    RULE(my_status() != SKV_BATCH_PENDING || txn, "I5: txn is set before the bump");
    RULE(my_status() != SKV_BATCH_COMMITTED || !txn, "I5: txn is cleared before the bump");
    w.dirty[i] = false;
    w.bumps++;
    names_settled(bucket);
}

static void on_table_word(const skv_event *event, const skv_bucket *bucket)
{
    mark_dirty(event, bucket);
    RULE(releases(event->order), "I1: a table is published by a release");
    RULE(w.rebuilt == bucket, "`rebuilds` rises before the table word");
    w.rebuilt = NULL;
    if (event->before)
        lose_name(event, bucket, skv_table_offset(event->before));
    w.publications++;
}

static void on_txn(const skv_event *event, const skv_bucket *bucket)
{
    mark_dirty(event, bucket);
    RULE(releases(event->order), "an intent is published by a release");
    RULE(event->after == 0 || my_status() == SKV_BATCH_PENDING, "I6: txn is set while the batch is pending");
    RULE(event->after != 0 || my_status() == SKV_BATCH_COMMITTED, "I6: txn is cleared when the batch is committed");
}

static void on_bucket(const skv_event *event, const skv_bucket *bucket)
{
    const uint8_t *at = (const uint8_t *)event->at;
    if (event->kind == TRACE_LOAD) {
        if (at == (const uint8_t *)&bucket->seq && held_at(bucket) == HELD) {
            RULE(acquires(event->order), "the counter is read by an acquire");
            /* Behind a fence it validates what was copied; else it is the first look of another find. */
            w.validations += w.unvalidated && w.acquire_fence > w.record_read;
            w.unvalidated = w.unvalidated && w.acquire_fence <= w.record_read;
        }
        return;
    }
    if (at == (const uint8_t *)&bucket->lock)
        on_bucket_lock(event, bucket);
    else if (at == (const uint8_t *)&bucket->seq)
        on_bump(event, bucket);
    else if (at == (const uint8_t *)&bucket->table)
        on_table_word(event, bucket);
    else if (at == (const uint8_t *)&bucket->txn)
        on_txn(event, bucket);
    else
        RULE(held_at(bucket) < HELD, "I4: only who holds the bucket's lock changes what it guards");
    if (at == (const uint8_t *)&bucket->rebuilds)
        w.rebuilt = bucket;
}

/* ---- Slots ---------------------------------------------------------------------------------------------------------- */

static void on_slot_a(const skv_event *event, const skv_bucket *bucket, const skv_slot *slot)
{
    mark_dirty(event, bucket);
    RULE(!skv_slot_is_live(event->after) || releases(event->order), "I1: a record is published by a release");
    RULE(plain(&bucket->txn) == 0 || my_status() == SKV_BATCH_COMMITTED, "I6: an intent's slots change when it is committed");
    RULE(!skv_slot_is_live(event->after) || skv_slot_is_live(event->before) || w.last_b == &slot->b,
         "a new item's B comes before its A");
    if (skv_slot_is_live(event->before))
        lose_name(event, bucket, skv_slot_offset(event->before));
    w.publications++;
}

static void on_slot(const skv_event *event, const skv_bucket *bucket, const skv_slot *slot)
{
    const bool is_a = event->at == (const volatile void *)&slot->a;
    if (event->kind == TRACE_LOAD) {
        if (is_a)
            w.a_acquired = acquires(event->order);      /* what is only prefetched needs none   */
        return;
    }
    if (event->kind == TRACE_READ)      /* a table that is copied under its lock               */
        return;
    RULE(event->kind != TRACE_WRITE, "a table that is in use is not overwritten");
    if (is_a) {
        on_slot_a(event, bucket, slot);
        return;
    }
    RULE(held_at(bucket) < HELD, "I4: only who holds the bucket's lock changes B");
    w.last_b = event->at;
}

/* ---- Blocks ------------------------------------------------------------------------------------------------------------ */

static void on_block_write(const skv_event *event)
{
    uint64_t record = named_record_at(event);
    if (!record) {
        RULE(w.release_fence > w.allocated, "a block is written behind a release fence");
        return;
    }
    RULE(event->kind == TRACE_STORE && offset_of(event) == record + sizeof(skv_record) && w.held_count,
         "I1: a record that is named changes in its expiry word only, under the lock");
    RULE(releases(event->order), "an expiry is changed by a release");
    for (uint32_t i = 0; i < w.held_count; i++)
        w.dirty[i] = true;
}

static void on_block_read(const skv_event *event)
{
    if (w.held_count || !w.reading)
        return;
    RULE(w.a_acquired, "I1: a record is read behind an acquire of the A that names it");
    w.record_read = w.events;
    w.unvalidated = true;
}

/* One word of a page's bitmap: bits that came are blocks that were taken, bits that went were freed. */
static void on_bitmap(const skv_event *event, uint32_t page, uint32_t word)
{
    uint64_t came = event->after & ~event->before, went = event->before & ~event->after;
    const skv_proc *me = b.store->proc;
    if (came) {
        RULE(acquires(event->order), "who takes a block acquires");
        RULE(w.held_count == 0, "I10: nothing is allocated under a bucket's lock");
        RULE((plain(&me->busy) | plain(&me->alone)) != 0, "who allocates has announced its operation");
        w.allocated = w.events;
    }
    RULE(!went || releases(event->order), "who frees a block releases");
    uint32_t cls = skv_pw_class(plain(&b.store->pages[page].word));
    uint64_t size = cls == SKV_UNIT_CLASS ? 1u << SKV_UNIT_SHIFT : skv_class_size(cls);
    for (uint64_t bits = went; bits; bits &= bits - 1) {
        uint64_t block = word * 64 + (uint32_t)__builtin_ctzll(bits);
        RULE(!is_lost(skv_page_start(b.store, page) + block * size), "I3: a block is freed behind the bump");
    }
}

static void on_descriptor(const skv_event *event)
{
    uint64_t within = offset_of(event) - b.store->fixed.descriptors_offset;
    uint32_t page = (uint32_t)(within / sizeof(skv_page));
    const skv_page *desc = &b.store->pages[page];
    const uint8_t *at = (const uint8_t *)event->at, *bits = (const uint8_t *)desc->bitmap;
    if (!is_write(event))
        return;
    if (at == (const uint8_t *)&desc->word) {
        RULE(releases(event->order), "a page's word is stored by a release");
        RULE(allocator_locked() || skv_pw_owner(event->before) == skv_load(&b.store->slot) + 1,
             "a page changes under pages_lock, or its owner gives it up");
    } else if (event->kind == TRACE_CHANGE && at >= bits && at < bits + sizeof desc->bitmap) {
        on_bitmap(event, page, (uint32_t)((at - bits) / 8));
    }
}

/* ---- The process's row, the header ----------------------------------------------------------------------------------------- */

static bool every_held_bucket_has_txn(void)
{
    for (uint32_t i = 0; i < w.held_count; i++)
        if (plain(&w.held[i]->txn) == 0)
            return false;
    return true;
}

static bool any_bucket_has_txn(void)
{
    for (uint64_t i = 0; i < b.store->bucket_count; i++)
        if (plain(&b.store->buckets[i].txn))
            return true;
    return false;
}

static void on_status(const skv_event *event)
{
    uint32_t from = event->before & 3, to = event->after & 3;
    RULE(releases(event->order), "a status is stored by a release");
    RULE((from == SKV_BATCH_IDLE && to == SKV_BATCH_PENDING && event->after >> 2 == (event->before >> 2) + 1)
         || (from == SKV_BATCH_PENDING && to == SKV_BATCH_COMMITTED && event->after >> 2 == event->before >> 2)
         || (from == SKV_BATCH_COMMITTED && to == SKV_BATCH_IDLE && event->after >> 2 == event->before >> 2),
         "I6: idle, pending, committed, idle; each batch has a generation of its own");
    RULE(to != SKV_BATCH_COMMITTED || every_held_bucket_has_txn(), "the commit comes when every bucket names the intent");
    RULE(to != SKV_BATCH_IDLE || !any_bucket_has_txn(), "a batch is over when no bucket names its intent");
    w.status_stored = w.events;
}

static void on_row(const skv_event *event)
{
    const skv_proc *me = b.store->proc;
    const uint8_t *at = (const uint8_t *)event->at;
    if (!in_area(event, me, sizeof *me))
        return;
    if (in_area(event, &me->busy, sizeof me->busy + sizeof me->alone)) {
        const bool enters = event->after > event->before, leaves = event->after < event->before;
        RULE(!enters || event->order == memory_order_seq_cst, "an operation is announced by seq_cst, against the epoch");
        RULE(!leaves || releases(event->order), "the end of an operation releases");
        w.entering = w.entering || enters;
    } else if (at == (const uint8_t *)&me->status && event->kind == TRACE_LOAD) {
        RULE(acquires(event->order) || w.held_count || event->before == plain(&me->status), "a status is read by an acquire");
        w.status_read = w.events;
    } else if (at == (const uint8_t *)&me->status) {
        on_status(event);
    } else if (at == (const uint8_t *)&me->spare && event->kind == TRACE_CHANGE) {
        RULE(acquires(event->order), "who takes a spare block acquires");
        w.allocated = w.events;
    } else if (at == (const uint8_t *)&me->spare && event->kind == TRACE_STORE && event->after) {
        RULE(releases(event->order), "a spare block is kept by a release");
        RULE(!is_lost(event->after), "I3: a block is kept for the next put behind the bump");
    } else if (in_area(event, me->removal, sizeof me->removal) && is_write(event)) {
        RULE(w.release_fence > w.status_stored, "an intent is written behind a release fence");
    }
}

static void on_header(const skv_event *event)
{
    const skv_header *h = b.store->header;
    const volatile void *at = event->at;
    if (at == (const volatile void *)&h->epoch && event->kind == TRACE_LOAD && w.entering) {
        RULE(event->order == memory_order_seq_cst, "the epoch is read again by seq_cst");
        w.entering = false;
    } else if (at == (const volatile void *)&h->epoch && event->kind == TRACE_CHANGE) {
        RULE(event->order == memory_order_seq_cst, "the epoch moves on by seq_cst");
    } else if ((at == (const volatile void *)&h->pages_lock || at == (const volatile void *)&h->grow_lock
                || at == (const volatile void *)&h->compact_lock) && event->kind != TRACE_LOAD) {
        on_global_lock(event);
    } else if (at == (const volatile void *)&h->committed_pages && event->kind == TRACE_STORE) {
        RULE(releases(event->order), "growth is published by a release");
        RULE(plain(&h->grow_lock) & UINT32_MAX, "the region grows under grow_lock");
        RULE(event->after > event->before, "the region grows");
    }
}

/* ---- All of it --------------------------------------------------------------------------------------------------------------- */

static void on_pages(const skv_event *event)
{
    const skv_slot *slot;
    const skv_bucket *bucket = bucket_of_slot(event, &slot);
    if (bucket)
        on_slot(event, bucket, slot);
    else if (is_write(event))
        on_block_write(event);
    else
        on_block_read(event);
}

static void watch(const skv_event *event)
{
    w.events++;
    if (event->kind == TRACE_FENCE) {
        if (releases(event->order))
            w.release_fence = w.events;
        if (acquires(event->order))
            w.acquire_fence = w.events;
        return;
    }
    if (!in_region(event))
        return;
    const uint64_t at = offset_of(event);
    const bool reads_epoch = event->kind == TRACE_LOAD && event->at == (const volatile void *)&b.store->header->epoch;
    RULE(!w.entering || reads_epoch, "after its announcement an operation reads the epoch, and nothing before it");
    const skv_bucket *bucket = bucket_at(event);
    if (bucket)
        on_bucket(event, bucket);
    else if (at >= b.store->pages_offset)
        on_pages(event);
    else if (at >= b.store->fixed.descriptors_offset)
        on_descriptor(event);
    else if (at < SKV_HEADER_SIZE)
        on_header(event);
    else if (at < b.store->fixed.buckets_offset)
        on_row(event);
}

/* Everything between the two is watched. */
static void begin(const char *name)
{
    memset(&w, 0, sizeof w);
    operation = name;
    skv_trace_hook = watch;
}

static void end(void)
{
    skv_trace_hook = NULL;
    REQUIRE(w.held_count == 0, "%s: a lock is still held", operation);
    REQUIRE(w.lost_count == 0, "%s: a bump is missing", operation);
    require_clean(b.store);
}

static void begin_read(const char *name)
{
    begin(name);
    w.reading = true;
}

/* After a read: what was copied was validated, and that is what was watched. */
static void end_of_read(uint64_t validations)
{
    REQUIRE(!w.unvalidated, "%s: what was copied was not validated", operation);
    REQUIRE(w.validations >= validations, "%s: %" PRIu64 " validations", operation, w.validations);
    end();
}

/* ---- Operations ----------------------------------------------------------------------------------------------------------------- */

#define ITEMS 64u

static void fill(uint64_t from, uint64_t to, uint64_t counter, size_t len, uint64_t expires)
{
    for (uint64_t id = from; id < to; id++)
        REQUIRE_OK(put_value(b.store, id, counter, len, expires));
}

static void single_puts(void)
{
    one_thread = true;
    begin("put, new: tables and region grow");
    fill(0, 1500, 1, 40, 0);
    REQUIRE(w.publications > 1500 && w.bumps >= 1500, "%" PRIu64 " publications", w.publications);
    end();
    begin("put, overwrite, with a spare block");
    fill(0, 200, 2, 40, 0);
    end();
    one_thread = false;
    begin("put, overwrite, by one of several threads");
    fill(0, 200, 3, 40, 0);
    end();
    begin("put of runs");
    fill(5000, 5004, 1, 150000, 0);
    fill(5000, 5004, 2, 150000, 0);
    end();
    begin("put with an expiry");
    fill(200, 260, 4, 40, UINT64_C(1) << 39);
    end();
}

static void deletes(void)
{
    begin("delete");
    for (uint64_t id = 300; id < 400; id++)
        REQUIRE_OK(delete_id(b.store, id));
    end();
    begin("put where items were deleted");
    fill(300, 400, 5, 40, 0);
    end();
}

static void changes_in_place(void)
{
    key_text text;
    skv_status status;
    int64_t result;
    begin("touch, persist");
    for (uint64_t id = 200; id < 280; id++) {   /* those from 260 on have no expiry word yet   */
        skv_key key = key_for(b.store, id, &text);
        INSIST(status, wait, skv_touch(b.store, &key, id % 2 ? UINT64_C(1) << 38 : 0, NULL, &wait));
        REQUIRE_OK(status);
    }
    end();
    begin("incr");
    for (int i = 0; i < 50; i++) {
        skv_key key = key_for(b.store, 9000, &text);
        INSIST(status, wait, skv_incr(b.store, &key, 1, 1, 0, &result, &wait));
        REQUIRE_OK(status);
    }
    end();
    begin("delete of an integer");
    REQUIRE_OK(delete_id(b.store, 9000));
    end();
}

static skv_item items[ITEMS];
static key_text texts[ITEMS];
static uint8_t values[ITEMS][40];

static void make_items(uint64_t from, uint64_t counter)
{
    for (uint32_t i = 0; i < ITEMS; i++) {
        make_value(values[i], from + i, counter, sizeof values[i]);
        items[i] = (skv_item){.key = key_for(b.store, from + i, &texts[i]), .value = values[i], .value_len = sizeof values[i],
                              .type = SKV_T_BYTES};
    }
}

static void put_items(uint64_t from, uint64_t counter)
{
    skv_status status;
    make_items(from, counter);
    INSIST(status, wait, skv_put_many(b.store, items, ITEMS, &wait));
    REQUIRE_OK(status);
}

static void batches(void)
{
    skv_status status;
    uint32_t removed;
    begin("put_many: new and old keys");
    for (uint64_t round = 0; round < 20; round++)
        put_items(1450 + round * 20, 10 + round);
    end();
    begin("delete_many");
    make_items(1450, 0);
    INSIST(status, wait, skv_delete_many(b.store, items, ITEMS, &removed, &wait));
    REQUIRE(status == SKV_OK && removed == ITEMS, "status %d, %u removed", (int)status, removed);
    end();
    begin("put_many into the gaps");
    put_items(1450, 40);
    end();
}

static void plain_reads(void)
{
    found f = {0};
    skv_key keys[ITEMS];
    skv_view views[ITEMS];
    begin_read("get");
    for (uint64_t id = 0; id < 200; id++)
        REQUIRE(counter_of(b.store, id, &f) == 3, "key %d", (int)id);
    end_of_read(200);
    make_items(1450, 0);
    for (uint32_t i = 0; i < ITEMS; i++)
        keys[i] = items[i].key;
    begin_read("get of many");
    skv_find_many(b.store, keys, views, ITEMS);
    REQUIRE(skv_validate_many(b.store, keys, views, ITEMS), "nobody writes");
    end_of_read(1);
    begin_read("copy of a bucket");
    skv_copies copies = {0};
    for (uint64_t i = 0; i < b.store->bucket_count; i++)
        REQUIRE_OK(skv_copy_bucket(b.store, i, true, NULL, NULL, &copies));
    end_of_read(1);
    skv_free_items(&copies);
}

/* A reader that goes through a committed intent reads the status before what it copies, and again after it. */
static void read_overlay(const char *name)
{
    found f = {0};
    if (strcmp(name, "batch.committed"))
        return;
    skv_crash_hook = NULL;
    const uint32_t locks = w.held_count;
    w.reading = true;
    w.held_count = 0;           /* as another process, which holds none, would read            */
    w.unvalidated = false;
    REQUIRE(counter_of(b.store, 1450, &f) == 50, "the committed intent is the answer");
    REQUIRE(w.status_read > w.record_read && w.acquire_fence > w.record_read, "%s: the status is not read again", operation);
    REQUIRE(!w.unvalidated, "%s: what was copied was not validated", operation);
    w.held_count = locks;
    w.reading = false;
    free(f.value);
}

static void reads_through_an_intent(void)
{
    begin("get through an intent");
    skv_crash_hook = read_overlay;
    put_items(1450, 50);
    REQUIRE(skv_crash_hook == NULL, "the batch came by");
    end();
}

static void housekeeping(void)
{
    skv_compact_report report;
    begin("compact");
    for (uint64_t id = 400; id < 1400; id++)
        if (id % 4)
            REQUIRE_OK(delete_id(b.store, id));
    REQUIRE_OK(compact_all(b.store, &report));
    REQUIRE(report.moved > 0, "nothing was moved");
    end();
    begin("expiry");
    skv_set_clock(b.store, (UINT64_C(1) << 39) + 1);
    uint64_t dropped;
    skv_wait wait = patient();
    REQUIRE_OK(skv_sweep_expired(b.store, b.store->bucket_count, &dropped, &wait));
    REQUIRE(dropped > 0, "nothing had expired");
    skv_set_clock(b.store, 0);
    end();
    begin("clear");
    REQUIRE_OK(clear_all(b.store));
    end();
}

static void all_operations(void)
{
    make_box(&b, 16 * MIB, 0);
    REQUIRE_OK(skv_register(b.store));
    single_puts();
    deletes();
    changes_in_place();
    batches();
    plain_reads();
    reads_through_an_intent();
    housekeeping();
    require_no_leaks(b.store);
    remove_box(&b);
}

static void full_store(void)
{
    make_box(&b, 2 * MIB, SKV_FLAG_EVICT);
    REQUIRE_OK(skv_register(b.store));
    begin("put into a full store: eviction, evacuation");
    for (uint64_t id = 0; id < 12000; id++)
        REQUIRE_OK(put_value(b.store, id, 1, 30 + id * 7 % 300, 0));
    REQUIRE_OK(put_value(b.store, 12001, 1, 200000, 0));
    end();
    require_no_leaks(b.store);
    remove_box(&b);
}

/* Another process sets the common hand back each second time that ours moves it on. */
static void set_hand_back(const skv_event *event)
{
    static uint32_t times;
    const volatile void *hand = &b.store->header->evict_hand;
    if (event->kind == TRACE_CHANGE && event->at == hand && ++times % 2)
        __atomic_store_n((uint64_t *)(uintptr_t)hand, event->before, __ATOMIC_RELAXED);
}

static void each_bucket_twice(void)
{
    skv_stats stats;
    make_box(&b, 2 * MIB, SKV_FLAG_EVICT);
    REQUIRE_OK(skv_register(b.store));
    skv_trace_hook = set_hand_back;
    for (uint64_t id = 0; id < 400; id++)
        REQUIRE_OK(put_value(b.store, id, 1, 15000, 0));
    skv_trace_hook = NULL;
    REQUIRE_OK(skv_get_stats(b.store, &stats));
    REQUIRE(stats.counters[SKV_EVICTED] == 400 - stats.items, "%" PRIu64 " were evicted, and %" PRIu64 " are there",
            stats.counters[SKV_EVICTED], stats.items);
    require_clean(b.store);
    remove_box(&b);
}

static uint32_t wakes;

static void count_wake(void *context, _Atomic uint32_t *word)
{
    (void)context;
    (void)word;
    wakes++;
}

/* A waiter sleeps in slices, so one that nobody wakes still goes on, and only its delay would tell. */
static void who_unlocks_wakes(void)
{
    make_box(&b, MIB, 0);
    REQUIRE_OK(skv_register(b.store));
    b.store->os.futex_wake = count_wake;
    _Atomic uint32_t *lock = &b.store->buckets[0].lock;
    for (uint32_t waiting = 0; waiting < 2; waiting++) {
        wakes = 0;
        REQUIRE(skv_trylock(b.store, lock), "nobody has it");
        if (waiting)
            atomic_fetch_or_explicit(lock, SKV_LOCK_WAITERS, memory_order_relaxed);
        skv_unlock(b.store, lock);
        REQUIRE(wakes == waiting, "%u wakes for %u waiters", wakes, waiting);
    }
    remove_box(&b);
}

static const test tests[] = {
    {"who_unlocks_wakes", who_unlocks_wakes},
    {"all_operations", all_operations},
    {"full_store", full_store},
    {"each_bucket_twice", each_bucket_twice},
};

/* test_orders [NAME...] */
int main(int argc, char **argv)
{
    (void)argc;
    return run_tests(tests, COUNT(tests), argv + 1, 60);
}
