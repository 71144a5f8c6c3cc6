/* test_crash.c: a process is killed at each named crash point of each operation, at its first, second, ... hit.
 *
 * What: for each scenario, a child runs the steps once and notes every crash point that it passes (the trace).
 *       Then, in a store made anew each time, a child is killed at one of these passes, and the parent asks:
 *       1 is every acknowledged step there, and the one in flight there as a whole or not at all?
 *       2 does the next operation on the same keys succeed within 100 ms?
 *       3 is the store clean, and after compact() without leaks?
 *       It is also stopped there (SIGSTOP), and readers must see the same, at once.
 *       Scenarios that begin with a dead process (its locks, intents and leaks) kill the repairer itself.
 * How:  a model of what the keys hold; a step changes it by one atomic change.  The child acknowledges each step in
 *       shared memory.  Prints "killed POINT TIMES" for each point, so that the runner sees that none was left out.
 *
 *     test_crash [SEED [HITS [SCENARIO...]]]    HITS of each point, and its last one; 0: one, and of every second scenario
 */
#include "util.h"

#define IDS        1200u        /* keys with values of ours                                   */
#define INTS       4u           /* keys with integers: INT_BASE + i                           */
#define INT_BASE   5000u
#define STEPS      80u
#define POINTS     128u
#define TRACE      40000u
#define LIMIT_S    0.1

static uint64_t seed = 1;
static uint32_t passes = 3;     /* how many passes of each point are tried; the last one too, if more than one */

/* ---- Steps and the model ---------------------------------------------------------------------- */

enum kind { PUT, DELETE, TOUCH, INCR, BATCH, BATCH_DELETE, CLEAR, HOUSE };

typedef struct shop shop;

typedef struct step {
    enum kind kind;
    uint64_t id, count;         /* count: of a batch                                          */
    uint64_t counter;           /* INCR: what is added                                        */
    size_t len;
    uint64_t expires;
    void (*house)(shop *);      /* housekeeping: changes nothing that the model knows         */
} step;

typedef struct state {
    uint64_t counter[IDS], expires[IDS];        /* counter 0 = absent                         */
    bool has_int[INTS];
    int64_t ints[INTS];
} state;

struct shop {                   /* one store, one run                                         */
    box b;
    state model;                /* after the set-up                                           */
    step steps[STEPS];
    uint32_t step_count;
    uint64_t now;               /* injected clock; 0 = none                                   */
    bool lossy;                 /* values may be missing (eviction)                           */
    bool alone;                 /* the parent is not attached while the child works           */
};

static void apply(state *m, const step *s)
{
    for (uint64_t id = s->id; id < s->id + s->count && (s->kind == BATCH || s->kind == BATCH_DELETE); id++) {
        m->counter[id] = s->kind == BATCH ? s->counter : 0;
        m->expires[id] = s->expires;
    }
    if (s->kind == PUT || s->kind == DELETE) {
        m->counter[s->id] = s->kind == PUT ? s->counter : 0;
        m->expires[s->id] = s->expires;
    } else if (s->kind == TOUCH) {
        m->expires[s->id] = s->expires;
    } else if (s->kind == INCR) {
        m->ints[s->id] = m->has_int[s->id] ? m->ints[s->id] + (int64_t)s->counter : (int64_t)s->counter;
        m->has_int[s->id] = true;
    } else if (s->kind == CLEAR) {
        memset(m, 0, sizeof *m);
    }
}

static skv_status run_batch(skv *store, const step *s)
{
    uint8_t *values = malloc(s->count * s->len + 1);
    skv_item *items = malloc(s->count * sizeof *items);
    key_text *texts = malloc(s->count * sizeof *texts);
    uint32_t removed;
    REQUIRE(values && items && texts, "no memory");
    for (uint64_t i = 0; i < s->count; i++) {
        if (s->kind == BATCH)
            make_value(values + i * s->len, s->id + i, s->counter, s->len);
        items[i] = (skv_item){.key = key_for(store, s->id + i, &texts[i]), .value = values + i * s->len, .value_len = s->len,
                              .type = SKV_T_BYTES, .expires_ms = s->expires};
    }
    skv_status status;
    if (s->kind == BATCH)
        INSIST(status, wait, skv_put_many(store, items, (uint32_t)s->count, &wait));
    else
        INSIST(status, wait, skv_delete_many(store, items, (uint32_t)s->count, &removed, &wait));
    free(values);
    free(items);
    free(texts);
    return status;
}

static skv_status run_step(shop *w, const step *s)
{
    skv *store = w->b.store;
    key_text text;
    skv_key key = key_for(store, s->kind == INCR ? INT_BASE + s->id : s->id, &text);
    skv_status status = SKV_OK;
    int64_t result;
    switch (s->kind) {
    case PUT:
        return put_value(store, s->id, s->counter, s->len, s->expires);
    case DELETE:
        status = delete_id(store, s->id);
        return status == SKV_MISSING ? SKV_OK : status;
    case TOUCH:
        INSIST(status, wait, skv_touch(store, &key, s->expires, NULL, &wait));
        return status;
    case INCR:
        INSIST(status, wait, skv_incr(store, &key, (int64_t)s->counter, (int64_t)s->counter, 0, &result, &wait));
        return status;
    case BATCH:
    case BATCH_DELETE:
        return run_batch(store, s);
    case CLEAR:
        return clear_all(store);
    default:
        s->house(w);
        return SKV_OK;
    }
}

