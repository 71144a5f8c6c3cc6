/* every_instruction.c: a process is killed after each single instruction of an operation.
 *
 * What: for each scene (scenes.h: an operation, in a store prepared for it) a worker executes the operation one
 *       instruction at a time (stepper.h) and dies after the first, the second, ... the last.  After each death another
 *       process asks:
 *       1 is every acknowledged value there, and the operation in flight there as a whole or not at all; and once it
 *         was there, is it there after every later death as well, before and after each repair?
 *       2 does each next operation on the same keys succeed within 100 ms?
 *       3 is the store clean, did no more leak than the operation itself had allocated, and does compact() get all
 *         back?
 *       2 comes before 3, or after it: a check that is made first sees what the next put would have covered.
 * How:  What survives a process is the bytes of the region, the object's size, and which part of it is memory.  All
 *       else that could matter (descriptors, the locks on its liveness byte and on the "attached" byte, mappings, a
 *       wait on a futex) goes with it.  So a copy of the bytes into an object of the same size, which nobody is
 *       attached to, is the region as a death of all its users at this instant leaves it; an *image* for short.  It
 *       differs from the death of the worker alone in one thing: the neighbour, an idle process, is dead in it as well.
 *       1 Images: the operation is stepped through once.  Whenever the region's bytes have changed, an image is judged
 *         by a process that attaches to it.  An instruction that changes none leaves what the one before it left.
 *         What is allocated beyond the committed pages is not copied: an image has a hole there, as before it was
 *         allocated; the deaths below leave it allocated.
 *       2 Deaths: for each instruction (or each STRIDE-th from FIRST on) the store is prepared anew, a new worker goes
 *         up to it and is killed with SIGKILL, and the neighbour judges the region.  Before that, its bytes must be
 *         those of one of the images, apart from process and thread ids: so the images are what deaths leave.
 *       Comparing all bytes after each instruction would take five times as long as the instruction, so only those are
 *         compared that a rehearsal changed, and all but the pages of data.  Whatever is missed by that is found by 2.
 *       Each death has a process of its own that is born from the same parent, so that heaps are alike and the n-th
 *       instruction is the same in all of them.  Nothing depends on that: a worker that comes to its end earlier dies
 *       there, and the end is told by a flag in shared memory.
 *
 * Concurrency: one worker at a time, which stands still while it is looked at; see every_instruction.h.
 *
 * usage: every_instruction list | every_instruction SCENE|all FIRST STRIDE      (STRIDE 0: images only)
 */
#include "evacuate.h"
#include "gather.h"
#include "images.h"
#include "scenes.h"

static char death[160];                 /* for messages                                       */

/* ---- The worker ----------------------------------------------------------------------------- */

typedef struct worker {
    const deed *deed;
    const uint64_t *ids;
    uint32_t warm_puts;
    int fd;
    skv_region *region;
    skv *store;
    skv_item items[BATCH];
    key_text texts[BATCH];
    uint32_t page;
} worker;

static void prepare_items(worker *w)
{
    const deed *d = w->deed;
    for (uint32_t i = 0; i < d->count; i++) {
        uint8_t *value = malloc(d->len + 1);
        REQUIRE(value, "no memory");
        if (d->len)
            make_value(value, w->ids[i], d->counter, d->len);
        w->items[i] = (skv_item){.key = key_for(w->store, w->ids[i], &w->texts[i]), .value = value, .value_len = d->len,
                                 .type = SKV_T_BYTES};
    }
}

static void prepare_worker(worker *w)
{
    if (w->deed->kind == ATTACH || w->deed->kind == CREATE)
        return;
    REQUIRE_OK(skv_region_attach(w->fd, false, &w->region));
    w->store = skv_region_store(w->region);
    for (uint32_t i = 0; i < w->warm_puts; i++)
        REQUIRE_OK(put_value(w->store, WARM_ID, 1 + i, w->deed->len, 0));
    prepare_items(w);
    if (w->deed->kind == EVACUATE)
        REQUIRE(skv_sparsest_page(w->store, &w->page), "no page can be emptied");
}

static skv_status evacuate(worker *w)
{
    skv_wait wait = patient();
    skv_evacuation result = {0};
    return skv_evacuate_page(w->store, w->page, SKV_INTO_GAPS, &result, &wait) && result.moved ? SKV_OK : SKV_FULL;
}

