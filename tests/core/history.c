/* history.c: records what several processes ask of one store at once, and what they are answered.
 *
 * What: histories of 200 operations on a few keys, for a checker (tests/checker.py) that looks for an order in which
 *       one process alone could have got the same answers.
 * How:  clients, threads of several processes, draw an operation, note it in shared memory, note the time, call the
 *       store, note the answer and the time again.  Time is a number that all add to: two processors' clocks need not
 *       agree to the nanosecond, and a load may overtake the reading of a clock, but not an atomic addition.
 *       Real overlap on few processors comes from pauses inside the operations: at crash points, which are passed under
 *       locks and between any two steps of a commit, and between the steps of a read.  At a crash point a process may
 *       also die.  Its last operation then has no answer, and others take its place.  Beside them runs a keeper, who
 *       compacts, audits and reclaims, and everybody moves unrecorded items about, so that tables grow and pages empty.
 *
 * Run:  history SEED COUNT; prints each history as a line "history SEED", then for each operation a line
 *           CLIENT BEGIN END KIND STATUS ARGUMENT KEYS WRITTEN READ VERSIONS
 *       in which END is 0 if there was no answer, lists are joined by commas, "-" is an empty one; then "end".
 */
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include "util.h"

#define OPERATIONS  200u
#define PROCESSES   3u
#define THREADS     2u          /* clients of a process, at most                               */
#define LIVES       8u          /* processes of a history, with those that replace the dead    */
#define MOST_KEYS   5u
#define BATCH       3u
#define FILLERS     150u
#define KEY_APART   1000u       /* keys of two histories lie in other places                   */

enum kind { GET, PUT, ADD, REPLACE, CAS, DELETE, DELETE_IF, INCR, PUT_MANY, GET_MANY, DELETE_MANY, SCAN, CLEAR, KINDS };

static const char *const kind_names[KINDS] = {
    "get", "put", "add", "replace", "cas", "delete", "delete_if", "incr", "put_many", "get_many",
    "delete_many", "scan", "clear"};

/* How often each is drawn, of 100; and in histories whose pauses are at a few places. */
static const uint32_t shares[2][KINDS] = {{22, 12, 7, 4, 10, 9, 4, 9, 8, 9, 3, 2, 1},
                                          {32, 24, 2, 2, 4, 4, 1, 5, 3, 20, 1, 1, 1}};

typedef struct event {
    _Atomic uint64_t begin, end;        /* 0 = not yet                                         */
    uint32_t client, kind, count;
    uint64_t argument;                  /* cas, delete_if: the version; delete_many: answered, how many there were */
    uint32_t keys[MOST_KEYS];
    uint64_t written[MOST_KEYS];
    skv_status status;
    uint64_t read[MOST_KEYS], versions[MOST_KEYS];
} event;

typedef struct shared {
    event events[OPERATIONS];
    _Atomic uint64_t time, nonce;
    _Atomic uint32_t next, ready;
    _Atomic bool go, stop;
} shared;

typedef struct plan {           /* of one history                                              */
    uint32_t keys;              /* the first `single` of them are never in a batch             */
    uint32_t single;
    uint64_t first_id;
    bool with_batches, with_clear, with_fillers;
    uint64_t focus;             /* 0: pauses are anywhere; else they are long, and at a few places only */
} plan;

static shared *sh;
static box b;
static plan p;

/* ---- Pauses and deaths --------------------------------------------------------------------------- */

static _Thread_local rng pause_rng;
static _Thread_local uint32_t haste;    /* of 60 passes, so many are without a pause           */
static _Thread_local bool quick;        /* where pauses are at a few places: this operation has none */

/* Some are slow throughout, so that many others come and go while they are in the middle of something. */
static void draw_temper(uint64_t x)
{
    static const uint32_t tempers[] = {59, 59, 46, 30};
    pause_rng.x = x;
    haste = tempers[below(&pause_rng, COUNT(tempers))];
}

/* One crash point in six, and every other step of a read. */
static bool in_focus(const char *place)
{
    uint64_t x = p.focus, one_in = strncmp(place, "read.", 5) == 0 ? 2 : 6;
    for (; *place; place++)
        x = mix64(x + (uint8_t)*place);
    return x % one_in == 0;
}

