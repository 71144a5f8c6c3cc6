/* test_check.c: skv_check finds what is planted, and nothing else.
 *
 * A store in malloced memory with an invented operating system is filled with all that a store may
 * hold: small, medium (units) and large (runs) values, str and bytes keys, expiries, tombstones.  Then
 * one thing at a time is damaged; check must name the right invariant, through a handle that locks and
 * through a read-only one, change nothing, and be content again when the damage is undone.  At the
 * end: random damage must not crash it (build with -fsanitize=address), and writers must not disturb it.
 *
 *     test_check [seed [rounds of damage]]
 */
#undef NDEBUG
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../shmkv/_core/intent.h"
#include "../../shmkv/_core/lock.h"
#include "../../shmkv/_core/alloc.h"
#include "../../shmkv/_core/read.h"

#define SIZE      (UINT64_C(8) << 20)
#define ITEMS     4000u
#define NOW_MS    UINT64_C(1000000)
#define DEAD_SLOT 40u           /* in use, its process is dead                                */
#define HELD_SLOT 41u           /* in use, its process lives and never does anything          */

/* ---- An operating system ------------------------------------------------------------------ */

static bool dead[SKV_PROCS];

static skv_status fake_commit(void *context, uint64_t offset, uint64_t len)
{
    (void)context, (void)offset, (void)len;
    return SKV_OK;
}

static void fake_punch(void *context, uint64_t offset, uint64_t len)
{
    (void)context, (void)offset, (void)len;
}

static bool fake_acquire_alone(void *context)
{
    (void)context;
    return false;
}

static void fake_release_alone(void *context)
{
    (void)context;
}

static uint64_t fake_now(void *context)
{
    (void)context;
    return NOW_MS;
}

static void fake_wait(void *context, _Atomic uint32_t *word, uint32_t expected, uint32_t timeout_ms)
{
    (void)context, (void)timeout_ms;
    const struct timespec nap = {0, 100000};
    if (skv_load(word) == expected)
        nanosleep(&nap, NULL);
}

static void fake_wake(void *context, _Atomic uint32_t *word)
{
    (void)context, (void)word;
}

static bool fake_claim_dead(void *context, uint32_t slot)
{
    (void)context;
    return dead[slot];
}

static void fake_release_dead(void *context, uint32_t slot)
{
    (void)context, (void)slot;
}

static bool fake_claim_own(void *context, uint32_t slot)
{
    (void)context, (void)slot;
    return true;
}

static void fake_identify(void *context, uint32_t *pid, uint64_t *start_time, uint64_t *pid_namespace)
{
    (void)context;
    *pid = 1;
    *start_time = *pid_namespace = 0;
}

static const skv_os fake_os = {
    .commit = fake_commit, .punch = fake_punch, .acquire_alone = fake_acquire_alone, .release_alone = fake_release_alone,
    .now_ms = fake_now, .identify = fake_identify, .futex_wait = fake_wait, .futex_wake = fake_wake,
    .claim_dead = fake_claim_dead, .release_dead = fake_release_dead, .claim_own = fake_claim_own,
};

/* ---- A store --------------------------------------------------------------------------------- */

static uint8_t *base, *good;            /* the region, and a copy of it before damage         */
static skv *store, *reader;
static uint64_t seed = 1;

static uint64_t random64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void open_store(void)
{
    const skv_params params = {.size = SIZE, .hash_seed = 42, .mode = 0600};
    skv_fixed fixed;
    assert(skv_plan(&params, &fixed) == SKV_OK);
    base = aligned_alloc(SKV_PAGE_SIZE, SIZE);
    good = aligned_alloc(SKV_PAGE_SIZE, SIZE);
    assert(base && good);
    memset(base, 0, SIZE);
    skv_format(base, &fixed);
    assert(skv_open(base, &fixed, false, &fake_os, &store) == SKV_OK);
    assert(skv_open(base, &fixed, true, &fake_os, &reader) == SKV_OK);
}

