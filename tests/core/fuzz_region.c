/* fuzz_region.c: all operations on damaged and hostile regions, driven by libFuzzer.
 *
 * What: an input is a short program: which region, which words of it are changed to what, and when, and what is
 *       called then.  Wrong values and errors of every kind are fine; a crash, an execution of more than a second, a
 *       look at memory that is not committed, and memory taken out of all proportion are not.
 * How:  the regions are made here, at the start: full and empty ones, some left by processes that died at a crash
 *       point. A change names a *kind* of word (a field of the header, a process's row, a bucket, a slot, a record, a
 *       descriptor, an intent, or any bytes), because random bytes at random places hit nothing that matters.  It is
 *       made before the region is opened, or at the n-th crash point after that, as a hostile process would do it
 *       between two looks of ours. See fuzz_box.h for what counts as out of bounds, and for the clock.
 *
 * Concurrency: one thread.
 */
#include "fuzz_box.h"

#include <sys/wait.h>
#include <unistd.h>

#include "intent.h"

#define MOST_CHANGES  12u
#define MOST_OPS      3u
#define KEYS          64u       /* ids below it are in the stores, about                        */
#define BATCH         6u
#ifndef LIMIT_S
#define LIMIT_S       1.0       /* of processor time, for one execution                         */
#endif

/* ---- Values and keys ------------------------------------------------------------------------- */

/* Of 16 bytes, so that values begin where slots may. */
typedef struct key_text { char text[17]; } key_text;

static skv_key key_for(const skv *store, uint32_t id, key_text *text)
{
    int n = snprintf(text->text, sizeof text->text, "the key of %05u", id % 100000);
    return skv_hash_key(store, text->text, (uint32_t)n, id % 7 == 0);
}

static uint32_t length_for(uint32_t id)
{
    static const uint32_t lengths[] = {8, 20, 100, 8, 300, 40, 1200, 8, 5000, 60, 8, 9000, 30, 20000, 8, 70000};
    return lengths[id % (sizeof lengths / sizeof *lengths)];
}

/* Values that look like tables whose slots name long records: what a hostile process would store before it bends
 * a table word to lead there. */
static const uint8_t *tempting_value(const skv *store)
{
    static uint64_t words[10000];
    for (uint64_t i = 0; i < 10000 && !words[9998]; i += 2)
        words[i] = (store->pages_offset + (i / 2 % 24) * SKV_PAGE_SIZE + 0x400) / SKV_UNIT;
    return (const uint8_t *)words;
}

static skv_item item_for(const skv *store, uint32_t id, key_text *text, uint64_t expires_ms)
{
    uint32_t len = length_for(id);
    const uint8_t *value = tempting_value(store);
    return (skv_item){.key = key_for(store, id, text), .value = value, .value_len = len,
                      .type = len == 8 ? SKV_T_INT : SKV_T_BYTES, .expires_ms = expires_ms};
}

static skv_wait patient(void)
{
    return (skv_wait){.block = true, .shared = true, .deadline_ns = box_now_ns + 50000000};
}

/* ---- Regions to begin with ------------------------------------------------------------------- */

static void put_ids(box *b, uint32_t from, uint32_t to)
{
    for (uint32_t id = from; id < to; id++) {
        key_text text;
        skv_item item = item_for(b->store, id, &text, id % 5 ? 0 : box_now_ns / 1000000 + 500 * (id % 3));
        skv_wait wait = patient();
        wait.shared = false;    /* so that a spare block is kept                                */
        skv_put(b->store, &item, SKV_PUT_ANY, 0, &wait);
    }
}

static void many(box *b, uint32_t from, uint32_t to, bool removing)
{
    key_text texts[KEYS];
    skv_item items[KEYS];
    skv_wait wait = patient();
    uint32_t removed;
    for (uint32_t i = 0; i < to - from; i++) {
        items[i] = item_for(b->store, from + i, &texts[i], 0);
        items[i].value_len = 24;
    }
    if (removing)
        skv_delete_many(b->store, items, to - from, &removed, &wait);
    else
        skv_put_many(b->store, items, to - from, &wait);
}

static void delete_ids(box *b, uint32_t from, uint32_t to)
{
    for (uint32_t id = from; id < to; id++) {
        key_text text;
        skv_key key = key_for(b->store, id, &text);
        skv_wait wait = patient();
        skv_delete(b->store, &key, 0, &wait);
    }
}