static void add_step(shop *w, step s)
{
    REQUIRE(w->step_count < STEPS, "too many steps");
    w->steps[w->step_count++] = s;
}

/* For the set-up: at once, in this process. */
static void now_step(shop *w, step s)
{
    REQUIRE_OK(run_step(w, &s));
    apply(&w->model, &s);
}

/* ---- What parent and children share --------------------------------------------------------------- */

typedef struct point {
    char name[40];
    _Atomic uint32_t killed;
} point;

typedef struct shared {
    point points[POINTS];
    _Atomic uint32_t point_count, acked, trace_length;
    uint8_t trace[TRACE];
} shared;

static shared *sh;

static uint32_t point_number(const char *name)
{
    for (uint32_t i = 0; i < sh->point_count; i++)
        if (strcmp(sh->points[i].name, name) == 0)
            return i;
    REQUIRE(sh->point_count < POINTS, "more than %u crash points", POINTS);
    snprintf(sh->points[sh->point_count].name, sizeof sh->points->name, "%s", name);
    return sh->point_count++;
}

/* ---- Dying --------------------------------------------------------------------------------------------- */

static uint32_t fatal_point, passes_left;

static void trace_hook(const char *name)
{
    if (sh->trace_length < TRACE)
        sh->trace[sh->trace_length++] = (uint8_t)point_number(name);
}

static void kill_hook(const char *name)
{
    uint32_t number = point_number(name);
    if (number != fatal_point || --passes_left)
        return;
    sh->points[number].killed++;
    kill(getpid(), SIGKILL);
}

static void child_work(void *context)
{
    shop *w = context;
    if (w->alone)
        attach_box(&w->b, false);
    if (w->now)
        skv_set_clock(w->b.store, w->now);
    for (uint32_t i = 0; i < w->step_count; i++) {
        skv_status status = run_step(w, &w->steps[i]);
        REQUIRE(status == SKV_OK, "step %u: status %d", i, (int)status);
        sh->acked++;
    }
    detach_box(&w->b);
}

/* True: it was killed; false: it came to its end. */
static bool work_in_child(shop *w, void (*hook)(const char *))
{
    sh->acked = 0;
    if (w->alone)
        detach_box(&w->b);
    skv_crash_hook = hook;
    pid_t pid = start_child(child_work, w, 20);
    skv_crash_hook = NULL;
    int status = wait_child(pid);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    REQUIRE(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0), "the child ended with status %x", (unsigned)status);
    if (w->alone) {
        attach_box(&w->b, false);
        if (w->now)
            skv_set_clock(w->b.store, w->now);
    }
    return killed;
}

/* For the set-up: a process does these steps and dies at the n-th pass of `name`; `done` = the last step counts. */
static void leave_corpse(shop *w, const char *name, uint32_t nth, const step *steps, uint32_t count, bool done)
{
    shop corpse = *w;
    memcpy(corpse.steps, steps, count * sizeof *steps);
    corpse.step_count = count;
    corpse.alone = false;
    fatal_point = point_number(name);
    passes_left = nth;
    uint32_t before = sh->points[fatal_point].killed;
    REQUIRE(work_in_child(&corpse, kill_hook), "%s is not passed %u times", name, nth);
    sh->points[fatal_point].killed = before;
    for (uint32_t i = 0; i < count && i < sh->acked + done; i++)
        apply(&w->model, &steps[i]);
}

/* ---- Judging ---------------------------------------------------------------------------------------------- */

static bool present(const shop *w, const state *m, uint64_t id)
{
    return m->counter[id] && (m->expires[id] == 0 || w->now == 0 || w->now < m->expires[id]);
}

typedef struct seen { uint64_t counter[IDS], expires[IDS]; bool has_int[INTS]; int64_t ints[INTS]; } seen;

static void look(shop *w, seen *out, found *f)
{
    for (uint64_t id = 0; id < IDS; id++) {
        out->counter[id] = counter_of(w->b.store, id, f);
        out->expires[id] = out->counter[id] ? f->expires_ms : 0;
    }
    for (uint32_t i = 0; i < INTS; i++) {
        out->has_int[i] = get_id(w->b.store, INT_BASE + i, f);
        if (out->has_int[i])
            memcpy(&out->ints[i], f->value, 8);
    }
}

/* The first key at which what was seen is not what the model says; NULL = none. */
static const char *difference(const shop *w, const seen *s, const state *m)
{
    static char text[200];
    for (uint64_t id = 0; id < IDS; id++) {
        uint64_t expected = present(w, m, id) ? m->counter[id] : 0;
        bool same = s->counter[id] == expected && (!expected || s->expires[id] == m->expires[id]);
        if (same || (w->lossy && s->counter[id] == 0))
            continue;
        snprintf(text, sizeof text, "key %" PRIu64 " holds %" PRIu64 " (expires %" PRIu64 "), not %" PRIu64 " (%" PRIu64 ")", id,
                 s->counter[id], s->expires[id], expected, m->expires[id]);
        return text;
    }
    for (uint32_t i = 0; i < INTS; i++)
        if ((s->has_int[i] != m->has_int[i] && !(w->lossy && !s->has_int[i])) || (s->has_int[i] && s->ints[i] != m->ints[i])) {
            snprintf(text, sizeof text, "integer %u is %" PRId64 ", not %" PRId64, i, s->ints[i], m->ints[i]);
            return text;
        }
    return NULL;
}