static void put(const char *key, bool is_bytes, const void *value, uint64_t len, uint64_t expires_ms)
{
    skv_item item = {.key = skv_hash_key(store, key, (uint32_t)strlen(key), is_bytes), .value = value,
                     .value_len = len, .type = SKV_T_BYTES, .expires_ms = expires_ms};
    skv_wait wait = {.block = true, .shared = true};
    skv_status status;
    do
        status = skv_put(store, &item, SKV_PUT_ANY, 0, &wait);
    while (status == SKV_BUSY);
    assert(status == SKV_OK);
}

static void delete_key(const char *key)
{
    skv_key k = skv_hash_key(store, key, (uint32_t)strlen(key), false);
    skv_wait wait = {.block = true, .shared = true};
    skv_status status;
    do
        status = skv_delete(store, &k, 0, &wait);
    while (status == SKV_BUSY);
    assert(status == SKV_OK || status == SKV_MISSING);
}

static void fill(void)
{
    static char value[300000];
    char key[32];
    memset(value, 'v', sizeof value);
    for (uint32_t i = 0; i < ITEMS; i++) {
        snprintf(key, sizeof key, "key:%06u", i);
        put(key, i % 7 == 0, value, random64() % 200, i % 5 == 0 ? NOW_MS + 1000 + i : 0);
    }
    for (uint32_t i = 0; i < 12; i++) {
        snprintf(key, sizeof key, "unit:%u", i);
        put(key, false, value, 9000 + i * 3000, 0);
    }
    put("run:0", false, value, 300000, 0);
    put("run:1", false, value, 100000, 0);
    for (uint32_t i = 0; i < ITEMS; i += 3) {
        snprintf(key, sizeof key, "key:%06u", i);
        delete_key(key);
    }
}

/* ---- What check says ---------------------------------------------------------------------------- */

typedef struct noted {
    uint32_t count;
    char invariant[128][12], sentence[128][256];
} noted;

static void note(void *context, const char *invariant, const char *sentence)
{
    noted *all = context;
    assert(all->count < 100);
    snprintf(all->invariant[all->count], sizeof all->invariant[0], "%s", invariant);
    snprintf(all->sentence[all->count], sizeof all->sentence[0], "%s", sentence);
    all->count++;
}

static void print_noted(const noted *all)
{
    for (uint32_t i = 0; i < all->count; i++)
        printf("    %s: %s\n", all->invariant[i], all->sentence[i]);
}

static bool names(const noted *all, const char *invariant)
{
    for (uint32_t i = 0; i < all->count; i++)
        if (strcmp(all->invariant[i], invariant) == 0)
            return true;
    return false;
}

static void expect_clean(skv *handle)
{
    static noted all;
    skv_check_result result;
    all.count = 0;
    uint64_t problems = skv_check(handle, note, &all, &result);
    print_noted(&all);
    assert(problems == 0 && all.count == 0 && result.problems == 0);
}

static void expect_from(skv *handle, const char *what, const char *invariant, const char *part)
{
    static noted all;
    skv_check_result result;
    all.count = 0;
    assert(skv_check(handle, note, &all, &result) == result.problems);
    bool found = false;
    for (uint32_t i = 0; i < all.count; i++)
        found |= strcmp(all.invariant[i], invariant) == 0 && strstr(all.sentence[i], part) != NULL;
    if (!found) {
        printf("%s, %s handle: expected %s with \"%s\", found %u:\n", what, handle == store ? "locking" : "read-only", invariant, part, all.count);
        print_noted(&all);
        abort();
    }
}

/* The damage is in place: both handles must name it and leave it as it is. */
static void expect(const char *what, const char *invariant, const char *part)
{
    uint8_t *damaged = malloc(SIZE);
    assert(damaged);
    memcpy(damaged, base, SIZE);
    expect_from(reader, what, invariant, part);
    assert(memcmp(damaged, base, SIZE) == 0);
    expect_from(store, what, invariant, part);
    assert(memcmp(damaged, base, SIZE) == 0 || strcmp(invariant, "I4") == 0);
    free(damaged);
    memcpy(base, good, SIZE);
}