static skv_status create(worker *w)
{
    bool created;
    skv_status status = skv_region_create(w->fd, &sh->params, false, &created);
    return status == SKV_OK && !created ? SKV_BUSY : status;
}

/* Everything in here is stepped. */
static skv_status act(worker *w)
{
    skv_status status = SKV_OK;
    skv_compact_report report;
    uint32_t count;
    switch (w->deed->kind) {
    case PUT:
        INSIST(status, wait, skv_put(w->store, &w->items[0], SKV_PUT_ANY, 0, &wait));
        return status;
    case DELETE:
        INSIST(status, wait, skv_delete(w->store, &w->items[0].key, 0, &wait));
        return status;
    case PUT_MANY:
        INSIST(status, wait, skv_put_many(w->store, w->items, w->deed->count, &wait));
        return status;
    case DELETE_MANY:
        INSIST(status, wait, skv_delete_many(w->store, w->items, w->deed->count, &count, &wait));
        return status;
    case CLEAR:
        INSIST(status, wait, skv_clear(w->store, &wait));
        return status;
    case COMPACT:
        INSIST(status, wait, skv_compact(w->store, &report, &wait));
        return status;
    case EVACUATE:
        return evacuate(w);
    case ATTACH:
        return skv_region_attach(w->fd, false, &w->region);
    case DETACH:
        skv_region_detach(w->region);
        return SKV_OK;
    case CREATE:
        return create(w);
    case RECLAIM:
        return skv_reclaim_dead(w->store, &count);
    default:
        return SKV_OK;
    }
}

static void work(void *context)
{
    worker *w = context;
    prepare_worker(w);
    be_stepped();
    sh->begun = 1;
    skv_status status = act(w);
    REQUIRE(status == SKV_OK, "the operation: status %d", (int)status);
    sh->acked = 1;
    _exit(0);
}

/* Stands before the first instruction of the operation. */
static stepper start_worker(const deed *d, const uint64_t *ids, uint32_t warm_puts, int fd, unsigned seconds)
{
    static worker w;
    w = (worker){.deed = d, .ids = ids, .warm_puts = warm_puts, .fd = fd};
    sh->begun = sh->acked = 0;
    stepper s = start_stepped(work, &w, seconds);
    for (uint32_t i = 0; !sh->begun; i++)
        REQUIRE(i < 100000 && step(&s), "the worker does not begin");
    return s;
}

/* ---- Judging -------------------------------------------------------------------------------- */

/* The first key that holds something else than the model says; IDS = none. */
static uint32_t difference(skv *store, const model *m, uint64_t *holds)
{
    found f = {0};
    uint32_t id = 0;
    while (id < IDS && (*holds = counter_of(store, id, &f)) == m->counter[id])
        id++;
    free(f.value);
    return id;
}

static void require_holds(skv *store, const model *m, const char *when)
{
    uint64_t holds;
    uint32_t id = difference(store, m, &holds);
    REQUIRE(id == IDS, "%s, key %u holds %" PRIu64 ", not %" PRIu64, when, id, holds, m->counter[id]);
}

static void require_scan(skv *store, const model *m)
{
    skv_copies copies = {0};
    uint64_t expected = 0, got = 0;
    for (uint64_t bucket = 0; bucket < skv_bucket_count(store); bucket++) {
        REQUIRE_OK(skv_copy_bucket(store, bucket, true, NULL, NULL, &copies));
        for (size_t i = 0; i < copies.count; i++) {
            const skv_copied *item = &copies.items[i];
            uint64_t id = id_in_key(copies.bytes + item->key_at);
            uint64_t counter = read_value(copies.bytes + item->value_at, item->value_len, id);
            REQUIRE(id >= IDS || counter == m->counter[id], "a scan shows key %" PRIu64 " with %" PRIu64, id, counter);
            got += id < IDS;
        }
    }
    for (uint32_t id = 0; id < IDS; id++)
        expected += m->counter[id] != 0;
    REQUIRE(got == expected, "a scan shows %" PRIu64 " items, not %" PRIu64, got, expected);
    skv_free_items(&copies);
}