static void scan_agrees(shop *w, const seen *s)
{
    skv_copies copies = {0};
    uint64_t expected = 0, got = 0;
    for (uint64_t bucket = 0; bucket < skv_bucket_count(w->b.store); bucket++) {
        REQUIRE_OK(skv_copy_bucket(w->b.store, bucket, true, NULL, NULL, &copies));
        for (size_t i = 0; i < copies.count; i++) {
            uint64_t id = id_in_key(copies.bytes + copies.items[i].key_at);
            REQUIRE(id >= IDS || read_value(copies.bytes + copies.items[i].value_at, copies.items[i].value_len, id) == s->counter[id],
                    "a scan shows key %" PRIu64 " otherwise", id);
        }
        got += copies.count;
    }
    for (uint64_t id = 0; id < IDS; id++)
        expected += s->counter[id] != 0;
    for (uint32_t i = 0; i < INTS; i++)
        expected += s->has_int[i];
    REQUIRE(got == expected, "a scan shows %" PRIu64 " items, gets %" PRIu64, got, expected);
    REQUIRE(skv_count_items(w->b.store) == got, "the count is %" PRIu64 ", a scan shows %" PRIu64, skv_count_items(w->b.store), got);
    skv_free_items(&copies);
}

static double timed_step(shop *w, state *m, step s)
{
    double start = now_s();
    skv_status status = run_step(w, &s);
    double took = now_s() - start;
    REQUIRE(status == SKV_OK || (status == SKV_FULL && s.kind != DELETE), "the next operation (kind %d, key %" PRIu64 "): status %d",
            (int)s.kind, s.id, (int)status);
    if (status == SKV_OK)
        apply(m, &s);
    return took;
}

/* The next operations on the keys of the steps; the longest that one took. */
static double go_on(shop *w, state *m)
{
    double longest = 0;
    for (uint32_t i = 0; i < w->step_count; i++) {
        const step *s = &w->steps[i];
        uint64_t first = s->id, count = s->kind == BATCH || s->kind == BATCH_DELETE ? s->count : 1;
        step next = {.kind = PUT, .counter = 900000 + i, .len = 60};
        if (s->kind == HOUSE || s->kind == CLEAR)
            first = 0, count = 30;
        else if (s->kind == INCR)
            next.kind = INCR, next.counter = 5;
        for (next.id = first; next.id < first + count; next.id++) {
            double took = timed_step(w, m, next);
            longest = took > longest ? took : longest;
        }
    }
    double took = timed_step(w, m, (step){.kind = BATCH, .id = 0, .count = 20, .counter = 950000, .len = 50});
    return took > longest ? took : longest;
}

/* What the store holds: all acknowledged steps, and the one in flight (if there is one) as a whole or not at all. */
static state *what_it_holds(shop *w, bool in_flight, found *f)
{
    static state before, after;
    static seen now;
    before = w->model;
    for (uint32_t i = 0; i < sh->acked; i++)
        apply(&before, &w->steps[i]);
    after = before;
    if (in_flight && sh->acked < w->step_count)
        apply(&after, &w->steps[sh->acked]);
    look(w, &now, f);
    scan_agrees(w, &now);
    const char *not_after = difference(w, &now, &after), *not_before;
    if (!not_after)
        return &after;
    char kept[200];
    snprintf(kept, sizeof kept, "%s", not_after);
    not_before = difference(w, &now, &before);
    REQUIRE(!not_before, "after %u steps: neither before (%s) nor after (%s)", (unsigned)sh->acked, not_before, kept);
    return &before;
}

/* Everything that must hold after the child's end; the longest time that an operation took. */
static double judge(shop *w, bool killed)
{
    static seen now;
    found f = {0};
    state *m = what_it_holds(w, killed, &f);
    double longest = go_on(w, m);
    look(w, &now, &f);
    const char *wrong = difference(w, &now, m);
    REQUIRE(!wrong, "after the next operations: %s", wrong);
    scan_agrees(w, &now);
    require_clean(w->b.store);
    require_no_leaks(w->b.store);
    look(w, &now, &f);
    wrong = difference(w, &now, m);
    REQUIRE(!wrong, "after compact(): %s", wrong);
    free(f.value);
    return longest;
}

/* ---- Scenarios ----------------------------------------------------------------------------------------------- */

static void open_shop(shop *w, uint64_t size, uint16_t flags)
{
    memset(w, 0, sizeof *w);
    one_thread = false;
    make_box(&w->b, size, flags);
    w->lossy = (flags & SKV_FLAG_EVICT) != 0;
}

static void preload(shop *w, uint64_t from, uint64_t to, size_t len)
{
    for (uint64_t id = from; id < to; id++)
        now_step(w, (step){.kind = PUT, .id = id, .counter = id + 1, .len = len + id % 40});
}