/* ---- Things to damage ------------------------------------------------------------------------------ */

typedef struct place {
    uint64_t bucket, index;
    skv_bucket *b;
    skv_slot *slots;
    uint64_t capacity;
    skv_slot *slot;
    uint64_t record;
} place;

static place bucket_place(uint64_t number)
{
    place p = {.bucket = number, .b = &store->buckets[number]};
    uint64_t table = skv_load(&p.b->table);
    p.slots = skv_slots(store, table);
    p.capacity = skv_table_capacity(table);
    return p;
}

static place slot_place(uint64_t number, uint64_t index)
{
    place p = bucket_place(number);
    p.index = index;
    p.slot = &p.slots[index];
    p.record = skv_slot_offset(skv_load(&p.slot->a));
    return p;
}

static bool is_live(const place *p, uint64_t i)
{
    return skv_slot_is_live(skv_load(&p->slots[i].a));
}

/* Some live slot of a small record without expiry. */
static place some_slot(void)
{
    for (;;) {
        place p = bucket_place(random64() % store->bucket_count);
        uint64_t i = random64() % p.capacity;
        skv_head head;
        if (is_live(&p, i) && skv_read_head(store, skv_slot_offset(skv_load(&p.slots[i].a)), &head)
            && head.expires_ms == 0 && head.value_len < 1000)
            return slot_place(p.bucket, i);
    }
}

static bool has_expiring(const place *p)
{
    for (uint64_t i = 0; i < p->capacity; i++) {
        skv_head head;
        if (is_live(p, i) && skv_read_head(store, skv_slot_offset(skv_load(&p->slots[i].a)), &head) && head.expires_ms)
            return true;
    }
    return false;
}

static skv_record *record_of(const place *p)
{
    return (skv_record *)(void *)(base + p->record);
}

static void add_to_a(const place *p, uint64_t what)
{
    skv_store(&p->slot->a, skv_load(&p->slot->a) + what);
}

/* Some live slot that is not at its home, with a live slot before it on its way. */
static place displaced_slot(place *before)
{
    for (;;) {
        place p = some_slot();
        uint64_t home = skv_home(skv_slot_tag(skv_load(&p.slot->a)), p.capacity);
        if (home == p.index || !is_live(&p, home))
            continue;
        *before = slot_place(p.bucket, home);
        return p;
    }
}

/* A slot that is not live, which a probe from the home of `p` reaches after `p`. */
static skv_slot *free_slot_after(const place *p)
{
    for (uint64_t n = 1, i = p->index; n < p->capacity; n++) {
        i = i + 1 == p->capacity ? 0 : i + 1;
        if (!is_live(p, i))
            return &p->slots[i];
    }
    abort();
}

static uint32_t page_in(enum skv_page_state state, bool units)
{
    for (uint32_t page = 0; page < skv_committed_pages(store); page++) {
        uint64_t word = skv_load(&store->pages[page].word);
        bool unit_page = skv_pw_class(word) == SKV_UNIT_CLASS;
        if (skv_pw_state(word) == state && (state != SKV_PAGE_BLOCKS || unit_page == units)
            && (state != SKV_PAGE_BLOCKS || skv_page_used(store, page, skv_pw_class(word)) > 0))
            return page;
    }
    abort();
}

static void clear_block_bit(uint64_t offset)
{
    uint32_t page = skv_page_of(store, offset), within = (uint32_t)(offset - skv_page_start(store, page));
    uint32_t cls = skv_pw_class(skv_load(&store->pages[page].word));
    uint32_t block = cls == SKV_UNIT_CLASS ? within >> SKV_UNIT_SHIFT : within / skv_class_size(cls);
    _Atomic uint64_t *word = &store->pages[page].bitmap[block / 64];
    skv_store(word, skv_load(word) & ~(UINT64_C(1) << (block % 64)));
}

/* ---- Damage --------------------------------------------------------------------------------------------- */