/* What the store holds, as a model: the operation's effect as a whole, or not at all. */
static model verdict(skv *store, bool acked, bool *after)
{
    model before = sh->model, changed = sh->model;
    uint64_t holds_now, holds_before;
    apply(&changed, &now->deed, sh->ids);
    uint32_t not_after = difference(store, &changed, &holds_now);
    uint32_t not_before = difference(store, &before, &holds_before);
    *after = not_after == IDS;
    if (*after)
        return changed;
    REQUIRE(!acked, "acknowledged, but key %u holds %" PRIu64, not_after, holds_now);
    REQUIRE(not_before == IDS, "neither as before (key %u holds %" PRIu64 ") nor as after (key %u holds %" PRIu64 ")",
            not_before, holds_before, not_after, holds_now);
    return before;
}

static double longest(double a, double b) { return a > b ? a : b; }

static double timed_put(skv *store, uint64_t id, uint64_t counter)
{
    double start = now_s();
    REQUIRE_OK(put_value(store, id, counter, 52, 0));      /* of the size class of most others */
    return now_s() - start;
}

static double timed_batch(skv *store, const deed *d)
{
    worker w = {.deed = d, .ids = sh->touched, .store = store};
    double start = now_s();
    prepare_items(&w);
    REQUIRE_OK(act(&w));
    double took = now_s() - start;
    for (uint32_t i = 0; i < d->count; i++)
        free((void *)(uintptr_t)w.items[i].value);
    return took;
}

static uint64_t seq_before(const skv *store, const skv_bucket *bucket)
{
    uint64_t offset = (uint64_t)((const uint8_t *)bucket - store->base);
    return skv_load(&((const skv_bucket *)(const void *)(sh->start.bytes + offset))->seq);
}

/* A reader that began before the change must not validate after the repair: its counter has moved on for the change,
 * and once more for the put that came last. */
static void require_bumps(skv *store, uint64_t id)
{
    key_text text;
    skv_key key = key_for(store, id, &text);
    skv_bucket *bucket = skv_bucket_of(store, key.hash);
    for (uint32_t i = 0; i < now->deed.count; i++)
        REQUIRE(sh->ids[i] != id || skv_load(&bucket->seq) >= seq_before(store, bucket) + 2,
                "key %" PRIu64 " was changed without a bump", id);
}

/* The next operations on the same keys.  Keys that none of them has touched yet stay as they were: what a repair of
 * one bucket makes of the others shows here. */
static double go_on(skv *store, model *m, bool after)
{
    double worst = 0;
    uint32_t batch = sh->touched_count < BATCH ? sh->touched_count : BATCH;
    for (uint32_t i = 0; i < sh->touched_count; i++) {
        uint64_t id = sh->touched[i];
        worst = longest(worst, timed_put(store, id, 900000 + i));
        m->counter[id] = 900000 + i;
        if (after)
            require_bumps(store, id);
        require_holds(store, m, "after the next put");
    }
    const deed many = {.kind = PUT_MANY, .count = batch, .counter = 950000, .len = 52};
    const deed none = {.kind = DELETE_MANY, .count = batch / 2};
    worst = longest(worst, timed_batch(store, &many));
    apply(m, &many, sh->touched);
    worst = longest(worst, timed_batch(store, &none));
    apply(m, &none, sh->touched);
    require_holds(store, m, "after the next batches");
    for (uint32_t i = 0; i < none.count; i++) {
        worst = longest(worst, timed_put(store, sh->touched[i], 960000 + i));
        m->counter[sh->touched[i]] = 960000 + i;
    }
    return worst;
}

typedef struct leaks {
    skv *store;
    skv_names names;
    uint32_t family, leaked[2];
} leaks;

static bool note_leak(void *context, uint64_t offset, uint32_t size)
{
    leaks *all = context;
    (void)size;
    all->leaked[all->family] += !skv_is_named(all->store, &all->names, offset);
    return true;
}