#define SHARED_PAGES (MIB + 64 * KIB)   /* too small for leases                               */
#define LEASED_PAGES (16 * MIB)

static void puts_of(shop *w, uint64_t size)
{
    open_shop(w, size, 0);
    preload(w, 0, 60, 50);
    add_step(w, (step){.kind = PUT, .id = 100, .counter = 7, .len = 80});              /* new     */
    add_step(w, (step){.kind = PUT, .id = 5, .counter = 8, .len = 500});               /* over    */
    add_step(w, (step){.kind = PUT, .id = 101, .counter = 9, .len = 80, .expires = UINT64_C(1) << 38});
    add_step(w, (step){.kind = DELETE, .id = 6});
    add_step(w, (step){.kind = DELETE, .id = 100});
    add_step(w, (step){.kind = TOUCH, .id = 7, .expires = UINT64_C(1) << 37});         /* a copy  */
    add_step(w, (step){.kind = TOUCH, .id = 7, .expires = UINT64_C(1) << 38});         /* in place */
    add_step(w, (step){.kind = TOUCH, .id = 7, .expires = 0});
    add_step(w, (step){.kind = INCR, .id = 0, .counter = 40});
    add_step(w, (step){.kind = INCR, .id = 0, .counter = 2});
    add_step(w, (step){.kind = PUT, .id = 102, .counter = 9, .len = 30000});
    add_step(w, (step){.kind = DELETE, .id = 102});
}

static void puts_in_shared_pages(shop *w) { puts_of(w, SHARED_PAGES); }
static void puts_in_leased_pages(shop *w) { puts_of(w, LEASED_PAGES); }

static void growth_of_tables(shop *w)
{
    open_shop(w, SHARED_PAGES, 0);
    preload(w, 0, 230, 24);
    for (uint64_t id = 300; id < 330; id++)
        add_step(w, (step){.kind = PUT, .id = id, .counter = id, .len = 24});
}

static void growth_of_region(shop *w)
{
    open_shop(w, 8 * MIB, 0);
    preload(w, 0, 12, 55000);
    for (uint64_t id = 300; id < 312; id++)
        add_step(w, (step){.kind = PUT, .id = id, .counter = id, .len = 60000});
}

static void runs(shop *w)
{
    open_shop(w, 8 * MIB, 0);
    preload(w, 0, 4, 150000);
    add_step(w, (step){.kind = PUT, .id = 1, .counter = 50, .len = 400000});
    add_step(w, (step){.kind = DELETE, .id = 2});
    add_step(w, (step){.kind = PUT, .id = 30, .counter = 51, .len = 1500000});
    add_step(w, (step){.kind = PUT, .id = 30, .counter = 52, .len = 1400000});
    add_step(w, (step){.kind = BATCH, .id = 40, .count = 2, .counter = 53, .len = 200000});
}

static void batches(shop *w)
{
    open_shop(w, SHARED_PAGES, 0);
    preload(w, 0, 200, 30);
    add_step(w, (step){.kind = BATCH, .id = 195, .count = 10, .counter = 70, .len = 40});      /* over and new */
    add_step(w, (step){.kind = BATCH_DELETE, .id = 190, .count = 8});
    add_step(w, (step){.kind = BATCH, .id = 300, .count = 60, .counter = 71, .len = 40, .expires = UINT64_C(1) << 38});
}

static void batches_in_leased_pages(shop *w)
{
    open_shop(w, LEASED_PAGES, 0);
    preload(w, 0, 20, 30);
    add_step(w, (step){.kind = BATCH, .id = 15, .count = 12, .counter = 70, .len = 40});
    add_step(w, (step){.kind = BATCH_DELETE, .id = 10, .count = 8});
}

static void clears(shop *w)
{
    open_shop(w, SHARED_PAGES, 0);
    preload(w, 0, 100, 60);
    now_step(w, (step){.kind = INCR, .id = 1, .counter = 3});
    add_step(w, (step){.kind = CLEAR});
    add_step(w, (step){.kind = PUT, .id = 1, .counter = 2, .len = 60});
    add_step(w, (step){.kind = CLEAR});
}

static void fill_up(shop *w, uint64_t from, uint64_t to, size_t len)
{
    for (uint64_t id = from; id < to; id++) {
        step s = {.kind = PUT, .id = id, .counter = id + 1, .len = len};
        if (run_step(w, &s))
            break;
        apply(&w->model, &s);
    }
}

static void evictions(shop *w)
{
    open_shop(w, SHARED_PAGES, SKV_FLAG_EVICT);
    fill_up(w, 0, 1000, 900);
    for (uint64_t id = 1000; id < 1012; id++)
        add_step(w, (step){.kind = PUT, .id = id, .counter = id, .len = 800});
    add_step(w, (step){.kind = PUT, .id = 1013, .counter = 5, .len = 20000});
}

/* A value larger than a page drops what lies in the way, page by page. */
static void evictions_for_a_run(shop *w)
{
    open_shop(w, 2 * MIB, SKV_FLAG_EVICT);
    fill_up(w, 0, 1000, 1900);
    add_step(w, (step){.kind = PUT, .id = 1012, .counter = 5, .len = 150000});
}