static void damage_slots(void)
{
    place p = some_slot();
    add_to_a(&p, UINT64_C(1) << SKV_OFFSET_BITS);
    expect("a slot's tag", "I1", "tag");
    p = some_slot();
    skv_store(&p.slot->a, (skv_load(&p.slot->a) & ~SKV_OFFSET_MASK) | SKV_OFFSET_MASK);
    expect("an offset beyond the region", "I1", "outside");
    p = some_slot();
    skv_store(&p.slot->a, (skv_load(&p.slot->a) & ~SKV_OFFSET_MASK) | 2);
    expect("an offset in the header", "I1", "outside");
    p = some_slot();
    add_to_a(&p, 1);
    expect("an offset in the middle of a block", "I3", "where a block starts");
    p = some_slot();
    skv_store(&p.slot->a, UINT64_C(5) << SKV_OFFSET_BITS | SKV_TOMBSTONE);
    expect("half a tombstone", "I1", "neither");
    p = some_slot();
    skv_store(&p.slot->a, skv_slot_word(skv_slot_tag(skv_load(&p.slot->a)), skv_table_offset(skv_load(&p.b->table))));
    expect("a slot that names a table", "I1", "among tables");
    place before;
    displaced_slot(&before);
    skv_store(&before.slot->a, SKV_EMPTY);
    expect("an empty slot on the way", "I1", "reader stops");
    p = some_slot();
    place other = bucket_place((p.bucket + 1) % store->bucket_count);
    for (other.index = 0; is_live(&other, other.index); other.index++)
        ;
    skv_store(&other.slots[other.index].a, skv_load(&p.slot->a));
    expect("a record named from another bucket", "I1", "belongs into bucket");
}

static void damage_records(void)
{
    place p = some_slot();
    base[p.record + sizeof(skv_record)] ^= 1;
    expect("a key", "I1", "");
    p = some_slot();
    record_of(&p)->value_len = 60000;
    expect("a value's length", "I1", "does not fit its block");
    p = some_slot();
    record_of(&p)->value_len = UINT32_MAX;
    expect("a value's length beyond the region", "I1", "does not fit its block");
    p = some_slot();
    record_of(&p)->key_len = 0;
    expect("a key's length", "I1", "");
    p = some_slot();
    record_of(&p)->type = 99;
    expect("a type", "I1", "unknown type 99");
    do
        p = some_slot();
    while (record_of(&p)->value_len == 8);
    record_of(&p)->type = SKV_T_INT;
    expect("an integer of any but eight bytes", "I1", "is an integer of");
    p = some_slot();
    record_of(&p)->flags |= 0x80;
    expect("flags", "I1", "unknown flags");
    p = some_slot();
    record_of(&p)->version = UINT64_MAX;
    expect("a version of the future", "I11", "version");
}

static void damage_doubles(void)
{
    place p = some_slot();
    skv_slot *free_slot = free_slot_after(&p);
    skv_store(&free_slot->b, skv_load(&p.slot->b));
    skv_store(&free_slot->a, skv_load(&p.slot->a));
    expect("a record named twice", "I2", "in the same record");
    p = some_slot();
    skv_key key = skv_hash_key(store, base + p.record + sizeof(skv_record), record_of(&p)->key_len,
                               record_of(&p)->flags & SKV_REC_BYTES_KEY);
    uint64_t offset, size = skv_record_size(record_of(&p)->key_len, record_of(&p)->value_len, false);
    skv_wait wait = {.block = true, .shared = true};
    assert(skv_alloc(store, SKV_RECORDS, size, SKV_MOVE, &wait, &offset) == SKV_OK);
    memcpy(base + offset, base + p.record, size);
    free_slot = free_slot_after(&p);
    skv_store(&free_slot->b, skv_load(&p.slot->b));
    skv_store(&free_slot->a, skv_slot_word(skv_tag_of(key.hash), offset));
    expect("a key with two records", "I2", "holds the same key");
}