static void require_few_leaks(skv *store)
{
    leaks all = {.store = store};
    REQUIRE(skv_names_collect(store, &all.names), "no memory");
    for (uint32_t page = 0; page < skv_committed_pages(store); page++) {
        uint64_t word = skv_load(&store->pages[page].word);
        all.family = skv_pw_family(word) == SKV_TABLES;
        if (skv_pw_state(word) == SKV_PAGE_BLOCKS)
            skv_page_walk(store, page, skv_pw_class(word), note_leak, &all);
        else if (skv_pw_state(word) == SKV_PAGE_RUN)
            note_leak(&all, skv_page_start(store, page), 0);
    }
    free(all.names.bits);
    REQUIRE(all.leaked[SKV_RECORDS] <= now->records, "%u records leaked", all.leaked[SKV_RECORDS]);
    REQUIRE(all.leaked[SKV_TABLES] <= now->tables, "%u tables or intents leaked", all.leaked[SKV_TABLES]);
    if (all.leaked[SKV_RECORDS] + all.leaked[SKV_TABLES] > sh->leaked)
        sh->leaked = all.leaked[SKV_RECORDS] + all.leaked[SKV_TABLES];
}

/* compact() gets everything back: what is in use then is the items and their tables, in pages that nobody keeps. */
static void require_all_got_back(skv *store)
{
    skv_check_result result;
    require_no_leaks(store);
    skv_check(store, print_problem, NULL, &result);
    REQUIRE(result.blocks_used == result.records + result.tables,
            "%" PRIu64 " blocks in use for %" PRIu64 " records and %" PRIu64 " tables", result.blocks_used,
            result.records, result.tables);
    for (uint32_t page = 0; page < skv_committed_pages(store); page++) {
        uint64_t word = skv_load(&store->pages[page].word);
        REQUIRE(skv_pw_state(word) != SKV_PAGE_BLOCKS || skv_pw_owner(word) == 0,
                "page %u is kept by process slot %u", page, skv_pw_owner(word) - 1);
    }
}

/* A block that a row keeps is in use: otherwise somebody else gets it too. */
static void require_spares(skv *store)
{
    for (uint32_t slot = 0; slot < ROWS; slot++) {
        uint64_t spare = skv_load(&store->procs[slot].spare);
        REQUIRE(spare == 0 || skv_block_in_use(store, spare), "process slot %u keeps a block that is free", slot);
    }
}

static void require_sound(skv *store, const model *m)
{
    require_clean(store);
    require_spares(store);
    REQUIRE(skv_load(&store->header->auditing) == 0, "an audit goes on, but nobody makes one");
    require_holds(store, m, "after check()");
    require_few_leaks(store);
}

/* Everything that must hold after the death; the longest time that an operation took. */
static double judge(skv *store, bool acked, bool check_first, bool *after)
{
    double start = now_s();
    model m = verdict(store, acked, after);
    require_scan(store, &m);
    double worst = now_s() - start;
    if (check_first)
        require_sound(store, &m);
    worst = longest(worst, go_on(store, &m, *after));
    require_sound(store, &m);
    require_all_got_back(store);
    require_holds(store, &m, "after compact()");
    require_scan(store, &m);
    return worst;
}

/* After a creator's death: as Store() does it, the next one waits until it is ready, or creates it anew. */
static double judge_creation(int fd, bool acked, bool *after)
{
    skv_fixed fixed;
    skv_params other = sh->params;
    skv_region *region;
    bool created = false;
    double start = now_s();
    skv_status status = skv_region_peek(fd, 2000, &fixed);
    *after = status == SKV_OK;
    REQUIRE(status == SKV_OK || (status == SKV_MISSING && !acked), "peek: status %d", (int)status);
    other.size += *after ? 0 : MIB;             /* nothing of the first try may shine through */
    if (!*after)
        REQUIRE_OK(skv_region_create(fd, &other, false, &created));
    REQUIRE(*after || created, "it is not created anew");
    REQUIRE_OK(skv_region_attach(fd, false, &region));
    skv *store = skv_region_store(region);
    REQUIRE(skv_fixed_of(store)->size == other.size, "%" PRIu64 " bytes", skv_fixed_of(store)->size);
    REQUIRE_OK(put_value(store, 1, 1, 50, 0));
    double worst = now_s() - start;
    require_clean(store);
    require_few_leaks(store);
    require_all_got_back(store);
    skv_region_detach(region);
    return worst;
}

static double judge_as_newcomer(int fd, bool acked, bool check_first, bool *after)
{
    skv_region *region;
    if (now->deed.kind == CREATE)
        return judge_creation(fd, acked, after);
    double start = now_s();
    REQUIRE_OK(skv_region_attach(fd, false, &region));
    double worst = now_s() - start;
    worst = longest(worst, judge(skv_region_store(region), acked, check_first, after));
    skv_region_detach(region);
    return worst;
}