static const char *die_at;
static uint32_t die_after;

static void die_there(const char *name)
{
    if (strcmp(name, die_at) == 0 && die_after-- == 0)
        _exit(0);
}

/* A process that dies the n-th time that it passes a crash point while it does `work`. */
static void dying(box *b, const char *point, uint32_t nth, void (*work)(box *))
{
    die_at = point;
    die_after = nth;
    pid_t pid = fork();
    INSIST_ON(pid >= 0, "fork");
    if (pid == 0) {
        INSIST_ON(box_open(b, &b->fixed, false) == SKV_OK && skv_register(b->store) == SKV_OK, "cannot open");
        skv_crash_hook = die_there;
        work(b);
        fprintf(stderr, "%s was not passed\n", point);
        _exit(1);
    }
    int status;
    INSIST_ON(waitpid(pid, &status, 0) == pid && status == 0, "a process was to die at %s", point);
    b->living = b->living << 1 | 1;     /* for the next one its row is taken                    */
}

static void write_batch(box *b) { many(b, 30, 60, false); }
static void write_few(box *b) { many(b, 61, 63, false); }
static void remove_batch(box *b) { many(b, 5, 40, true); }
static void put_more(box *b) { put_ids(b, 64, 120); }
static void put_again(box *b) { put_ids(b, 0, 64); }
static void delete_some(box *b) { delete_ids(b, 10, 30); }

static void clear_all(box *b)
{
    skv_wait wait = patient();
    skv_clear(b->store, &wait);
}

static void compact_all(box *b)
{
    skv_wait wait = patient();
    skv_compact_report report;
    skv_compact(b->store, &report, &wait);
    skv_return_memory(b->store, &wait);
}

static void make_empty(box *b) { box_format(b, 0); }

static void make_plain(box *b)
{
    box_format(b, 0);
    put_ids(b, 0, KEYS);
    delete_ids(b, 40, 45);
    many(b, 50, 60, false);
}

static void make_full(box *b)
{
    box_format(b, SKV_FLAG_EVICT);
    put_ids(b, 0, 400);
}

static void make_given_back(box *b)
{
    make_plain(b);
    b->alone = true;
    delete_ids(b, 8, 60);
    compact_all(b);
    put_ids(b, 8, 12);
    compact_all(b);
}

static void make_batch_dead(box *b)
{
    make_plain(b);
    box_close(b);
    dying(b, "batch.committed", 0, write_batch);
}

static void make_batch_half_applied(box *b)
{
    make_plain(b);
    box_close(b);
    dying(b, "batch.applied", 7, write_batch);
}

static void make_removal_dead(box *b)
{
    make_plain(b);
    box_close(b);
    dying(b, "batch.applied", 9, remove_batch);
}

static void make_clear_dead(box *b)
{
    make_plain(b);
    box_close(b);
    dying(b, "clear.applied", 3, clear_all);
}

static void make_crowd_dead(box *b)
{
    make_plain(b);
    box_close(b);
    dying(b, "growth.published", 0, put_more);
    dying(b, "delete.published", 2, delete_some);
    dying(b, "put.hinted", 0, put_more);
    dying(b, "spare.kept", 3, put_again);
    dying(b, "batch.pending", 0, write_few);
}

static void make_allocator_dead(box *b)
{
    make_plain(b);
    box_close(b);
    dying(b, "run.taken", 0, put_again);
}

static void make_audit_dead(box *b)
{
    make_plain(b);
    box_close(b);
    dying(b, "put.written", 5, put_again);
    dying(b, "audit.closed", 0, compact_all);
}

typedef struct image {
    const char *name;
    uint64_t size;
    void (*make)(box *);
    box      box;
    skv_fixed made;             /* its header                                                   */
    uint64_t low, high;         /* ends of what is committed of it                              */
} image;

static image images[] = {
    {.name = "plain", .size = 2 * MIB, .make = make_plain},
    {.name = "full", .size = 1 * MIB + 5 * 4096, .make = make_full},
    {.name = "empty", .size = 2 * MIB, .make = make_empty},
    {.name = "batch_dead", .size = 2 * MIB, .make = make_batch_dead},
    {.name = "batch_half_applied", .size = 2 * MIB, .make = make_batch_half_applied},
    {.name = "removal_dead", .size = 2 * MIB, .make = make_removal_dead},
    {.name = "clear_dead", .size = 2 * MIB, .make = make_clear_dead},
    {.name = "crowd_dead", .size = 2 * MIB, .make = make_crowd_dead},
    {.name = "allocator_dead", .size = 2 * MIB, .make = make_allocator_dead},
    {.name = "audit_dead", .size = 2 * MIB, .make = make_audit_dead},
    {.name = "given_back", .size = 3 * MIB, .make = make_given_back},
};
#define IMAGES (sizeof images / sizeof *images)