static void damage_blocks(void)
{
    place p = some_slot();
    clear_block_bit(p.record);
    expect("a record's bit", "I3", "not in use");
    p = some_slot();
    clear_block_bit(skv_table_offset(skv_load(&p.b->table)));
    expect("a table's bit", "I3", "not in use");
}

static void damage_tables(void)
{
    place p = some_slot();
    uint64_t table = skv_load(&p.b->table);
    skv_store(&p.b->table, skv_table_word(p.capacity, SIZE));
    expect("a table beyond the region", "I1", "outside");
    skv_store(&p.b->table, skv_table_word(p.capacity - 1, skv_table_offset(table)));
    expect("a table's capacity", "I1", "header of something else");
    skv_store(&p.b->table, skv_table_word((1 << 24) - 1, skv_table_offset(table)));
    expect("a table's capacity beyond its block", "I1", "fit its block");
    skv_store(&p.b->table, skv_table_word(0, skv_table_offset(table)));
    expect("no capacity", "I1", "fit its block");
    skv_store(&p.b->table, skv_table_word(p.capacity, p.record));
    expect("a table among records", "I1", "among records");
    skv_store(&p.b->table, skv_load(&store->buckets[(p.bucket + 1) % store->bucket_count].table));
    expect("another bucket's table", "I1", "header of something else");
    for (uint64_t i = 0; i < p.capacity; i++)
        if (skv_load(&p.slots[i].a) == SKV_EMPTY)
            skv_store(&p.slots[i].a, SKV_TOMBSTONE);
    expect("no empty slot", "I11", "no empty slot");
}

static void damage_derived(void)
{
    place p = some_slot();
    skv_store(&p.b->count, skv_load(&p.b->count) + 1);
    expect("count", "I11", "count");
    skv_store(&p.b->tombstones, skv_load(&p.b->tombstones) + 1);
    expect("tombstones", "I11", "tombstones");
    skv_store(&p.b->value_bytes, skv_load(&p.b->value_bytes) - 1);
    expect("value_bytes", "I11", "value_bytes");
    while (!has_expiring(&p))
        p = some_slot();
    skv_store(&p.b->earliest_expiry, skv_load(&p.b->earliest_expiry) + 100000);
    expect("earliest_expiry", "I11", "earliest_expiry");
    skv_store(&p.b->earliest_expiry, 0);
    expect("no earliest_expiry", "I11", "earliest_expiry");
    skv_store(&p.slot->b, skv_load(&p.slot->b) + 1);
    expect("B's expiry", "I11", "expiry");
    skv_store(&p.slot->b, skv_load(&p.slot->b) ^ UINT64_C(1) << SKV_B_HASH_SHIFT);
    expect("B's hash", "I11", "hash bits");
    skv_store(&p.slot->b, skv_load(&p.slot->b) ^ UINT64_C(3) << SKV_CLOCK_SHIFT);
    expect_clean(store);        /* clock bits may be anything */
    expect_clean(reader);
    memcpy(base, good, SIZE);
}

/* What a process leaves in sight that is stopped in the middle of a removal: nothing is wrong with it. */
static void announce_of_live_process(skv_bucket *bucket)
{
    const skv_intent intent = {
        .meta = {.kind = SKV_META_INTENT, .owner = HELD_SLOT, .detail = 1}, .action = SKV_INTENT_REMOVE, .count = 0};
    skv_proc *proc = &store->procs[HELD_SLOT];
    memcpy(proc->removal, &intent, sizeof intent);
    skv_store(&proc->intent, skv_row_intent(store, HELD_SLOT));
    skv_store(&proc->status, skv_intent_status(1, SKV_BATCH_PENDING));
    skv_store(&bucket->lock, HELD_SLOT + 1);
    skv_store(&bucket->txn, skv_row_intent(store, HELD_SLOT));
}