/* Executions in which two have to stand still at two certain places are too rare where all pause everywhere. */
static void pause_at(const char *place)
{
    uint32_t sort = below(&pause_rng, 60);
    if (p.focus && !quick && in_focus(place))
        usleep(1 + below(&pause_rng, 2000));
    if (p.focus || sort < haste)
        return;
    if (sort == 59 || (haste == 30 && sort % 2))
        usleep(1 + below(&pause_rng, below(&pause_rng, 12) ? 150 : 3000));
    else
        sched_yield();
}

/* Between two operations; the others shall not be through before somebody's pause is over. */
static void pause_between(void)
{
    if (p.focus)
        usleep(1 + below(&pause_rng, 60));
    else
        pause_at("between");
}

#ifdef SKV_CRASH_POINTS
static _Atomic uint32_t passes_left;    /* crash points until this process dies; 0 = it lives  */

static void at_crash_point(const char *name)
{
    if (atomic_load(&passes_left) && atomic_fetch_sub(&passes_left, 1) == 1)
        kill(getpid(), SIGKILL);
    pause_at(name);
}
#endif

/* ---- Keys: those with even numbers hold bytes of any length, the others integers ------------------------ */

static bool holds_int(uint32_t key) { return key % 2; }
static uint64_t id_of(uint32_t key) { return p.first_id + key; }

typedef struct client {
    uint32_t number;
    rng r;
    found copies[MOST_KEYS];
    uint8_t values[MOST_KEYS][2048];
    key_text texts[MOST_KEYS];
    uint64_t known[MOST_KEYS];  /* versions that it has read last                              */
} client;

static skv_item make_item(client *c, const event *e, uint32_t i)
{
    uint64_t id = id_of(e->keys[i]), n = e->written[i];
    size_t len = sizeof n;
    if (holds_int(e->keys[i])) {
        memcpy(c->values[i], &n, sizeof n);
    } else {
        uint32_t most = below(&c->r, 4) ? 100 : 2000;
        len = VALUE_HEAD + below(&c->r, most);
        make_value(c->values[i], id, n, len);
    }
    return (skv_item){.key = key_for(b.store, id, &c->texts[i]), .value = c->values[i], .value_len = len,
                      .type = holds_int(e->keys[i]) ? SKV_T_INT : SKV_T_BYTES};
}

/* The number in a value that was read; a torn one ends the program. */
static uint64_t number_in(uint32_t key, const uint8_t *value, uint32_t len, uint8_t type)
{
    uint64_t n = 0;
    if (holds_int(key) && type == SKV_T_INT && len == sizeof n)
        memcpy(&n, value, sizeof n);
    else if (!holds_int(key) && type == SKV_T_BYTES)
        n = read_value(value, len, id_of(key));
    REQUIRE(n != 0 && n != UINT64_MAX, "key %u: torn value of %u bytes, type %u", key, len, type);
    return n;
}

/* ---- Reads, with pauses between their steps ---------------------------------------------------------------- */

static const char *const read_places[MOST_KEYS] = {"read.first", "read.second", "read.third", "read.fourth",
                                                   "read.fifth"};