/* Made in memory shared with the processes that die, and kept as a file: a private mapping of it is damaged, and a
 * call of madvise puts it back. */
static void build_image(image *im)
{
    box nursery;
    box_map(&nursery, im->size, MAP_SHARED, -1);
    im->make(&nursery);
    box_close(&nursery);
    __asan_unpoison_memory_region(nursery.base, im->size);
    const uint64_t pages = ((skv_header *)(void *)nursery.base)->committed_pages;
    im->made = nursery.fixed;
    im->low = nursery.fixed.descriptors_offset + pages * sizeof(skv_page);
    im->high = nursery.fixed.pages_offset + (pages << SKV_PAGE_SHIFT);
    int fd = memfd_create(im->name, MFD_CLOEXEC);
    INSIST_ON(fd >= 0 && write(fd, nursery.base, im->size) == (ssize_t)im->size, "no memory for %s", im->name);
    munmap(nursery.base - GUARD, im->size + 2 * GUARD);
    box_map(&im->box, im->size, MAP_PRIVATE, fd);
    close(fd);
}

/* ---- The input ------------------------------------------------------------------------------- */

typedef struct input {
    const uint8_t *at, *end;
} input;

static uint64_t take(input *in, uint32_t bytes)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < bytes && in->at < in->end; i++)
        value |= (uint64_t)*in->at++ << 8 * i;
    return value;
}

/* ---- Damage ---------------------------------------------------------------------------------- */

enum target {
    T_BUCKET, T_HEADER, T_ROW, T_FIXED, T_TABLE, T_SLOT, T_RECORD, T_DESCRIPTOR, T_BITMAP, T_KIND, T_INTENT,
    T_BYTES, TARGETS
};

typedef struct change {
    enum target target;
    uint32_t index, word;
    uint32_t how;
    uint64_t value;
    uint32_t moment;            /* 0 = before the region is opened, n = at the n-th crash point */
} change;

typedef struct run {
    image   *im;
    box     *b;
    bool     read_only, sealed; /* sealed: the header's checksum is made anew                   */
    change   changes[MOST_CHANGES];
    uint32_t count, moment;
    input    in;
} run;

static run *current;            /* for the crash hook                                           */

/* Who damages a region may look where the engine may not. */
#define UNFENCED __attribute__((no_sanitize("address", "undefined")))

static uint64_t bounded(uint64_t offset, uint64_t size)
{
    return offset <= size - 8 ? offset & ~UINT64_C(7) : (size - 8) & ~UINT64_C(7);
}

/* Where a bucket's table is said to be, or the pages if that is nowhere. */
UNFENCED static uint64_t table_of(const box *b, const skv_fixed *f, uint32_t index, uint64_t *capacity)
{
    const skv_bucket *buckets = (const skv_bucket *)(const void *)(b->base + f->buckets_offset);
    uint64_t word = buckets[index & ((1u << f->bucket_bits) - 1)].table, offset = skv_table_offset(word);
    *capacity = skv_table_capacity(word);
    bool good = *capacity && offset >= f->pages_offset && offset + skv_table_bytes(*capacity) <= f->size;
    if (!good)
        *capacity = 1;
    return good ? offset : f->pages_offset;
}

/* Of the slots that hold something, the n-th of a bucket. */
UNFENCED static uint64_t slot_of(const box *b, const skv_fixed *f, uint32_t index, bool any)
{
    uint64_t capacity, table = table_of(b, f, index, &capacity);
    const skv_slot *slots = (const skv_slot *)(const void *)(b->base + table) + 1;
    uint64_t from = index >> 8 & 0xff;
    for (uint64_t i = 0; i < capacity && !any; i++)
        if (skv_slot_is_live(slots[(from + i) % capacity].a))
            return table + (1 + (from + i) % capacity) * sizeof(skv_slot);
    return table + (1 + from % capacity) * sizeof(skv_slot);
}