/* ---- Images of all instructions ------------------------------------------------------------- */

static void name_death(const char *how, uint64_t instruction, uint64_t place)
{
    snprintf(death, sizeof death, "%s, %s after instruction %" PRIu64 " (next: +0x%" PRIx64 ")", now->name, how,
             instruction, in_program(place));
    now_testing = death;
}

static void judge_image(const image *from, bool acked)
{
    static bool was_there;
    bool after = false;
    double took = LIMIT_S + 1;
    alarm(TRIAL_S);
    for (uint32_t tries = 0; tries < 2 || (tries < TRIES && took > LIMIT_S); tries++) {
        int fd = object_from(from);
        double time = judge_as_newcomer(fd, acked, tries % 2, &after);
        took = time < took ? time : took;
        close(fd);
    }
    REQUIRE(took <= LIMIT_S, "the next operation took %.0f ms, %u times", took * 1e3, TRIES);
    REQUIRE(after || !was_there, "what had been there is gone");
    was_there = after;
    sh->longest_s = longest(sh->longest_s, took);
    sh->judged++;
}

/* How often a place has been asked for before. */
static uint32_t count_visit(uint64_t place)
{
    static struct { uint64_t place; uint32_t visits; } table[1 << 16];
    uint64_t i = mix64(place) % COUNT(table);
    for (uint32_t tries = 0; table[i].place && table[i].place != place; tries++, i = (i + 1) % COUNT(table))
        REQUIRE(tries < COUNT(table) / 2, "too many places");
    table[i].place = place;
    return table[i].visits++;
}

static void note_place(const stepper *s)
{
    uint64_t n = sh->instructions;
    REQUIRE(n < STEPS, "more than %u instructions", STEPS);
    sh->places[n] = place_of(s);
    sh->visits[n] = count_visit(sh->places[n]);
}

static void note_state(int fd, const uint8_t *region, image *last)
{
    REQUIRE(sh->state_count < STATES, "more than %u states", STATES);
    take_image(fd, region, last);
    sh->states[sh->state_count++] = state_of(fd, region);
    name_death("image", sh->instructions, sh->places[sh->instructions]);
    judge_image(last, sh->acked);
}

static void walk(stepper *s, int fd)
{
    static image last;
    const uint8_t *region = look_into(fd);
    sh->instructions = 0;
    note_place(s);
    note_state(fd, region, &last);
    while (!sh->acked) {
        bool goes_on = step(s);
        sh->instructions++;
        note_place(s);
        REQUIRE(goes_on, "it ended without a word");
        if (sh->acked || differs(fd, region, &last))
            note_state(fd, region, &last);
    }
    munmap((void *)(uintptr_t)region, sh->fixed.size);
}

/* A neighbour is attached from before the first to after the last instruction, and does nothing. */
static skv_region *be_neighbour(int fd)
{
    skv_region *region = NULL;
    if (now->deed.kind != CREATE)
        REQUIRE_OK(skv_region_attach(fd, false, &region));
    return region;
}

static void leave(skv_region *region)
{
    if (region)
        skv_region_detach(region);
}

/* The whole operation at full speed, to see what it changes. */
static void rehearse(uint64_t unused)
{
    (void)unused;
    int fd = object_from(&sh->start);
    stepper s = start_worker(&now->deed, sh->ids, now->warm_puts, fd, TRIAL_S);
    skv_region *neighbour = be_neighbour(fd);
    const uint8_t *region = look_into(fd);
    static image before;
    take_image(fd, region, &before);
    name_death("rehearsed", 0, 0);
    while (resume(&s, PTRACE_CONT))
        continue;
    REQUIRE(sh->acked, "it ended without a word");
    note_hot(region, &before);
    leave(neighbour);
}

static void walk_trial(uint64_t unused)
{
    (void)unused;
    int fd = object_from(&sh->start);
    stepper s = start_worker(&now->deed, sh->ids, now->warm_puts, fd, 600);
    skv_region *neighbour = be_neighbour(fd);
    walk(&s, fd);
    kill_stepped(&s);
    leave(neighbour);
}