static void find_all(const skv_key *keys, skv_view *views, uint32_t count, bool at_once)
{
    if (at_once) {
        skv_find_many(b.store, keys, views, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        skv_find(b.store, &keys[i], &views[i]);
        pause_at(read_places[i]);
    }
}

static bool try_to_read(client *c, const event *e, const skv_key *keys, skv_view *views)
{
    bool good = true;
    find_all(keys, views, e->count, below(&c->r, 2));
    pause_at("read.found");
    for (uint32_t i = 0; i < e->count && good; i++)
        good = copy_view(&views[i], &c->copies[i]);
    pause_at("read.copied");
    if (!good)
        return false;
    return e->kind == GET ? skv_validate(&views[0]) : skv_validate_many(b.store, keys, views, e->count);
}

static void read_keys(client *c, event *e)
{
    skv_key keys[MOST_KEYS];
    skv_view views[MOST_KEYS];
    for (uint32_t i = 0; i < e->count; i++)
        keys[i] = key_for(b.store, id_of(e->keys[i]), &c->texts[i]);
    for (uint32_t tries = 0;; tries++) {
        skv_frozen *frozen = tries > SKV_READ_TRIES ? skv_freeze(b.store, keys, e->count) : NULL;
        bool good = try_to_read(c, e, keys, views);
        skv_thaw(b.store, frozen);
        if (good)
            break;
        REQUIRE(tries < 1000000, "a reader is overtaken for ever");
        skv_relax(b.store, &views[0], tries);
    }
    for (uint32_t i = 0; i < e->count; i++) {
        const found *f = &c->copies[i];
        e->read[i] = f->there ? number_in(e->keys[i], f->value, f->len, f->type) : 0;
        e->versions[i] = f->there ? f->version : 0;
    }
}

/* A walk shows each bucket at one instant: as one reading of all our keys that lie in it. */
static void scan_bucket(event *e)
{
    skv_copies copies = {0};
    key_text text;
    skv_key key = key_for(b.store, id_of(e->keys[0]), &text);
    uint64_t bucket = (uint64_t)(skv_bucket_of(b.store, key.hash) - b.store->buckets);
    REQUIRE_OK(skv_copy_bucket(b.store, bucket, true, NULL, NULL, &copies));
    memset(e->read, 0, sizeof e->read);
    memset(e->versions, 0, sizeof e->versions);
    for (size_t at = 0; at < copies.count; at++) {
        const skv_copied *item = &copies.items[at];
        uint64_t id = id_in_key(copies.bytes + item->key_at);
        for (uint32_t i = 0; i < e->count; i++) {
            if (id != id_of(e->keys[i]))
                continue;
            REQUIRE(e->read[i] == 0, "a walk shows key %u twice", e->keys[i]);
            e->read[i] = number_in(e->keys[i], copies.bytes + item->value_at, item->value_len, item->type);
            e->versions[i] = item->version;
        }
    }
    skv_free_items(&copies);
}

/* ---- Writes ---------------------------------------------------------------------------------------------------- */

static skv_status put(client *c, event *e)
{
    static const enum skv_put_condition conditions[] = {
        [PUT] = SKV_PUT_ANY, [ADD] = SKV_PUT_ABSENT, [REPLACE] = SKV_PUT_PRESENT, [CAS] = SKV_PUT_VERSION};
    skv_item item = make_item(c, e, 0);
    skv_status status;
    INSIST(status, wait, skv_put(b.store, &item, conditions[e->kind], e->argument, &wait));
    return status;
}

static skv_status erase(client *c, const event *e)
{
    skv_key key = key_for(b.store, id_of(e->keys[0]), &c->texts[0]);
    skv_status status;
    INSIST(status, wait, skv_delete(b.store, &key, e->kind == DELETE_IF ? e->argument : 0, &wait));
    return status;
}

static skv_status increase(client *c, event *e)
{
    skv_key key = key_for(b.store, id_of(e->keys[0]), &c->texts[0]);
    int64_t result = 0, delta = (int64_t)e->written[0];
    skv_status status;
    INSIST(status, wait, skv_incr(b.store, &key, delta, delta, 0, &result, &wait));
    e->read[0] = (uint64_t)result;
    return status;
}

static skv_status write_many(client *c, event *e)
{
    skv_item items[MOST_KEYS];
    uint32_t removed = 0;
    skv_status status;
    for (uint32_t i = 0; i < e->count; i++)
        items[i] = make_item(c, e, i);
    if (e->kind == PUT_MANY)
        INSIST(status, wait, skv_put_many(b.store, items, e->count, &wait));
    else
        INSIST(status, wait, skv_delete_many(b.store, items, e->count, &removed, &wait));
    e->argument = removed;
    return status;
}

static skv_status call(client *c, event *e)
{
    switch (e->kind) {
    case GET: case GET_MANY:
        read_keys(c, e);
        return SKV_OK;
    case SCAN:
        scan_bucket(e);
        return SKV_OK;
    case PUT: case ADD: case REPLACE: case CAS:
        return put(c, e);
    case DELETE: case DELETE_IF:
        return erase(c, e);
    case INCR:
        return increase(c, e);
    case CLEAR:
        return clear_all(b.store);
    default:
        return write_many(c, e);
    }
}

/* ---- Drawing ------------------------------------------------------------------------------ */

static enum kind draw_kind(client *c)
{
    uint32_t sort = below(&c->r, 100), kind = 0;
    const uint32_t *share = shares[p.focus != 0];
    for (; sort >= share[kind]; kind++)
        sort -= share[kind];
    if ((kind == CLEAR && !p.with_clear) || (kind >= PUT_MANY && !p.with_batches))
        return GET;
    return (enum kind)kind;
}

/* Some of the keys that batches may have, each once. */
static void draw_batch(client *c, event *e)
{
    uint32_t room = p.keys - p.single, most = room < BATCH ? room : BATCH;
    e->count = 0;
    for (uint32_t i = 0; i < room && e->count < most; i++)
        if (below(&c->r, room - i) < most - e->count)
            e->keys[e->count++] = p.single + i;
}

static void draw_bucket(event *e)
{
    key_text text;
    skv_key key = key_for(b.store, id_of(e->keys[0]), &text);
    const skv_bucket *bucket = skv_bucket_of(b.store, key.hash);
    e->count = 0;
    for (uint32_t i = 0; i < p.keys; i++) {
        key = key_for(b.store, id_of(i), &text);
        if (skv_bucket_of(b.store, key.hash) == bucket)
            e->keys[e->count++] = i;
    }
}

static void draw(client *c, event *e)
{
    e->client = c->number;
    e->kind = draw_kind(c);
    e->count = 1;
    e->keys[0] = below(&c->r, p.keys);
    e->argument = c->known[e->keys[0]];
    if (e->kind == INCR && !holds_int(e->keys[0]))
        e->keys[0] = e->keys[0] ? e->keys[0] - 1 : 1;
    if ((e->kind == CAS || e->kind == DELETE_IF) && !e->argument)
        e->kind = GET;
    if (e->kind == PUT_MANY || e->kind == GET_MANY || e->kind == DELETE_MANY)
        draw_batch(c, e);
    if (e->kind == SCAN)
        draw_bucket(e);
    for (uint32_t i = 0; e->kind == CLEAR && i < p.keys; i++)
        e->keys[i] = i;
    if (e->kind == CLEAR)
        e->count = p.keys;
    for (uint32_t i = 0; i < e->count; i++)
        e->written[i] = e->kind == INCR ? 1 + below(&c->r, 9) : 1000 * (1 + atomic_fetch_add(&sh->nonce, 1));
}

/* ---- Clients ------------------------------------------------------------------------------ */

static void record(client *c, event *e)
{
    draw(c, e);
    quick = e->kind == GET || below(&c->r, 3) == 0;
    atomic_store(&e->begin, 1 + atomic_fetch_add(&sh->time, 1));
    e->status = call(c, e);
    atomic_store(&e->end, 1 + atomic_fetch_add(&sh->time, 1));
    const bool reads = e->kind == GET || e->kind == GET_MANY || e->kind == SCAN;
    for (uint32_t i = 0; reads && i < e->count; i++)
        c->known[e->keys[i]] = e->versions[i];
}

/* Nobody asks for these: they make tables grow and pages empty. */
static void move_fillers(client *c)
{
    for (uint32_t i = below(&c->r, 6); i > 0; i--) {
        uint64_t id = p.first_id + 100 + below(&c->r, FILLERS);
        if (below(&c->r, 2))
            put_value(b.store, id, 1, VALUE_HEAD + below(&c->r, 1500), 0);
        else
            delete_id(b.store, id);
    }
}

static void *ask(void *context)
{
    client *c = context;
    draw_temper(rnd(&c->r));
    atomic_fetch_add(&sh->ready, 1);
    while (!atomic_load(&sh->go))
        sched_yield();
    for (;;) {
        uint32_t at = atomic_fetch_add(&sh->next, 1);
        if (at >= OPERATIONS)
            return NULL;
        record(c, &sh->events[at]);
        if (p.with_fillers && below(&c->r, 4) == 0)
            move_fillers(c);
        pause_between();
    }
}

typedef struct life {
    uint32_t number;
    rng r;
    bool mortal;
} life;

static void begin_life(life *l)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (below(&l->r, 4) == 0) {
        detach_box(&b);
        attach_box(&b, false);
    }
    draw_temper(rnd(&l->r));
#ifdef SKV_CRASH_POINTS
    atomic_store(&passes_left, l->mortal ? 1 + below(&l->r, 400) : 0);
    skv_crash_hook = at_crash_point;
#endif
}