static void sweep_all(shop *w)
{
    skv_status status;
    INSIST(status, wait, skv_sweep_expired(w->b.store, skv_bucket_count(w->b.store), NULL, &wait));
    REQUIRE_OK(status);
}

static void expiries(shop *w)
{
    open_shop(w, SHARED_PAGES, 0);
    w->now = 1000;
    skv_set_clock(w->b.store, w->now);
    preload(w, 0, 50, 60);
    for (uint64_t id = 50; id < 250; id++)
        now_step(w, (step){.kind = PUT, .id = id, .counter = id, .len = 60, .expires = id % 3 ? 2000 : 4000});
    w->now = 3000;
    skv_set_clock(w->b.store, w->now);
    for (uint64_t id = 300; id < 306; id++)
        add_step(w, (step){.kind = PUT, .id = id, .counter = id, .len = 60});
    add_step(w, (step){.kind = PUT, .id = 51, .counter = 77, .len = 60});
    add_step(w, (step){.kind = DELETE, .id = 52});
    add_step(w, (step){.kind = HOUSE, .house = sweep_all});
}

/* A full store of sparse pages: a put of another size has to empty one. */
static void evacuations(shop *w)
{
    open_shop(w, SHARED_PAGES, 0);
    fill_up(w, 0, IDS, 600);
    for (uint64_t id = 0; id < IDS; id++)
        if (id % 8 && w->model.counter[id])
            now_step(w, (step){.kind = DELETE, .id = id});
    for (uint64_t id = 1; id < 8; id++)
        add_step(w, (step){.kind = PUT, .id = id, .counter = 3, .len = 20000});
}

/* Room for a run lies between sparse pages and shorter runs: they move out of its way. */
static void windows(shop *w)
{
    open_shop(w, 4 * MIB, 0);
    fill_up(w, 0, 200, 3000);
    preload(w, 1000, 1003, 100000);
    fill_up(w, 200, 1000, 3000);
    for (uint64_t id = 0; id < 1000; id++)
        if (id % 7 && w->model.counter[id])
            now_step(w, (step){.kind = DELETE, .id = id});
    for (uint64_t id = 1010; id < 1013; id++)
        add_step(w, (step){.kind = PUT, .id = id, .counter = 3, .len = 600000});
    add_step(w, (step){.kind = PUT, .id = 1, .counter = 5, .len = 30000});
}

/* Gaps of a page between runs of five, and one long gap: before a run takes that one, others move together. */
static void joined_gaps(shop *w)
{
    open_shop(w, 4 * MIB, 0);
    for (uint64_t id = 0; id < 16; id++)
        fill_up(w, id, id + 1, id % 2 ? 60000 : 300000);
    fill_up(w, 16, 40, 60000);
    for (uint64_t id = 1; id < 40; id++)
        if ((id % 2 || id == 10) && w->model.counter[id])
            now_step(w, (step){.kind = DELETE, .id = id});
    for (uint64_t id = 50; id < 52; id++)
        add_step(w, (step){.kind = PUT, .id = id, .counter = 3, .len = 300000});
}

static void compact_house(shop *w)
{
    skv_compact_report report;
    REQUIRE_OK(compact_all(w->b.store, &report));
}

static void audit_house(shop *w)
{
    uint64_t freed;
    skv_status status;
    INSIST(status, wait, skv_audit(w->b.store, &freed, &wait));
    REQUIRE_OK(status);
}

static void reclaim_house(shop *w)
{
    uint32_t slots;
    REQUIRE_OK(skv_reclaim_dead(w->b.store, &slots));
}

static void idle_audit_house(shop *w)
{
    uint64_t freed;
    skv_status status;
    INSIST(status, wait, skv_audit(w->b.store, &freed, &wait));
    REQUIRE(status == SKV_OK && freed == 0, "an audit while a block is kept: status %d, %" PRIu64 " freed", (int)status, freed);
}

/* As under the GIL: each overwrite keeps the block that it replaces, for the next one. */
static void overwrites(shop *w)
{
    open_shop(w, LEASED_PAGES, 0);
    one_thread = true;
    preload(w, 0, 40, 50);
    for (uint64_t id = 0; id < 6; id++)
        add_step(w, (step){.kind = PUT, .id = id, .counter = 100 + id, .len = 50 + id % 40});
    add_step(w, (step){.kind = PUT, .id = 7, .counter = 110, .len = 700});             /* another class */
    add_step(w, (step){.kind = PUT, .id = 7, .counter = 111, .len = 700});
    add_step(w, (step){.kind = HOUSE, .house = idle_audit_house});
    add_step(w, (step){.kind = PUT, .id = 7, .counter = 112, .len = 700});
    add_step(w, (step){.kind = INCR, .id = 0, .counter = 40});
    add_step(w, (step){.kind = INCR, .id = 0, .counter = 2});
    add_step(w, (step){.kind = INCR, .id = 0, .counter = 3});
    add_step(w, (step){.kind = PUT, .id = 8, .counter = 113, .len = 30000});
    add_step(w, (step){.kind = PUT, .id = 8, .counter = 114, .len = 30000});
    add_step(w, (step){.kind = DELETE, .id = 7});
}