/* ---- Real deaths ---------------------------------------------------------------------------- */

static bool is_known_state(int fd)
{
    const uint8_t *region = look_into(fd);
    uint64_t state = state_of(fd, region);
    munmap((void *)(uintptr_t)region, sh->fixed.size);
    for (uint64_t i = 0; i < sh->state_count; i++)
        if (sh->states[i] == state)
            return true;
    return false;
}

static bool is_memory(const uint8_t *start, uint64_t len)
{
    unsigned char there[IMAGE_ROOM / CHUNK];
    uint64_t chunks = (len + CHUNK - 1) / CHUNK;
    if (len == 0)
        return true;
    REQUIRE(chunks <= sizeof there && mincore((void *)(uintptr_t)start, len, there) == 0, "mincore: %s",
            strerror(errno));
    for (uint64_t i = 0; i < chunks; i++)
        if (!(there[i] & 1))
            return false;
    return true;
}

/* Nothing below the committed pages is a hole: touching one is SIGBUS when the file system is full. */
static void require_memory(int fd)
{
    const uint8_t *region = look_into(fd);
    extent is = measure(fd, region);
    if (is.object_size >= sh->fixed.size && skv_load(&((const skv_header *)(const void *)region)->state) == SKV_READY)
        REQUIRE(is_memory(region, is.head_len) && is_memory(region + sh->fixed.pages_offset, is.pages_len),
                "a committed page is a hole");
    munmap((void *)(uintptr_t)region, sh->fixed.size);
}

/* From which instruction on it is cheapest to step: reaching a place costs about as much for each earlier visit as one
 * step and a half. */
static uint64_t start_of_steps(uint64_t instruction)
{
    uint64_t best = instruction, least = UINT64_MAX;
    for (uint64_t back = 0; back <= instruction && 2 * back < least; back++) {
        uint64_t cost = 2 * back + 3 * (uint64_t)sh->visits[instruction - back];
        if (cost < least) {
            least = cost;
            best = instruction - back;
        }
    }
    return best;
}

/* A worker that comes to its end on the way, as the number of its instructions is not quite the same each time, dies
 * there. */
static void go_to(stepper *s, uint64_t instruction)
{
    uint64_t from = start_of_steps(instruction);
    bool there = run_to(s, sh->places[from], sh->visits[from]);
    for (uint64_t i = from; i < instruction && there && !sh->acked; i++)
        there = step(s);
    sh->drifted += !there || place_of(s) != sh->places[instruction];
}

static void death_trial(uint64_t instruction)
{
    int fd = object_from(&sh->start);
    stepper s = start_worker(&now->deed, sh->ids, now->warm_puts, fd, TRIAL_S);
    skv_region *neighbour = be_neighbour(fd);
    bool after;
    name_death("killed", instruction, sh->places[instruction]);
    go_to(&s, instruction);
    kill_stepped(&s);
    require_memory(fd);
    REQUIRE(is_known_state(fd), "the death left what no image shows");
    double took = neighbour ? judge(skv_region_store(neighbour), sh->acked, instruction % 2, &after)
                            : judge_creation(fd, sh->acked, &after);
    if (took > LIMIT_S)
        _exit(EXIT_SLOW);
    sh->longest_s = longest(sh->longest_s, took);
    leave(neighbour);
}

/* ---- Running a scene ------------------------------------------------------------------------ */

static void leave_corpse(int fd)
{
    skv_region *region;
    stepper s = start_worker(&now->corpse, sh->corpse_ids, now->warm_puts, fd, TRIAL_S);
    REQUIRE_OK(skv_region_attach(fd, false, &region));
    while (!now->fatal(skv_region_store(region)))
        REQUIRE(step(&s) && !sh->acked, "the corpse lives");
    kill_stepped(&s);
    skv_region_detach(region);
    if (now->corpse_counts)
        apply(&sh->model, &now->corpse, sh->corpse_ids);
}

/* The keys of the deed and of the corpse, each once; for housekeeping all that are there. */
static void choose_touched(void)
{
    bool chosen[IDS] = {false};
    for (uint32_t i = 0; i < now->deed.count; i++)
        chosen[sh->ids[i]] = true;
    for (uint32_t i = 0; i < now->corpse.count; i++)
        chosen[sh->corpse_ids[i]] = true;
    sh->touched_count = 0;
    for (uint32_t id = 0; id < IDS; id++)
        if (chosen[id] || (now->deed.count + now->corpse.count == 0 && sh->model.counter[id]))
            sh->touched[sh->touched_count++] = id;
}