static void damage_locks(void)
{
    place p = some_slot();
    skv_store(&p.b->lock, SKV_LOCK_WAITERS);
    expect("a lock of nobody", "I4", "locked by nobody");
    skv_store(&store->header->grow_lock, SKV_LOCK_WAITERS);
    expect("the grow lock of nobody", "I4", "growth is locked by nobody");
    skv_store(&p.b->lock, 500 + 1);
    expect_from(reader, "a lock of a free slot", "I7", "process slot 500, which is free");
    memcpy(base, good, SIZE);
    skv_store(&p.b->txn, p.record);
    expect("txn without a lock", "I5", "refers to a batch");
    skv_store(&p.b->lock, HELD_SLOT + 1);
    skv_store(&p.b->txn, p.record);
    expect_from(reader, "txn that is no intent", "I5", "is no intent");
    expect_from(store, "txn that is no intent", "I5", "is no intent");
    memcpy(base, good, SIZE);
    announce_of_live_process(p.b);
    expect_clean(reader);
    expect_clean(store);
    memcpy(base, good, SIZE);
    /* Behind a lock that is held, derived fields may be anything, and nobody waits for long. */
    for (uint64_t i = 0; i < store->bucket_count; i++) {
        skv_store(&store->buckets[i].lock, HELD_SLOT + 1);
        skv_store(&store->buckets[i].count, 12345);
    }
    skv_store(&store->header->pages_lock, HELD_SLOT + 1);
    uint64_t start = skv_monotonic_ns();
    expect_clean(reader);
    expect_clean(store);
    assert(skv_monotonic_ns() - start < UINT64_C(10000000000));
    memcpy(base, good, SIZE);
}

static void damage_processes(void)
{
    skv_store(&store->procs[7].state, 7);
    expect("a row's state", "I7", "state 7");
    skv_store(&store->procs[HELD_SLOT].status, 3);
    expect("a batch's status", "I6", "status 3");
    skv_store(&store->procs[HELD_SLOT].status, SKV_BATCH_COMMITTED);
    expect("a batch without intent", "I6", "intent");
    skv_store(&store->procs[9].intent, 4096);
    expect("an intent of nobody", "I6", "is free, but has a batch");
}

static void damage_pages(void)
{
    uint32_t blocks = page_in(SKV_PAGE_BLOCKS, false), units = page_in(SKV_PAGE_BLOCKS, true);
    uint32_t run = page_in(SKV_PAGE_RUN, false), empty = page_in(SKV_PAGE_FREE, false);
    uint64_t word = skv_load(&store->pages[blocks].word), head = skv_load(&store->pages[run].word);
    skv_store(&store->pages[blocks].word, (word & ~UINT64_C(15)) | 9);
    expect("a page's state", "I8", "state 9");
    skv_store(&store->pages[blocks].word, word | UINT64_C(200) << SKV_PW_CLASS_SHIFT);
    expect("a page's class", "I8", "descriptor");
    skv_store(&store->pages[blocks].word, word | UINT64_C(4) << SKV_PW_FAMILY_SHIFT);
    expect("a page's family", "I8", "descriptor");
    skv_store(&store->pages[blocks].word, skv_pw_with_owner(word, 900));
    expect("a page of a free slot", "I7", "process slot 899");
    skv_store(&store->pages[blocks].word, skv_pw_with_owner(word, 0) | SKV_PW_EVAC);
    expect("evacuated by nobody", "I8", "owner 0");
    skv_store(&store->pages[blocks].bitmap[31], UINT64_C(1) << 63);
    expect("a bit beyond the blocks", "I8", "beyond");
    skv_store(&store->pages[empty].bitmap[3], 1);
    expect("a bit in a free page", "I8", "beyond its 0 blocks");
    skv_store(&store->pages[empty].word, UINT64_C(7) << SKV_PW_RUN_SHIFT);
    expect("a free page with a length", "I8", "not in use");
    skv_store(&store->pages[units].lengths[__builtin_ctzll(skv_load(&store->pages[units].bitmap[0]))], 0);
    expect("a block without units", "I8", "has 0 units");
    skv_store(&store->pages[units].bitmap[20], 1);
    expect("bits behind the lengths", "I8", "bitmap word 20");
    skv_store(&store->pages[run].word, head + (UINT64_C(1) << SKV_PW_RUN_SHIFT));
    expect("a run's length", "I8", "of the run at page");
    skv_store(&store->pages[run].word, head + (UINT64_C(1) << 60));
    expect("a run beyond the region", "I8", "does not fit");
    skv_store(&store->pages[run + 1].word, 0);
    expect("a tail that is free", "I8", "of the run at page");
    skv_store(&store->pages[empty].word, skv_pw_make(SKV_PAGE_TAIL, 0, 0, 0, 1));
    expect("a tail without a run", "I8", "there is none");
    skv_store(&store->header->committed_pages, store->page_count + 1);
    expect("committed pages", "I8", "committed");
}