static void process_body(void *context)
{
    life l = *(life *)context;
    static client clients[THREADS];
    pthread_t thread;
    begin_life(&l);
    const bool two = below(&l.r, 3) == 0;
    one_thread = !two && below(&l.r, 2);
    for (uint32_t i = 0; i < THREADS; i++)
        clients[i] = (client){.number = l.number * THREADS + i, .r = {rnd(&l.r)}};
    if (two)
        REQUIRE(pthread_create(&thread, NULL, ask, &clients[1]) == 0, "no thread");
    ask(&clients[0]);
    if (two)
        pthread_join(thread, NULL);
}

static void keeper_body(void *context)
{
    life l = *(life *)context;
    skv_compact_report report;
    uint64_t freed;
    begin_life(&l);
    while (!atomic_load(&sh->stop)) {
        skv_wait wait = patient();
        uint32_t sort = below(&l.r, 3);
        skv_status status;
        if (sort == 0)
            status = skv_compact(b.store, &report, &wait);
        else if (sort == 1)
            status = skv_audit(b.store, &freed, &wait);
        else
            status = skv_reclaim_dead(b.store, NULL);
        REQUIRE(status == SKV_OK || status == SKV_BUSY || status == SKV_TIMEOUT, "status %d", (int)status);
        usleep(below(&l.r, 2000));
    }
}