static void prepare_trial(uint64_t unused)
{
    (void)unused;
    int fd = new_object();
    skv_region *region;
    bool created;
    snprintf(death, sizeof death, "%s, in preparation", now->name);
    now_testing = death;
    if (now->deed.kind != CREATE) {
        REQUIRE_OK(skv_region_create(fd, &sh->params, false, &created));
        REQUIRE_OK(skv_region_attach(fd, false, &region));
        now->furnish(skv_region_store(region));
        skv_region_detach(region);
        if (now->fatal)
            leave_corpse(fd);
    }
    choose_touched();
    take_image(fd, look_into(fd), &sh->start);
}

static void hang(int unused)
{
    (void)unused;
    static const char text[] = ": it hangs\n";
    (void)!write(2, now_testing, strlen(now_testing));
    (void)!write(2, text, sizeof text - 1);
    _exit(1);
}

/* Runs it in a process of its own, so that all that it leaves behind is gone.  False: it was slow. */
static bool try_trial(void (*trial)(uint64_t), uint64_t instruction)
{
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        signal(SIGALRM, hang);
        alarm(TRIAL_S);
        share_one_processor();
        one_thread = now->gil;
        trial(instruction);
        _exit(0);
    }
    int status = wait_child(pid);
    bool slow = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SLOW;
    if (slow || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
        return !slow;
    fprintf(stderr,
            "%s: the trial ended with status %x; to see it again: every_instruction %s %" PRIu64 " 1000000000\n",
            now->name, (unsigned)status, now->name, instruction);
    exit(1);
}

static void run_trial(void (*trial)(uint64_t), uint64_t instruction)
{
    for (uint32_t tries = 0; tries < TRIES; tries++)
        if (try_trial(trial, instruction))
            return;
    fprintf(stderr, "%s, killed after instruction %" PRIu64 ": an operation took more than %.0f ms, %u times\n",
            now->name, instruction, LIMIT_S * 1e3, TRIES);
    exit(1);
}

static void run_scene(uint64_t first, uint64_t stride)
{
    uint64_t kills = 0;
    double start = now_s();
    memset(sh, 0, sizeof *sh);
    sh->params = params_for(now->size, 0);
    REQUIRE_OK(skv_plan(&sh->params, &sh->fixed));
    run_trial(prepare_trial, 0);
    run_trial(rehearse, 0);
    run_trial(walk_trial, 0);
    double walked = now_s();
    for (uint64_t i = first; stride && i <= sh->instructions; i += stride, kills++)
        run_trial(death_trial, i);
    printf("%s instructions %" PRIu64 " images %" PRIu64 " kills %" PRIu64 " drifted %" PRIu64
           " longest_recovery_ms %.3f largest_leak %u image_seconds %.1f kill_seconds %.1f\n",
           now->name, sh->instructions, sh->judged, kills, sh->drifted, sh->longest_s * 1e3, sh->leaked, walked - start,
           now_s() - walked);
    fflush(stdout);
}

/* The C library's copies shall go on by single stores.  Its other way is one instruction that repeats itself: a step
 * for each byte, and so tens of thousands of deaths in a block that nothing names yet. */
static void copy_by_stores(char **argv)
{
    static const char name[] = "GLIBC_TUNABLES";
    if (getenv(name))
        return;
    setenv(name, "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824", 1);
    execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    copy_by_stores(argv);
    const char *reason = why_no_steps();
    bool list = argc == 2 && strcmp(argv[1], "list") == 0;
    if (reason) {
        printf("%s\n", reason);
        return EXIT_SKIP;
    }
    REQUIRE(list || argc == 4, "usage: every_instruction list | every_instruction SCENE FIRST STRIDE");
    sh = share(sizeof *sh);
    for (uint32_t i = 0; i < COUNT(scenes); i++) {
        now = &scenes[i];
        if (list)
            printf("%s\n", now->name);
        else if (strcmp(now->name, argv[1]) == 0 || strcmp(argv[1], "all") == 0)
            run_scene(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    }
    return 0;
}