UNFENCED static uint64_t record_of(const box *b, const skv_fixed *f, uint32_t index)
{
    const skv_slot *slot = (const skv_slot *)(const void *)(b->base + bounded(slot_of(b, f, index, false), b->size));
    return bounded(skv_slot_offset(slot->a), b->size);
}

UNFENCED static uint64_t intent_of(const box *b, const skv_fixed *f, uint32_t index)
{
    const skv_bucket *buckets = (const skv_bucket *)(const void *)(b->base + f->buckets_offset);
    uint64_t txn = buckets[index & ((1u << f->bucket_bits) - 1)].txn;
    if (!txn)
        txn = f->procs_offset + (index & 7) * sizeof(skv_proc) + offsetof(skv_proc, removal);
    return bounded(txn, b->size);
}

/* Offset in bytes of the thing that a change is about; `f` is the header as it was made. */
UNFENCED static uint64_t thing(const box *b, const skv_fixed *f, enum target target, uint32_t index)
{
    switch (target) {
    case T_HEADER:
        return offsetof(skv_header, state);
    case T_ROW:
        return f->procs_offset + (index % 100 < 90 ? index % 10 : index % SKV_PROCS) * sizeof(skv_proc);
    case T_BUCKET:
        return f->buckets_offset + (index & ((1u << f->bucket_bits) - 1)) * sizeof(skv_bucket);
    case T_TABLE: {
        uint64_t capacity;
        return table_of(b, f, index, &capacity);
    }
    case T_SLOT:
        return slot_of(b, f, index, index >> 15 & 1);
    case T_RECORD:
        return record_of(b, f, index);
    case T_DESCRIPTOR:
    case T_BITMAP:
        return f->descriptors_offset + index % f->pages * sizeof(skv_page) + (target == T_BITMAP ? 64 : 0);
    case T_KIND:
        return f->kinds_offset + index % f->pages;
    case T_INTENT:
        return intent_of(b, f, index);
    case T_BYTES:
        return f->pages_offset + index * UINT64_C(16);
    default:
        return 0;
    }
}

static const uint32_t words_in[TARGETS] = {8, 160, 32, 32, 2, 2, 4, 2, 32, 1, 24, 64};

static const uint64_t odd_values[] = {
    0, 1, 2, 3, 7, 8, 64, 255, 1023, 1024, 4096, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_C(1) << 32,
    UINT64_C(1) << 40,
    UINT64_C(0xffffff0000000000), UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX - 7, 0x100000, 0x200000, 0x1fffff, 0x10000,
    0xffff, 0x40000001, 0x80000001, 0x3ff, 0x400, SKV_META_TABLE, SKV_META_INTENT, 5,
};

/* What the word becomes. */
UNFENCED static uint64_t new_word(const run *r, const change *c, uint64_t old)
{
    const skv_fixed *f = &r->im->made;
    const uint64_t other = thing(r->b, f, (enum target)(c->value % TARGETS), (uint32_t)(c->value >> 8) & 0xffff);
    switch (c->how % 8) {
    case 0:
        return c->value;
    case 1:
        return old ^ UINT64_C(1) << (c->value % 64);
    case 2:
        return old + (uint64_t)(int64_t)(int8_t)c->value;
    case 3:
        return odd_values[c->value % (sizeof odd_values / sizeof *odd_values)];
    case 4:                     /* half of the word, as most are made of two                    */
        return (old & 0xffffffff) | odd_values[c->value % (sizeof odd_values / sizeof *odd_values)] << 32;
    case 5:                     /* leads somewhere else, as a slot or a table word              */
        old = c->how & 32 ? (c->value >> 24 & 0xffffff) << SKV_OFFSET_BITS : old & ~SKV_OFFSET_MASK;
        return old | ((other / SKV_UNIT) & SKV_OFFSET_MASK);
    case 6:                     /* leads somewhere else, as txn, intent and spare               */
        return other;
    default:
        return (old & SKV_OFFSET_MASK) | c->value << SKV_OFFSET_BITS;
    }
}

UNFENCED static void make_change(run *r, const change *c)
{
    box *b = r->b;
    const skv_fixed *made = &r->im->made;
    uint64_t offset = thing(b, made, c->target, c->index) + c->word % words_in[c->target] * 8, word;
    offset = bounded(offset, b->size);
    const uint64_t low = c->moment ? b->low : r->im->low, high = c->moment ? b->high : r->im->high;
    if (offset + sizeof word > low && (offset < made->pages_offset || offset + sizeof word > high))
        return;                 /* a hole                                                       */
    memcpy(&word, b->base + offset, sizeof word);
    word = new_word(r, c, word);
    memcpy(b->base + offset, &word, sizeof word);
}