static void corpse_with_a_spare(shop *w)
{
    step again[] = {{.kind = PUT, .id = 3, .counter = 60, .len = 53}, {.kind = PUT, .id = 4, .counter = 61, .len = 53}};
    overwrites(w);
    leave_corpse(w, "spare.kept", 2, again, 2, true);
    add_step(w, (step){.kind = HOUSE, .house = reclaim_house});
}

static void leave_leaks(shop *w)
{
    const step small = {.kind = PUT, .id = 400, .counter = 1, .len = 60};
    const step large = {.kind = PUT, .id = 401, .counter = 1, .len = 100000};
    const step batch = {.kind = BATCH, .id = 402, .count = 8, .counter = 1, .len = 60};
    leave_corpse(w, "put.written", 1, &small, 1, false);
    leave_corpse(w, "put.written", 1, &large, 1, false);
    leave_corpse(w, "batch.locked", 2, &batch, 1, false);
}

static void compaction(shop *w)
{
    open_shop(w, 8 * MIB, 0);
    w->alone = true;
    preload(w, 0, 1100, 300);
    preload(w, 1100, 1106, 100000);
    leave_leaks(w);
    for (uint64_t id = 0; id < 1106; id++)
        if (id % 4)
            now_step(w, (step){.kind = DELETE, .id = id});
    add_step(w, (step){.kind = HOUSE, .house = compact_house});
    add_step(w, (step){.kind = PUT, .id = 1, .counter = 5, .len = 200000});    /* what was given back */
    add_step(w, (step){.kind = PUT, .id = 2, .counter = 5, .len = 40000});
}

/* Most buckets lose all their items, and so their tables: what is left lies thinly in its pages. */
static void compaction_of_tables(shop *w)
{
    open_shop(w, 64 * MIB, 0);
    w->alone = true;
    preload(w, 0, IDS, 24);
    for (uint64_t id = 0; id < IDS; id++)
        if (id % 10)
            now_step(w, (step){.kind = DELETE, .id = id});
    add_step(w, (step){.kind = HOUSE, .house = compact_house});
}

static void audits(shop *w)
{
    open_shop(w, SHARED_PAGES, 0);
    preload(w, 0, 30, 60);
    leave_leaks(w);
    add_step(w, (step){.kind = HOUSE, .house = audit_house});
    add_step(w, (step){.kind = PUT, .id = 1, .counter = 5, .len = 60});
}

static void reclaims(shop *w)
{
    const step batch = {.kind = BATCH, .id = 10, .count = 12, .counter = 60, .len = 60};
    open_shop(w, LEASED_PAGES, 0);
    preload(w, 0, 30, 60);
    leave_leaks(w);
    leave_corpse(w, "batch.applied", 5, &batch, 1, true);
    add_step(w, (step){.kind = HOUSE, .house = reclaim_house});
}

/* One corpse in the way of the steps; the repairer is killed. */
static void corpse_of(shop *w, const char *name, uint32_t nth, step fatal, bool done)
{
    open_shop(w, SHARED_PAGES, 0);
    preload(w, 0, 60, 50);
    preload(w, 60, 61, 100000);
    leave_corpse(w, name, nth, &fatal, 1, done);
    add_step(w, (step){.kind = PUT, .id = 12, .counter = 80, .len = 70});
    add_step(w, (step){.kind = BATCH, .id = 10, .count = 12, .counter = 81, .len = 70});
    add_step(w, (step){.kind = PUT, .id = 90, .counter = 82, .len = 80000});
    add_step(w, (step){.kind = DELETE, .id = 90});
    add_step(w, (step){.kind = HOUSE, .house = reclaim_house});
}

static const step fatal_batch = {.kind = BATCH, .id = 10, .count = 8, .counter = 60, .len = 60};
static const step fatal_removal = {.kind = BATCH_DELETE, .id = 8, .count = 8};
static const step fatal_put = {.kind = PUT, .id = 12, .counter = 60, .len = 60};
static const step fatal_new = {.kind = PUT, .id = 200, .counter = 60, .len = 5000};
static const step fatal_run = {.kind = PUT, .id = 201, .counter = 60, .len = 150000};

static void corpse_announced(shop *w) { corpse_of(w, "batch.txn_set", 4, fatal_batch, false); }
static void corpse_committed(shop *w) { corpse_of(w, "batch.committed", 1, fatal_batch, true); }
static void corpse_half_applied(shop *w) { corpse_of(w, "batch.txn_cleared", 2, fatal_batch, true); }
static void corpse_doomed(shop *w) { corpse_of(w, "batch.doomed", 1, fatal_removal, false); }
static void corpse_half_removed(shop *w) { corpse_of(w, "batch.applied", 3, fatal_removal, true); }
static void corpse_settled(shop *w) { corpse_of(w, "batch.unlocked", 1, fatal_batch, true); }
static void corpse_clear(shop *w) { corpse_of(w, "clear.applied", 9, (step){.kind = CLEAR}, true); }
static void corpse_put(shop *w) { corpse_of(w, "put.published", 1, fatal_put, true); }
static void corpse_delete(shop *w) { corpse_of(w, "delete.published", 1, (step){.kind = DELETE, .id = 12}, true); }
static void corpse_page(shop *w) { corpse_of(w, "page.taken", 1, fatal_new, false); }
static void corpse_run(shop *w) { corpse_of(w, "run.taken", 1, fatal_run, false); }
static void corpse_tails(shop *w) { corpse_of(w, "run.tails_freed", 1, (step){.kind = DELETE, .id = 60}, true); }