static void damage_header(void)
{
    base[offsetof(skv_fixed, hash_seed)] ^= 1;
    expect("the header", "header", "fixed part");
    skv_store(&store->header->state, SKV_POISONED);
    expect("the store's state", "header", "state is 2");
}

/* ---- More than damage -------------------------------------------------------------------------------------- */

static void test_dead_holder_is_repaired(void)
{
    place p = some_slot();
    skv_check_result result;
    skv_store(&p.b->lock, DEAD_SLOT + 1);
    skv_store(&p.b->count, 0);
    skv_store(&store->header->pages_lock, DEAD_SLOT + 1);
    expect_clean(reader);       /* to which it could as well be alive */
    dead[DEAD_SLOT] = true;
    assert(skv_check(store, NULL, NULL, &result) == 0);
    assert(result.dead_slots == 1);
    assert(skv_load(&p.b->lock) == 0 && skv_load(&p.b->count) != 0);
    dead[DEAD_SLOT] = false;
    memcpy(base, good, SIZE);
}

static void test_leaks_are_a_number(void)
{
    uint64_t offset;
    skv_wait wait = {.block = true, .shared = true};
    skv_check_result before, after;
    assert(skv_check(store, NULL, NULL, &before) == 0 && before.blocks_leaked == 0);
    assert(skv_alloc(store, SKV_RECORDS, 100, SKV_MOVE, &wait, &offset) == SKV_OK);
    assert(skv_alloc(store, SKV_RECORDS, 20000, SKV_MOVE, &wait, &offset) == SKV_OK);
    assert(skv_alloc(store, SKV_TABLES, 200000, SKV_MOVE, &wait, &offset) == SKV_OK);
    assert(skv_check(store, NULL, NULL, &after) == 0 && after.blocks_leaked == 3);
    assert(after.blocks_used == before.blocks_used + 3);
    assert(after.items == before.items && after.records == before.records && after.tables == before.tables);
}

static void test_reports_are_capped(void)
{
    static noted all;
    skv_check_result result;
    memcpy(good, base, SIZE);
    for (uint64_t i = 0; i < store->bucket_count; i++) {
        place p = bucket_place(i);
        for (uint64_t j = 0; j < p.capacity; j++)
            if (is_live(&p, j))
                skv_store(&p.slots[j].a, skv_load(&p.slots[j].a) ^ UINT64_C(1) << 63);
    }
    all.count = 0;
    assert(skv_check(store, note, &all, &result) > 1000);
    assert(all.count == 100 && names(&all, "I1"));
    memcpy(base, good, SIZE);
}

/* Whatever the words say: no crash, no hang, nothing read outside the region. */
static void test_random_damage(uint32_t rounds)
{
    const uint64_t areas[][2] = {
        {store->fixed.procs_offset, SKV_PROCS * sizeof(skv_proc)},
        {store->fixed.buckets_offset, store->bucket_count * sizeof(skv_bucket)},
        {store->fixed.descriptors_offset, skv_committed_pages(store) * sizeof(skv_page)},
        {store->pages_offset, (uint64_t)skv_committed_pages(store) << SKV_PAGE_SHIFT},
    };
    skv_check_result result;
    uint64_t found = 0;
    for (uint32_t round = 0; round < rounds; round++) {
        uint32_t area = (uint32_t)(random64() % 4);
        for (uint32_t i = 0; i < 1 + round % 20; i++) {
            uint64_t at = areas[area][0] + random64() % areas[area][1] / 8 * 8, word;
            memcpy(&word, base + at, 8);
            word = random64() % 3 ? word ^ UINT64_C(1) << (random64() % 64) : random64();
            memcpy(base + at, &word, 8);
        }
        found += skv_check(reader, NULL, NULL, &result) > 0;
        memcpy(base, good, SIZE);
    }
    printf("random damage: %llu of %u found\n", (unsigned long long)found, rounds);
    assert(found > rounds / 3);
}