/* What is committed may only seem to become more while the region is in use: memory does not go. */
static void fence_again(run *r)
{
    box *b = r->b;
    uint64_t pages = ((skv_header *)(void *)b->base)->committed_pages, low = b->low, high = b->high;
    if (pages > b->fixed.pages)
        pages = b->fixed.pages;
    if (b->fixed.pages_offset + (pages << SKV_PAGE_SHIFT) <= high)
        return;
    box_fence(b, pages);
    if (low > b->low)
        b->low = low;
    INSIST_ON(b->high >= high, "the fence is set right");
}

static void between_steps(const char *name)
{
    run *r = current;
    (void)name;
    if (!r)
        return;
    r->moment++;
    bool changed = false;
    for (uint32_t i = 0; i < r->count; i++)
        if (r->changes[i].moment == r->moment) {
            make_change(r, &r->changes[i]);
            changed = true;
        }
    if (changed)
        fence_again(r);
}

static void read_changes(run *r)
{
    r->count = (uint32_t)take(&r->in, 1) % (MOST_CHANGES + 1);
    for (uint32_t i = 0; i < r->count; i++) {
        change *c = &r->changes[i];
        c->target = (enum target)(take(&r->in, 1) % TARGETS);
        c->index = (uint32_t)take(&r->in, 2);
        c->word = (uint32_t)take(&r->in, 1);
        c->how = (uint32_t)take(&r->in, 1);
        c->value = take(&r->in, c->how & 32 ? 6 : c->how & 8 ? 3 : 8);
        c->moment = c->how & 16 ? (uint32_t)take(&r->in, 1) : 0;
    }
}

UNFENCED static void change_before(run *r)
{
    for (uint32_t i = 0; i < r->count; i++)
        if (r->changes[i].moment == 0)
            make_change(r, &r->changes[i]);
    skv_fixed *fixed = (skv_fixed *)(void *)r->b->base;
    if (r->sealed)
        fixed->checksum = skv_xxh3_64(fixed, offsetof(skv_fixed, checksum), 0);
}

/* ---- Operations on keys ---------------------------------------------------------------------- */

#define MOST_COPIED (UINT64_C(256) * KIB)

static uint8_t copied[MOST_COPIED];

static void copy_view(const skv_view *view)
{
    if (view->record && view->value_len <= MOST_COPIED)
        skv_copy_racy(copied, view->value, view->value_len);
}

static void do_get(run *r, uint32_t id)
{
    skv *s = r->b->store;
    key_text text;
    skv_key key = key_for(s, id, &text);
    for (uint32_t tries = 0; tries < 4; tries++) {
        skv_view view;
        skv_frozen *frozen = tries == 3 ? skv_freeze(s, &key, 1) : NULL;
        skv_find(s, &key, &view);
        copy_view(&view);
        bool good = skv_validate(&view);
        skv_thaw(s, frozen);
        if (good) {
            skv_warm(s, &view);
            return;
        }
        skv_relax(s, &view, tries);
    }
}

static void do_get_many(run *r, uint32_t id)
{
    skv *s = r->b->store;
    key_text texts[BATCH];
    skv_key keys[BATCH];
    skv_view views[BATCH];
    for (uint32_t i = 0; i < BATCH; i++)
        keys[i] = key_for(s, (id + i * 5) % (KEYS + 8), &texts[i]);
    skv_find_many(s, keys, views, BATCH);
    for (uint32_t i = 0; i < BATCH; i++)
        copy_view(&views[i]);
    if (!skv_validate_many(s, keys, views, BATCH))
        skv_thaw(s, skv_freeze(s, keys, BATCH));
}

static void do_put(run *r, uint32_t id)
{
    static const enum skv_put_condition conditions[] = {
        SKV_PUT_ANY, SKV_PUT_ANY, SKV_PUT_ABSENT, SKV_PUT_PRESENT, SKV_PUT_VERSION};
    skv *s = r->b->store;
    key_text text;
    skv_item item = item_for(s, id, &text, id % 3 ? 0 : skv_now_ms(s) + id % 400);
    skv_wait wait = patient();
    wait.shared = id & 1;
    wait.block = !wait.shared || id % 4;
    skv_put(s, &item, conditions[id % 5], id, &wait);
}