static void corpse_growing(shop *w)
{
    open_shop(w, 8 * MIB, 0);
    preload(w, 0, 12, 55000);
    step steps[12];
    for (uint64_t i = 0; i < 12; i++)
        steps[i] = (step){.kind = PUT, .id = 300 + i, .counter = 1, .len = 60000};
    leave_corpse(w, "grow.pages", 1, steps, 12, false);
    for (uint64_t id = 400; id < 412; id++)
        add_step(w, (step){.kind = PUT, .id = id, .counter = id, .len = 60000});
}

static void corpse_compacting(shop *w)
{
    const step compact = {.kind = HOUSE, .house = compact_house};
    open_shop(w, 8 * MIB, 0);
    preload(w, 0, IDS, 300);
    for (uint64_t id = 0; id < IDS; id++)
        if (id % 4)
            now_step(w, (step){.kind = DELETE, .id = id});
    leave_corpse(w, "evacuate.published", 2, &compact, 1, false);
    add_step(w, compact);
    add_step(w, (step){.kind = PUT, .id = 1, .counter = 5, .len = 300});
}

static void attach_house(shop *w)
{
    box other = {.fd = w->b.fd};
    attach_box(&other, false);
    REQUIRE_OK(put_value(other.store, 3, 4, 50, 0));
    detach_box(&other);
}

static void attaches(shop *w)
{
    open_shop(w, LEASED_PAGES, 0);
    preload(w, 0, 10, 50);
    w->model.counter[3] = 4;
    REQUIRE_OK(put_value(w->b.store, 3, 4, 50, 0));
    w->alone = true;            /* so that the child maps it anew                             */
    add_step(w, (step){.kind = HOUSE, .house = attach_house});
}

typedef struct scenario {
    const char *name;
    void (*set_up)(shop *);
} scenario;

static const scenario scenarios[] = {
    {"puts_in_shared_pages", puts_in_shared_pages},
    {"puts_in_leased_pages", puts_in_leased_pages},
    {"overwrites", overwrites},
    {"corpse_with_a_spare", corpse_with_a_spare},
    {"growth_of_tables", growth_of_tables},
    {"growth_of_region", growth_of_region},
    {"runs", runs},
    {"batches", batches},
    {"batches_in_leased_pages", batches_in_leased_pages},
    {"clears", clears},
    {"evictions", evictions},
    {"evictions_for_a_run", evictions_for_a_run},
    {"expiries", expiries},
    {"evacuations", evacuations},
    {"windows", windows},
    {"joined_gaps", joined_gaps},
    {"compaction", compaction},
    {"compaction_of_tables", compaction_of_tables},
    {"audits", audits},
    {"reclaims", reclaims},
    {"corpse_announced", corpse_announced},
    {"corpse_committed", corpse_committed},
    {"corpse_half_applied", corpse_half_applied},
    {"corpse_doomed", corpse_doomed},
    {"corpse_half_removed", corpse_half_removed},
    {"corpse_settled", corpse_settled},
    {"corpse_clear", corpse_clear},
    {"corpse_put", corpse_put},
    {"corpse_delete", corpse_delete},
    {"corpse_page", corpse_page},
    {"corpse_run", corpse_run},
    {"corpse_tails", corpse_tails},
    {"corpse_growing", corpse_growing},
    {"corpse_compacting", corpse_compacting},
    {"attaches", attaches},
};

/* ---- Running a scenario -------------------------------------------------------------------------------------------- */

static const char *stage = "";

static double run_once(const scenario *s, const char *name, uint32_t nth)
{
    static shop w;
    static char text[120];
    snprintf(text, sizeof text, "%s, killed at %s (%u)", s->name, name ? name : "no point", nth);
    now_testing = stage = text;
    s->set_up(&w);
    if (name) {
        fatal_point = point_number(name);
        passes_left = nth;
    }
    bool killed = work_in_child(&w, name ? kill_hook : trace_hook);
    double longest = judge(&w, killed);
    remove_box(&w.b);
    return longest;
}

static void stop_hook(const char *name)
{
    if (point_number(name) == fatal_point && --passes_left == 0)
        kill(getpid(), SIGSTOP);
}

/* A writer that is stopped anywhere holds up no reader: all keys, a scan and the count are had at once, and are right. */
static void read_past_a_stopped_writer(const scenario *s, const char *name)
{
    static shop w;
    static char text[120];
    found f = {0};
    int status;
    snprintf(text, sizeof text, "%s, stopped at %s", s->name, name);
    now_testing = text;
    s->set_up(&w);
    if (!w.alone) {
        fatal_point = point_number(name);
        passes_left = 1;
        sh->acked = 0;
        skv_crash_hook = stop_hook;
        pid_t pid = start_child(child_work, &w, 30);
        skv_crash_hook = NULL;
        REQUIRE(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "status %x", (unsigned)status);
        double start = now_s();
        what_it_holds(&w, true, &f);
        double took = now_s() - start;
        REQUIRE(took < 1.0 * SLOW, "%u reads and a scan took %.0f ms", IDS, took * 1e3);
        kill(pid, SIGCONT);
        finish_child(pid);
        judge(&w, false);
        free(f.value);
    }
    remove_box(&w.b);
}