/* ---- A history ---------------------------------------------------------------------------- */

static void draw_plan(rng *r)
{
    p = (plan){.keys = 3 + below(r, MOST_KEYS - 2), .first_id = KEY_APART * below(r, 90000)};
    p.with_batches = below(r, 4) != 0;
    p.single = p.with_batches ? below(r, p.keys - 1) : p.keys;
    p.with_clear = below(r, 4) == 0;
    p.focus = below(r, 3) ? 0 : rnd(r);
    p.with_fillers = below(r, 3) != 0;
}

static pid_t start_life(uint32_t number, rng *r, bool deadly)
{
    life l = {.number = number, .r = {rnd(r)}, .mortal = deadly && below(r, 3) == 0};
    return start_child(number == LIVES ? keeper_body : process_body, &l, 60);
}

/* True: it was killed, as it was meant to be. */
static bool bury(pid_t pid)
{
    int status = wait_child(pid);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    REQUIRE(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0), "a process ended with status %x",
            (unsigned)status);
    return killed;
}

/* Half of the histories are deadly: processes die at a crash point, or at any time; others follow. */
static void play(rng *r)
{
    const bool deadly = below(r, 2);
    pid_t pids[LIVES], keeper = start_life(LIVES, r, deadly);
    uint32_t lives = PROCESSES;
    for (uint32_t i = 0; i < PROCESSES; i++)
        pids[i] = start_life(i, r, deadly);
    while (atomic_load(&sh->ready) < PROCESSES && waitpid(pids[0], NULL, WNOHANG | WNOWAIT) == 0)
        sched_yield();
    atomic_store(&sh->go, true);
    if (deadly && below(r, 3) == 0) {
        usleep(below(r, 4000));
        kill(pids[below(r, PROCESSES)], SIGKILL);
    }
    for (uint32_t i = 0; i < lives; i++)
        if (bury(pids[i]) && lives < LIVES) {
            pids[lives] = start_life(lives, r, false);
            lives++;
        }
    atomic_store(&sh->stop, true);
    bury(keeper);
}

static void print_list(const uint64_t *numbers, uint32_t count)
{
    if (count == 0)
        printf(" -");
    for (uint32_t i = 0; i < count; i++)
        printf("%c%" PRIu64, i ? ',' : ' ', numbers[i]);
}

static void print_event(const event *e)
{
    uint64_t keys[MOST_KEYS];
    for (uint32_t i = 0; i < e->count; i++)
        keys[i] = e->keys[i];
    const bool reads = e->kind == GET || e->kind == GET_MANY || e->kind == SCAN, answered = e->end != 0;
    printf("%u %" PRIu64 " %" PRIu64 " %s %d %" PRIu64, e->client, e->begin, e->end, kind_names[e->kind],
           (int)e->status, e->argument);
    print_list(keys, e->count);
    print_list(e->written, reads || e->kind == CLEAR ? 0 : e->count);
    print_list(e->read, answered && (reads || e->kind == INCR) ? e->count : 0);
    print_list(e->versions, answered && reads ? e->count : 0);
    printf("\n");
}

static void one_history(uint64_t seed)
{
    rng r = {seed};
    memset(sh, 0, sizeof *sh);
    draw_plan(&r);
    make_box(&b, 2 * MIB, 0);
    play(&r);
    require_no_leaks(b.store);
    remove_box(&b);
    printf("history %" PRIu64 "\n", seed);
    for (uint32_t i = 0; i < OPERATIONS; i++)
        if (sh->events[i].begin)
            print_event(&sh->events[i]);
    printf("end\n");
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    char text[40];
    now_testing = text;
    sh = share(sizeof *sh);
    for (uint64_t i = seed; i < seed + count; i++) {
        alarm(60 * SLOW);
        snprintf(text, sizeof text, "history %" PRIu64, i);
        one_history(i);
    }
    return 0;
}