/* ---- Beside writers ---------------------------------------------------------------------------------------------- */

static _Atomic bool stop;

static void put_batch(uint64_t *state)
{
    char keys[20][32], value[64] = {0};
    skv_item items[20];
    for (uint32_t i = 0; i < 20; i++) {
        *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
        snprintf(keys[i], sizeof keys[i], "key:%06u", (uint32_t)(*state >> 40) % (2 * ITEMS));
        items[i] = (skv_item){.key = skv_hash_key(store, keys[i], (uint32_t)strlen(keys[i]), false), .value = value,
                              .value_len = *state >> 60, .type = SKV_T_BYTES, .expires_ms = i % 4 ? 0 : NOW_MS + 5000};
    }
    skv_wait wait = {.block = true, .shared = true};
    uint32_t removed;
    skv_status status = *state >> 63 ? skv_put_many(store, items, 20, &wait) : skv_delete_many(store, items, 20, &removed, &wait);
    assert(status == SKV_OK || status == SKV_BUSY);
}

static void *write_much(void *argument)
{
    uint64_t state = *(uint64_t *)argument;
    char key[32], value[3000] = {0};
    while (!skv_load(&stop)) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
        snprintf(key, sizeof key, "key:%06u", (uint32_t)(state >> 40) % (2 * ITEMS));
        switch (state >> 33 & 7) {
        case 0:
            put_batch(&state);
            break;
        case 1: case 2: case 3:
            delete_key(key);
            break;
        default:
            put(key, false, value, (state >> 50) % 100 ? (state >> 20) % 120 : 2900, state >> 60 ? 0 : NOW_MS + 5000);
        }
    }
    return NULL;
}

static void test_beside_writers(void)
{
    pthread_t threads[2];
    uint64_t seeds[2] = {random64(), random64()};
    for (uint32_t i = 0; i < 2; i++)
        assert(pthread_create(&threads[i], NULL, write_much, &seeds[i]) == 0);
    uint64_t end = skv_monotonic_ns() + UINT64_C(1500000000);
    uint32_t rounds = 0;
    for (; skv_monotonic_ns() < end; rounds++) {
        expect_clean(store);
        expect_clean(reader);
    }
    skv_store(&stop, true);
    for (uint32_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    skv_check_result result;
    expect_clean(store);
    assert(skv_check(reader, NULL, NULL, &result) == 0 && result.blocks_leaked == 3);   /* the planted ones */
    printf("beside writers: %u rounds\n", rounds);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10) * 2 + 1;
    const uint32_t rounds = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 3;
    open_store();
    expect_clean(store);
    fill();
    skv_store(&store->procs[DEAD_SLOT].state, SKV_PROC_USED);
    skv_store(&store->procs[HELD_SLOT].state, SKV_PROC_USED);
    expect_clean(store);
    expect_clean(reader);
    memcpy(good, base, SIZE);
    for (uint32_t round = 0; round < rounds; round++) {
        damage_slots();
        damage_records();
        damage_doubles();
        damage_blocks();
        damage_tables();
        damage_derived();
        damage_processes();
        damage_pages();
        damage_header();
    }
    damage_locks();
    test_dead_holder_is_repaired();
    test_leaks_are_a_number();
    test_reports_are_capped();
    if (rounds)
        test_random_damage(100 * rounds);
    test_beside_writers();
    skv_close(store);
    skv_close(reader);
    free(base);
    free(good);
    printf("test_check: all is well\n");
    return 0;
}