static void do_put_each(run *r, uint32_t id)
{
    skv *s = r->b->store;
    key_text texts[BATCH];
    skv_item items[BATCH], *list[BATCH];
    skv_wait wait = patient();
    uint32_t done;
    for (uint32_t i = 0; i < BATCH; i++) {
        items[i] = item_for(s, (id + i * 16) % (2 * KEYS), &texts[i], 0);
        list[i] = &items[i];
    }
    skv_put_each(s, list, BATCH, &wait, &done);
    INSIST_ON(done <= BATCH, "%u of %u were put", done, BATCH);
}

static void do_delete(run *r, uint32_t id)
{
    skv *s = r->b->store;
    key_text text;
    skv_key key = key_for(s, id, &text);
    skv_wait wait = patient();
    skv_delete(s, &key, id % 9 == 8 ? id : 0, &wait);
}

static void do_incr(run *r, uint32_t id)
{
    skv *s = r->b->store;
    key_text text;
    skv_key key = key_for(s, id, &text);
    skv_wait wait = patient();
    int64_t result;
    skv_incr(s, &key, INT64_MAX / 3 * (id % 4), 7, id % 2 ? 0 : skv_now_ms(s) + 300, &result, &wait);
}

static void do_touch(run *r, uint32_t id)
{
    skv *s = r->b->store;
    key_text text;
    skv_key key = key_for(s, id, &text);
    skv_wait wait = patient();
    bool had;
    skv_touch(s, &key, id % 4 ? skv_now_ms(s) + 200 : 0, &had, &wait);
}

static void do_put_many(run *r, uint32_t id)
{
    skv *s = r->b->store;
    key_text texts[BATCH];
    skv_item items[BATCH];
    skv_wait wait = patient();
    for (uint32_t i = 0; i < BATCH; i++) {
        items[i] = item_for(s, (id * 3 + i) % (2 * KEYS), &texts[i], i % 4 ? 0 : skv_now_ms(s) + 100);
        if (id % 8)             /* long ones take their time                                    */
            items[i].value_len %= 1000;
    }
    skv_put_many(s, items, BATCH, &wait);
}

static void do_delete_many(run *r, uint32_t id)
{
    skv *s = r->b->store;
    key_text texts[BATCH];
    skv_item items[BATCH];
    skv_wait wait = patient();
    uint32_t removed;
    for (uint32_t i = 0; i < BATCH; i++)
        items[i] = item_for(s, (id + i) % KEYS, &texts[i], 0);
    skv_delete_many(s, items, BATCH, &removed, &wait);
    INSIST_ON(removed <= BATCH, "%u of %u were removed", removed, BATCH);
}

/* ---- Walks, and what goes on behind the scenes ----------------------------------------------- */

static bool every_other(void *context, const uint8_t *key, uint32_t len, bool is_bytes)
{
    (void)context;
    return !len || is_bytes || key[len - 1] % 2;
}

static void do_scan(run *r, uint32_t id)
{
    skv *s = r->b->store;
    skv_copies copies = {0};
    for (uint64_t i = 0; i < s->bucket_count && i < 64; i++)
        skv_copy_bucket(s, i, id % 4 != 0, id % 2 ? every_other : NULL, NULL, &copies);
    skv_free_items(&copies);
}

static void do_stats(run *r, uint32_t id)
{
    skv_stats stats;
    (void)id;
    skv_get_stats(r->b->store, &stats);
    skv_count_items(r->b->store);
}

static void read_problem(void *context, const char *invariant, const char *sentence)
{
    (void)context;
    INSIST_ON(strlen(invariant) < 10 && strlen(sentence) < 250, "%s: %s", invariant, sentence);
}

static void do_check(run *r, uint32_t id)
{
    skv_check_result result;
    (void)id;
    skv_check(r->b->store, read_problem, NULL, &result);
}

static void do_sweep(run *r, uint32_t id)
{
    skv_wait wait = patient();
    uint64_t dropped;
    box_now_ns += id * UINT64_C(10000000);
    skv_sweep_expired(r->b->store, id % 2 ? 16 : UINT64_MAX, &dropped, &wait);
}

static void do_compact(run *r, uint32_t id)
{
    skv_wait wait = patient();
    skv_compact_report report;
    wait.block = id % 8 != 0;
    skv_compact(r->b->store, &report, &wait);
    skv_return_memory(r->b->store, &wait);
}