/* A machine under load may delay an operation; a protocol that waits does so each time. */
static void try_pass(const scenario *s, const char *name, uint32_t nth)
{
    double longest = 0;
    for (int tries = 0; tries < 4; tries++) {
        longest = run_once(s, name, nth);
        if (longest <= LIMIT_S * SLOW)
            return;
    }
    REQUIRE(longest <= LIMIT_S * SLOW, "an operation took %.0f ms, four times", longest * 1e3);
}

static void run_scenario(const scenario *s)
{
    static uint8_t trace[TRACE];
    uint32_t counts[POINTS] = {0}, done = 0;
    double start = now_s();
    sh->trace_length = 0;
    run_once(s, NULL, 0);
    uint32_t length = sh->trace_length;
    memcpy(trace, sh->trace, sizeof trace);
    for (uint32_t i = 0; i < length; i++)
        counts[trace[i]]++;
    for (uint32_t p = 0; p < POINTS; p++) {
        if (counts[p] && passes > 1)
            read_past_a_stopped_writer(s, sh->points[p].name);
        for (uint32_t nth = 1; nth <= counts[p]; nth++) {
            if (nth > passes && (nth != counts[p] || passes == 1))
                continue;
            try_pass(s, sh->points[p].name, nth);
            done++;
        }
    }
    printf("ok %s: %u points passed, %u kills (%.2f s)\n", s->name, length, done, now_s() - start);
    fflush(stdout);
}

/* ---- Creation --------------------------------------------------------------------------------------------------------- */

typedef struct birth {
    box b;
    skv_params params;
} birth;

static void create_body(void *context)
{
    birth *w = context;
    bool created;
    skv_os_fail_commit(0);
    REQUIRE_OK(skv_region_create(w->b.fd, &w->params, false, &created));
}

static bool create_in_child(birth *w, void (*hook)(const char *))
{
    skv_crash_hook = hook;
    pid_t pid = start_child(create_body, w, 10);
    skv_crash_hook = NULL;
    return WIFSIGNALED(wait_child(pid));
}

/* Killed at any point of its life, a creator leaves an object in which the next one creates the store, or finds it. */
static void creation(void)
{
    uint32_t counts[POINTS] = {0};
    birth w = {.params = params_for(4 * MIB, 0)};
    sh->trace_length = 0;
    open_object(&w.b);
    REQUIRE(!create_in_child(&w, trace_hook), "nobody is killed");
    remove_box(&w.b);
    uint32_t length = sh->trace_length;
    for (uint32_t i = 0; i < length; i++)
        counts[sh->trace[i]]++;
    REQUIRE(length > 0, "creation passes no crash point");
    for (uint32_t p = 0; p < POINTS; p++) {
        if (!counts[p])
            continue;
        bool created;
        skv_fixed fixed;
        now_testing = sh->points[p].name;
        open_object(&w.b);
        fatal_point = p;
        passes_left = 1;
        REQUIRE(create_in_child(&w, kill_hook), "killed");
        double start = now_s();
        skv_status status = skv_region_peek(w.b.fd, 2000, &fixed);
        REQUIRE(status == SKV_OK || status == SKV_MISSING, "status %d", (int)status);
        /* Other parameters: nothing of the first try may shine through. */
        skv_params other = params_for(status == SKV_OK ? 4 * MIB : 6 * MIB, 0);
        REQUIRE_OK(skv_region_create(w.b.fd, &other, false, &created));
        REQUIRE(created == (status == SKV_MISSING), "created anew only where it was not ready");
        REQUIRE(now_s() - start < 1.0 * SLOW, "a dead creator is waited for");
        attach_box(&w.b, false);
        REQUIRE(skv_fixed_of(w.b.store)->size == other.size, "of the size that was asked for last");
        REQUIRE_OK(put_value(w.b.store, 1, 1, 50, 0));
        require_no_leaks(w.b.store);
        remove_box(&w.b);
    }
    printf("ok creation\n");
}

/* test_crash SEED PASSES [SCENARIO...] */
int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        passes = (uint32_t)strtoul(argv[2], NULL, 10);
    bool half = passes == 0;    /* the seed says which                                        */
    passes += half;
    alarm(170 * SLOW);
    sh = share(sizeof *sh);
    for (uint32_t i = 0; i < COUNT(scenarios); i++) {
        bool chosen = argc < 4 && !(half && (seed + i) % 2);
        for (int k = 3; k < argc; k++)
            chosen = chosen || strstr(scenarios[i].name, argv[k]);
        if (chosen)
            run_scenario(&scenarios[i]);
    }
    if (argc < 4 || strcmp(argv[3], "creation") == 0)
        creation();
    for (uint32_t i = 0; i < sh->point_count; i++)
        printf("killed %s %u\n", sh->points[i].name, (unsigned)sh->points[i].killed);
    return 0;
}