static void do_audit(run *r, uint32_t id)
{
    skv_wait wait = patient();
    uint64_t freed;
    (void)id;
    skv_audit(r->b->store, &freed, &wait);
}

static void do_reclaim(run *r, uint32_t id)
{
    uint32_t slots;
    (void)id;
    skv_reclaim_dead(r->b->store, &slots);
}

static void do_clear(run *r, uint32_t id)
{
    skv_wait wait = patient();
    (void)id;
    skv_clear(r->b->store, &wait);
}

static void do_reopen(run *r, uint32_t id)
{
    skv_fixed fixed;
    (void)id;
    box_close(r->b);
    memcpy(&fixed, r->b->base, sizeof fixed);
    if (box_open(r->b, &fixed, r->read_only))
        return;
    if (!r->read_only)
        skv_register(r->b->store);
}

typedef void (*operation)(run *, uint32_t id);

static const operation on_keys[] = {
    do_get, do_put, do_get_many, do_incr, do_put_many, do_touch, do_put_each, do_delete, do_delete_many};
static const operation on_all[] = {do_scan, do_stats, do_check, do_sweep, do_compact, do_audit, do_reclaim, do_clear};
#define ON_KEYS (sizeof on_keys / sizeof *on_keys)
#define ON_ALL  (sizeof on_all / sizeof *on_all)

static void call(run *r, operation what, uint32_t id)
{
    if (r->b->store)
        what(r, id);
}

/* A few as the input says, then each operation on keys, one of those that walk through everything, and the end. */
static void operate(run *r)
{
    const uint32_t walks = (uint32_t)take(&r->in, 1), count = (uint32_t)take(&r->in, 1) % (MOST_OPS + 1);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t what = (uint32_t)take(&r->in, 1) % (ON_KEYS + ON_ALL + 1), id = (uint32_t)take(&r->in, 1);
        call(r, what < ON_KEYS ? on_keys[what] : what < ON_KEYS + ON_ALL ? on_all[what - ON_KEYS] : do_reopen, id);
    }
    for (uint32_t i = 0; i < ON_KEYS; i++)
        call(r, on_keys[i], walks + 17 * i);
    call(r, on_all[walks % ON_ALL], walks);
    call(r, do_reopen, 0);
    call(r, do_get, walks);
}

/* ---- One execution --------------------------------------------------------------------------- */

static double longest_s;
static uint64_t executions, opened;

static void report(void)
{
    fprintf(stderr, "fuzz: executions=%llu opened=%llu longest_ms=%.1f\n", (unsigned long long)executions,
            (unsigned long long)opened, longest_s * 1e3);
}

static void begin(run *r, const uint8_t *data, size_t size)
{
    r->in = (input){data, data + size};
    r->im = &images[take(&r->in, 1) % IMAGES];
    r->b = &r->im->box;
    r->b->living = (uint32_t)take(&r->in, 1);
    const uint32_t flags = (uint32_t)take(&r->in, 1);
    r->read_only = flags % 16 == 15;
    r->sealed = flags & 16;
    r->b->alone = flags & 32;
    r->b->fail_commit = flags >> 6;
    box_now_ns = BOOT_NS;
}

static void attach_and_operate(run *r)
{
    skv_fixed fixed;
    memcpy(&fixed, r->b->base, sizeof fixed);
    if (box_open(r->b, &fixed, r->read_only))
        return;
    opened++;
    if (r->read_only)
        mprotect(r->b->base, r->b->size, PROT_READ);
    current = r;
    if (!r->read_only)
        skv_register(r->b->store);
    operate(r);
    box_close(r->b);
    current = NULL;
    if (r->read_only)
        mprotect(r->b->base, r->b->size, PROT_READ | PROT_WRITE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static run r;
    memset(&r, 0, sizeof r);
    begin(&r, data, size);
    read_changes(&r);
    double start = cpu_seconds();
    change_before(&r);
    attach_and_operate(&r);
    double took = cpu_seconds() - start;
    executions++;
    longest_s = took > longest_s ? took : longest_s;
    INSIST_ON(took < LIMIT_S, "an execution took %.2f s", took);
    INSIST_ON(madvise(r.b->base, r.b->size, MADV_DONTNEED) == 0, "the region goes back to what it was");
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    for (size_t i = 0; i < IMAGES; i++)
        build_image(&images[i]);
    skv_crash_hook = between_steps;
    atexit(report);
    return 0;
}
