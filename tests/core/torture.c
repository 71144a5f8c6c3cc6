/* torture.c: processes with several threads, which fork, lose their descriptors, are killed and stopped all the time.
 *
 * What: rounds, each in a store of its own.  Workers write keys of their own (lanes: one thread at a time writes a
 *       lane, the next one goes on where a dead one was), and keys that all write: counters by incr and by
 *       compare-and-swap, a token that one may hold, groups that are written as one, and a crowd of values that fills
 *       the store.  Readers judge each value that they see.  A keeper compacts, audits, reclaims and scans.
 * How:  oracle.h says what may be seen.  After a round everything is where it was promised, the store is clean, and
 *       compact() gets back what the dead have leaked.
 *       While a writer is stopped for seconds, readers note how long each get and each snapshot takes.
 *       Built with crash points, workers nap, yield and die at them, too.
 *
 * Run:  torture SEED SECONDS [roomy|tight|evicting]...; ends with a line "figure NAME VALUE" for each figure, or, at
 *       the first violation, with a sentence and status 1.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "oracle.h"

#define WORKERS       4u
#define THREADS       3u        /* lanes of a worker; as many threads at most                  */
#define LANES         (WORKERS * THREADS)
#define KEEPER        WORKERS
#define VICTIMS       (WORKERS + 1)
#define READERS       2u
#define OWN_IDS       24u
#define GROUP_KEYS    12u
#define GROUP_LEN     1000u
#define SHARED_GROUPS 3u
#define ROUND_S       5.0
/* Nobody hangs; what the machine takes (storm.h) is allowed for.  A write may meet several dead, and an audit. */
#define READ_LIMIT_MS  (200.0 * SLOW)
#define WRITE_LIMIT_MS (1000.0 * SLOW)

enum { GROUP_BASE = 100000, METER_BASE = 150000, COUNTER_ID = 200000, LEDGER_ID, TOKEN_ID, CROWD_BASE = 300000 };
enum { COUNTER, LEDGER, TOLLS };

typedef struct kind {
    const char *name;
    uint64_t mib;
    uint16_t flags;
    uint32_t crowd;             /* keys of the crowd                                           */
    uint32_t longest;           /* value of a key of a lane, in bytes                          */
    bool lossy;                 /* what was written may be evicted, and clear() is called      */
    bool scarce;                /* writes may find it full                                     */
} kind;

static const kind kinds[] = {
    {.name = "roomy", .mib = 64, .crowd = 8000, .longest = 130000},
    {.name = "tight", .mib = 3, .crowd = 6000, .longest = 3000, .scarce = true},
    {.name = "evicting", .mib = 3, .flags = SKV_FLAG_EVICT, .crowd = 6000, .longest = 20000, .lossy = true,
     .scarce = true},
};

/* ---- What all share ----------------------------------------------------------------------- */

typedef struct lane_log {
    track own[OWN_IDS], group, meter;
    toll tolls[TOLLS];
    _Atomic uint64_t operations;
    uint8_t apart[64];
} lane_log;

#define STEPS_OF_2  8u          /* cells of the histogram for a doubling of the time           */
#define CELLS       (64u * STEPS_OF_2)

typedef struct reader_log {
    _Atomic uint64_t operations;
    uint32_t times[CELLS];      /* of reads while a writer is stopped for seconds              */
    uint8_t apart[64];
} reader_log;

typedef struct shared {
    lane_log lanes[LANES];
    reader_log readers[READERS];
    _Atomic uint64_t nonce;             /* for what many write                                 */
    _Atomic uint32_t holder;            /* lane + 1 that has taken the token                   */
    _Atomic uint32_t stops;             /* odd while a process is stopped                      */
    _Atomic bool long_stop, stop;
    _Atomic uint64_t longest_write_ns, longest_read_ns, longest_queue_ns;
    _Atomic uint64_t guests, guest_kills, keeper_work;
} shared;

typedef struct totals {
    uint64_t kills, stops, long_stops, ends, operations, rounds, guests;
    double largest_p999_us, longest_write_ms, longest_read_ms;
} totals;

static shared *sh;
static box b;
static kind now;                /* the round's                                                 */
static totals sum;

/* ---- Lanes -------------------------------------------------------------------------------- */

typedef struct lane {
    uint32_t number;
    rng r;
    found f, copies[GROUP_KEYS];
    uint8_t values[GROUP_KEYS][GROUP_LEN];
    uint64_t next_guest_ns;
} lane;

static lane lanes[LANES];

static lane_log *log_of(const lane *l) { return &sh->lanes[l->number]; }
static uint64_t own_id(uint32_t number, uint32_t i) { return number * 1000 + i; }
static uint64_t group_id(uint32_t group) { return GROUP_BASE + group * 100; }

/* Follows from key and step, so that nobody has to note it. */
static size_t len_of(uint64_t id, uint64_t n)
{
    rng r = {id * 77 + n};
    uint32_t sort = below(&r, 200);
    uint32_t most = sort < 160 ? 200 : sort < 195 ? 3000 : sort < 199 ? 20000 : 130000;
    return VALUE_HEAD + below(&r, most < now.longest ? most : now.longest);
}

/* The step that all keys of the group show at one instant; 0 = all are absent. */
static uint64_t whole_group(uint64_t first, found *copies)
{
    uint64_t ids[GROUP_KEYS], whole = 0;
    uint32_t there = 0;
    for (uint32_t i = 0; i < GROUP_KEYS; i++)
        ids[i] = first + i;
    snapshot(b.store, ids, GROUP_KEYS, copies);
    for (uint32_t i = 0; i < GROUP_KEYS; i++) {
        if (!copies[i].there)
            continue;
        uint64_t n = read_value(copies[i].value, copies[i].len, first + i);
        REQUIRE(n != UINT64_MAX, "key %" PRIu64 " is torn in a snapshot", first + i);
        REQUIRE(!there || n == whole, "group %" PRIu64 " has parts of batch %" PRIx64 " and of %" PRIx64, first,
                whole, n);
        whole = n;
        there++;
    }
    REQUIRE(now.lossy || there == 0 || there == GROUP_KEYS, "group %" PRIu64 ": %u keys of batch %" PRIx64, first,
            there, whole);
    return whole;
}

/* A number that incr keeps: 0 = absent. */
static uint64_t number_at(uint64_t id, found *f)
{
    uint64_t n;
    if (!get_id(b.store, id, f))
        return 0;
    REQUIRE(f->type == SKV_T_INT && f->len == sizeof n, "key %" PRIu64 ": %u bytes of type %u", id, f->len, f->type);
    memcpy(&n, f->value, sizeof n);
    return n;
}

/* A meter counts its own steps: none of them removes it. */
static void settle_meter(track *t, uint64_t id, uint64_t seen, const char *when)
{
    uint64_t done = atomic_load(&t->done), begun = atomic_load(&t->begun);
    REQUIRE(seen == done || seen == begun || (now.lossy && seen == 0),
            "meter %" PRIu64 " %s: %" PRIu64 ", %" PRIu64 " acknowledged, %" PRIu64 " begun", id, when, seen, done,
            begun);
    atomic_store(&t->done, seen || done == 0 ? seen : begun);
    atomic_store(&t->begun, atomic_load(&t->done));
}

/* A dead holder's token is given back by its lane. */
static void settle_token(lane *l)
{
    uint32_t me = l->number + 1, holder = me;
    bool mine = counter_of(b.store, TOKEN_ID, &l->f) == me;
    REQUIRE(mine || atomic_load(&sh->holder) != me, "lane %u holds a token that is gone", l->number);
    if (!mine)
        return;
    atomic_compare_exchange_strong(&sh->holder, &holder, 0);
    REQUIRE_OK(delete_id(b.store, TOKEN_ID));
}

static void settle_lane(lane *l, const char *when)
{
    lane_log *log = log_of(l);
    for (uint32_t i = 0; i < OWN_IDS; i++) {
        uint64_t id = own_id(l->number, i);
        settle(&log->own[i], id, counter_of(b.store, id, &l->f), now.lossy, when);
    }
    settle(&log->group, group_id(l->number), whole_group(group_id(l->number), l->copies), now.lossy, when);
    settle_meter(&log->meter, METER_BASE + l->number, number_at(METER_BASE + l->number, &l->f), when);
    for (uint32_t i = 0; i < TOLLS; i++)
        settle_toll(&log->tolls[i]);
    if (!now.lossy)
        settle_token(l);
}

/* ---- What workers do: keys of their own --------------------------------------------------- */

/* True: done.  A full store is no fault where room is scarce: what nobody promises anything about makes room. */
static bool succeeded(lane *l, skv_status status, uint64_t id)
{
    skv_item items[40];
    key_text texts[40];
    uint32_t removed;
    REQUIRE(status == SKV_OK || (now.scarce && status == SKV_FULL), "key %" PRIu64 ": status %d", id, (int)status);
    if (status == SKV_OK)
        return true;
    for (uint32_t i = 0; i < COUNT(items); i++)
        items[i] = (skv_item){.key = key_for(b.store, CROWD_BASE + below(&l->r, now.crowd), &texts[i])};
    INSIST(status, wait, skv_delete_many(b.store, items, COUNT(items), &removed, &wait));
    REQUIRE_OK(status);
    return false;
}

static skv_status put_if(uint64_t id, uint64_t n, enum skv_put_condition condition, uint64_t version)
{
    key_text text;
    size_t len = len_of(id, n);
    uint8_t small[4096], *value = len > sizeof small ? malloc(len) : small;
    REQUIRE(value, "no memory");
    make_value(value, id, n, len);
    skv_item item = {.key = key_for(b.store, id, &text), .value = value, .value_len = len, .type = SKV_T_BYTES};
    skv_status status;
    INSIST(status, wait, skv_put(b.store, &item, condition, version, &wait));
    if (value != small)
        free(value);
    return status;
}

/* A put whose condition is known to hold, now and then after one whose condition is known not to. */
static skv_status put_knowing(lane *l, uint64_t id, uint64_t n, bool there)
{
    if (now.lossy || below(&l->r, 2))
        return put_if(id, n, SKV_PUT_ANY, 0);
    if (below(&l->r, 4) == 0) {
        skv_status status = put_if(id, n, there ? SKV_PUT_ABSENT : SKV_PUT_PRESENT, 0);
        REQUIRE(status == SKV_CONDITION || (now.scarce && status == SKV_FULL), "key %" PRIu64 ": status %d", id,
                (int)status);
    }
    if (!there)
        return put_if(id, n, SKV_PUT_ABSENT, 0);
    if (below(&l->r, 2))
        return put_if(id, n, SKV_PUT_PRESENT, 0);
    REQUIRE(get_id(b.store, id, &l->f), "key %" PRIu64 " is lost", id);
    return put_if(id, n, SKV_PUT_VERSION, l->f.version);
}

static void own_write(lane *l)
{
    uint32_t i = below(&l->r, OWN_IDS);
    uint64_t id = own_id(l->number, i);
    track *t = &log_of(l)->own[i];
    bool there = effect(id, atomic_load(&t->done)) != 0;
    uint64_t n = begin_step(t);
    if (removes(id, n)) {
        skv_status status = delete_id(b.store, id);
        REQUIRE(status == (there ? SKV_OK : SKV_MISSING) || now.lossy, "key %" PRIu64 ": status %d", id, (int)status);
        atomic_store(&t->done, n);
    } else if (succeeded(l, put_knowing(l, id, n, there), id)) {
        atomic_store(&t->done, n);
    }
    if (below(&l->r, 4))
        return;
    uint64_t seen = counter_of(b.store, id, &l->f);
    REQUIRE(seen == effect(id, atomic_load(&t->done)) || (now.lossy && seen == 0),
            "key %" PRIu64 ": reads step %" PRIu64 " after step %" PRIu64, id, seen, n);
}

/* Changes no value: an item gets an expiry in the far future, or loses it. */
static void own_touch(lane *l)
{
    uint32_t i = below(&l->r, OWN_IDS);
    uint64_t id = own_id(l->number, i);
    key_text text;
    skv_key key = key_for(b.store, id, &text);
    bool there = effect(id, atomic_load(&log_of(l)->own[i].done)) != 0;
    skv_status status;
    INSIST(status, wait, skv_touch(b.store, &key, below(&l->r, 3) ? skv_os_boot_ms() + 3600000 : 0, NULL, &wait));
    if (status != SKV_MISSING)
        succeeded(l, status, id);
    REQUIRE(status == SKV_FULL || now.lossy || there == (status == SKV_OK), "key %" PRIu64 ": status %d", id,
            (int)status);
}

static skv_status write_group(lane *l, uint64_t first, uint64_t n, bool removal)
{
    key_text texts[GROUP_KEYS];
    skv_item items[GROUP_KEYS];
    uint32_t removed;
    skv_status status;
    for (uint32_t i = 0; i < GROUP_KEYS; i++) {
        size_t len = VALUE_HEAD + below(&l->r, GROUP_LEN - VALUE_HEAD);
        make_value(l->values[i], first + i, n, len);
        items[i] = (skv_item){.key = key_for(b.store, first + i, &texts[i]), .value = l->values[i], .value_len = len,
                              .type = SKV_T_BYTES};
    }
    if (removal)
        INSIST(status, wait, skv_delete_many(b.store, items, GROUP_KEYS, &removed, &wait));
    else
        INSIST(status, wait, skv_put_many(b.store, items, GROUP_KEYS, &wait));
    return status;
}

static void own_group(lane *l)
{
    uint64_t id = group_id(l->number), n = begin_step(&log_of(l)->group);
    if (succeeded(l, write_group(l, id, n, removes(id, n)), id))
        atomic_store(&log_of(l)->group.done, n);
}

static int64_t add_one(uint64_t id, int64_t create, skv_status *status)
{
    key_text text;
    skv_key key = key_for(b.store, id, &text);
    int64_t result = 0;
    INSIST(*status, wait, skv_incr(b.store, &key, 1, create, 0, &result, &wait));
    return result;
}

static void own_meter(lane *l)
{
    track *t = &log_of(l)->meter;
    uint64_t id = METER_BASE + l->number, n = begin_step(t);
    skv_status status;
    int64_t result = add_one(id, (int64_t)n, &status);
    if (succeeded(l, status, id)) {
        REQUIRE(result == (int64_t)n, "meter %" PRIu64 " counts %" PRId64 " at step %" PRIu64, id, result, n);
        atomic_store(&t->done, n);
    }
    atomic_store(&t->begun, atomic_load(&t->done));
}

/* ---- What workers do: keys that all write ------------------------------------------------- */

static void count_toll(toll *t, bool added)
{
    if (added)
        atomic_fetch_add(&t->additions.done, 1);
    else
        atomic_fetch_sub(&t->additions.begun, 1);
}

static void add_to_counter(lane *l)
{
    toll *t = &log_of(l)->tolls[COUNTER];
    skv_status status;
    begin_step(&t->additions);
    add_one(COUNTER_ID, 1, &status);
    count_toll(t, succeeded(l, status, COUNTER_ID));
}

/* The same by compare-and-swap: of two that read the same number, one has to fail. */
static void add_to_ledger(lane *l)
{
    toll *t = &log_of(l)->tolls[LEDGER];
    uint64_t n = counter_of(b.store, LEDGER_ID, &l->f), version = l->f.version;
    begin_step(&t->additions);
    skv_status status = put_if(LEDGER_ID, n + 1, n ? SKV_PUT_VERSION : SKV_PUT_ABSENT, version);
    count_toll(t, status != SKV_CONDITION && succeeded(l, status, LEDGER_ID));
}

/* At most one lane at a time has added the token and not yet deleted it. */
static void take_token(lane *l)
{
    uint32_t me = l->number + 1;
    skv_status status = put_if(TOKEN_ID, me, SKV_PUT_ABSENT, 0);
    if (now.lossy || status == SKV_CONDITION || !succeeded(l, status, TOKEN_ID))
        return;
    uint32_t holder = atomic_exchange(&sh->holder, me);
    REQUIRE(holder == 0, "lane %u has taken the token that lane %u holds", l->number, holder - 1);
    if (below(&l->r, 2))
        sched_yield();
    holder = atomic_exchange(&sh->holder, 0);
    REQUIRE(holder == me, "lane %u has taken the token from lane %u", holder - 1, l->number);
    REQUIRE_OK(delete_id(b.store, TOKEN_ID));
}

static void shared_group(lane *l)
{
    uint64_t id = group_id(LANES + below(&l->r, SHARED_GROUPS)), n = 1 + atomic_fetch_add(&sh->nonce, 1);
    succeeded(l, write_group(l, id, (uint64_t)(l->number + 1) << 40 | n, below(&l->r, 6) == 0), id);
}

/* ---- What workers do: the crowd ----------------------------------------------------------- */

static void crowd_of_eight(lane *l)
{
    key_text texts[8];
    skv_item items[8], *order[8];
    uint32_t done;
    skv_status status;
    for (uint32_t i = 0; i < 8; i++) {
        uint64_t id = CROWD_BASE + below(&l->r, now.crowd);
        size_t len = VALUE_HEAD + below(&l->r, 100);
        make_value(l->values[i], id, 1, len);
        items[i] = (skv_item){.key = key_for(b.store, id, &texts[i]), .value = l->values[i], .value_len = len,
                              .type = SKV_T_BYTES};
        order[i] = &items[i];
    }
    INSIST(status, wait, skv_put_each(b.store, order, 8, &wait, &done));
    succeeded(l, status, CROWD_BASE);
}

/* Nobody promises anything about these: tables grow and shrink, pages fill and thin out, some items expire. */
static void crowd(lane *l)
{
    uint64_t id = CROWD_BASE + below(&l->r, now.crowd);
    uint32_t sort = below(&l->r, 100);
    if (sort < 30)
        delete_id(b.store, id);
    else if (sort < 38)
        crowd_of_eight(l);
    else if (sort < 40)
        succeeded(l, put_value(b.store, id, 1, 8000 + below(&l->r, now.scarce ? 60000 : 150000), 0), id);
    else if (sort < 45)
        succeeded(l, put_value(b.store, id, 1, VALUE_HEAD + below(&l->r, 300),
                               skv_os_boot_ms() + 1 + below(&l->r, 50)), id);
    else
        succeeded(l, put_value(b.store, id, 1, VALUE_HEAD + below(&l->r, sort < 90 ? 60 : 3000), 0), id);
}

static void look_at_crowd(lane *l)
{
    for (uint32_t i = 0; i < 4; i++)
        counter_of(b.store, CROWD_BASE + below(&l->r, now.crowd), &l->f);
    atomic_fetch_add_explicit(&log_of(l)->operations, 3, memory_order_relaxed);
}

static void one_operation(lane *l)
{
    uint32_t sort = below(&l->r, 100);
    if (sort < 34)
        own_write(l);
    else if (sort < 38)
        own_touch(l);
    else if (sort < 44)
        own_group(l);
    else if (sort < 50)
        own_meter(l);
    else if (sort < 55)
        add_to_counter(l);
    else if (sort < 59)
        add_to_ledger(l);
    else if (sort < 62)
        take_token(l);
    else if (sort < 66)
        shared_group(l);
    else if (sort < 84)
        crowd(l);
    else
        look_at_crowd(l);
}

/* ---- Workers ------------------------------------------------------------------------------ */

/* As a daemon does; and the numbers go to other files.  The region keeps its locks all the same. */
static void close_descriptors(rng *r)
{
    if (syscall(SYS_close_range, 3u, ~0u, 0u) != 0)
        for (int fd = 3; fd < 65536; fd++)
            close(fd);
    for (uint32_t i = below(r, 2) ? 6 : 0; i > 0; i--)
        open("/dev/null", O_RDWR | O_CLOEXEC);
}

static void timed_operation(lane *l)
{
    uint32_t stops = atomic_load(&sh->stops);
    uint64_t start = skv_os_monotonic_ns();
    one_operation(l);
    uint64_t took = skv_os_monotonic_ns() - start;
    atomic_fetch_add_explicit(&log_of(l)->operations, 1, memory_order_relaxed);
    if (stops % 2 == 0 && atomic_load(&sh->stops) == stops)
        note_longest(&sh->longest_write_ns, took);
}

__attribute__((noreturn))
static void guest_body(lane *l)
{
    alarm(60 * SLOW);
    if (below(&l->r, 3) == 0)
        close_descriptors(&l->r);
    for (uint32_t left = 200 + below(&l->r, 3000); left && !atomic_load(&sh->stop); left--)
        timed_operation(l);
    if (below(&l->r, 2))
        detach_box(&b);
    fflush(NULL);
    _exit(0);
}

/* A fork in the middle: the child goes on with the lane while other threads of the parent work.  Half are killed. */
static void receive_guest(lane *l)
{
    const bool kill_it = below(&l->r, 2);
    const struct timespec nap = {0, (long)below(&l->r, 3000) * 1000};
    rng r = {rnd(&l->r)};
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        l->r = r;
        guest_body(l);
    }
    atomic_fetch_add(&sh->guests, 1);
    if (kill_it) {
        nanosleep(&nap, NULL);
        kill(pid, SIGKILL);
    }
    int status = wait_child(pid);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    REQUIRE(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0), "a guest ended with status %x",
            (unsigned)status);
    atomic_fetch_add(&sh->guest_kills, killed);
    settle_lane(l, "after a guest");
}

/* A child that does nothing and outlives its parent: nobody may take the parent for alive because of it. */
static void leave_orphan(void)
{
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: %s", strerror(errno));
    if (pid)
        return;
    setpgid(0, 0);
    usleep(3000000);
    _exit(0);
}

static uint64_t until_next_guest(lane *l)
{
    return skv_os_monotonic_ns() + (20 + below(&l->r, 400)) * UINT64_C(1000000);
}

static void *work_on_lane(void *context)
{
    lane *l = context;
    l->next_guest_ns = until_next_guest(l);
    for (uint32_t i = 0; !atomic_load(&sh->stop); i++) {
        timed_operation(l);
        if (i % 64 == 0 && skv_os_monotonic_ns() > l->next_guest_ns) {
            receive_guest(l);
            if (below(&l->r, 4) == 0)
                leave_orphan();
            l->next_guest_ns = until_next_guest(l);
        }
    }
    return NULL;
}

#ifdef SKV_CRASH_POINTS
/* Between two steps of the protocol others get their turn, or the process dies.  Some threads are slow throughout. */
static void mischief(const char *name)
{
    static _Thread_local rng r;
    static _Thread_local bool slow;
    (void)name;
    if (r.x == 0) {
        r.x = (uint64_t)gettid() * 1000003;
        slow = below(&r, 8) == 0;
    }
    uint32_t sort = below(&r, 40000);
    if (sort == 0)
        kill(getpid(), SIGKILL);
    else if (sort < (slow ? 1500 : 40))
        usleep(1 + below(&r, slow ? 2000 : 300));
    else if (sort < 3000)
        sched_yield();
}

/* Readers pass no crash points: theirs are between the steps of a snapshot. */
static void delay_reader(void)
{
    static _Thread_local rng r;
    uint32_t sort = below(&r, 1000);
    if (sort < 2)
        usleep(1 + below(&r, 1500));
    else if (sort < 40)
        sched_yield();
}
#endif

typedef struct start {
    uint32_t worker;
    rng r;
} start;

/* Ends with its controller, and can be killed as a group with its guests. */
static void become_victim(rng *r)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (below(r, 2)) {
        detach_box(&b);
        attach_box(&b, false);
    }
    if (below(r, 3) == 0)
        close_descriptors(r);
#ifdef SKV_CRASH_POINTS
    skv_crash_hook = mischief;
#endif
}

static void worker_body(void *context)
{
    start s = *(start *)context;
    pthread_t threads[THREADS];
    uint32_t first = s.worker * THREADS, count = 1 + below(&s.r, THREADS);
    become_victim(&s.r);
    one_thread = count == 1 && below(&s.r, 2);  /* with a spare block, or without              */
    for (uint32_t i = 0; i < THREADS; i++) {
        lanes[first + i].number = first + i;
        lanes[first + i].r.x = rnd(&s.r);
        settle_lane(&lanes[first + i], "after a kill");
    }
    first += below(&s.r, THREADS - count + 1);
    for (uint32_t i = 1; i < count; i++)
        REQUIRE(pthread_create(&threads[i], NULL, work_on_lane, &lanes[first + i]) == 0, "no thread");
    work_on_lane(&lanes[first]);
    for (uint32_t i = 1; i < count; i++)
        pthread_join(threads[i], NULL);
    detach_box(&b);
}

/* ---- Readers ------------------------------------------------------------------------------ */

static uint32_t cell_of(uint64_t ns)
{
    uint32_t bits = 0;
    for (uint64_t rest = ns; rest >= 2 * STEPS_OF_2; rest /= 2)
        bits++;
    return bits * STEPS_OF_2 + (uint32_t)(ns >> bits);
}

static double cell_end_us(uint32_t cell)
{
    uint32_t bits = cell < 2 * STEPS_OF_2 ? 0 : cell / STEPS_OF_2 - 1;
    return (double)((uint64_t)(cell - bits * STEPS_OF_2 + 1) << bits) / 1e3;
}

/* The time that all but one in a thousand reads took at most, in microseconds; 0 = too few reads. */
static double p999_us(const uint32_t *times)
{
    uint64_t all = 0, slower = 0;
    for (uint32_t i = 0; i < CELLS; i++)
        all += times[i];
    for (uint32_t i = CELLS; all >= 1000 && i-- > 0;) {
        slower += times[i];
        if (slower > all / 1000)
            return cell_end_us(i);
    }
    return 0;
}

typedef struct reader {
    uint32_t number;
    rng r;
    watch w;
    found f, copies[GROUP_KEYS];
} reader;

static void note_read(reader *d, uint64_t took, bool behind_a_stop)
{
    note_longest(&sh->longest_read_ns, took);
    if (behind_a_stop && atomic_load(&sh->long_stop))
        sh->readers[d->number].times[cell_of(took)]++;
}

static void read_own(reader *d, bool behind_a_stop)
{
    uint32_t number = below(&d->r, LANES), i = below(&d->r, OWN_IDS);
    uint64_t id = own_id(number, i), floor = atomic_load(&sh->lanes[number].own[i].done);
    watch_start(&d->w);
    bool there = get_id(b.store, id, &d->f);
    note_read(d, watch_stop(&d->w), behind_a_stop);
    uint64_t seen = there ? read_value(d->f.value, d->f.len, id) : 0;
    REQUIRE(seen != UINT64_MAX, "key %" PRIu64 ": torn or foreign value of %u bytes", id, d->f.len);
    REQUIRE(!there || d->f.len == len_of(id, seen), "key %" PRIu64 ": %u bytes at step %" PRIu64, id, d->f.len, seen);
    judge_read(id, floor, seen, &sh->lanes[number].own[i], now.lossy);
}

/* Two keys, one of them a lane's own, with pauses: blocks that are given up meanwhile get a new life. */
static void read_slowly(reader *d)
{
    uint32_t number = below(&d->r, LANES), i = below(&d->r, OWN_IDS);
    uint64_t ids[2] = {own_id(number, i), CROWD_BASE + below(&d->r, now.crowd)};
    uint64_t floor = atomic_load(&sh->lanes[number].own[i].done);
#ifdef SKV_CRASH_POINTS
    snapshot_pause = delay_reader;
#endif
    snapshot(b.store, ids, 2, d->copies);
    snapshot_pause = NULL;
    for (uint32_t k = 0; k < 2; k++) {
        const found *f = &d->copies[k];
        uint64_t seen = f->there ? read_value(f->value, f->len, ids[k]) : 0;
        REQUIRE(seen != UINT64_MAX, "key %" PRIu64 ": torn or foreign value of %u bytes", ids[k], f->len);
        if (k == 0)
            judge_read(ids[0], floor, seen, &sh->lanes[number].own[i], now.lossy);
    }
}

static void read_group(reader *d, bool behind_a_stop)
{
    uint32_t number = below(&d->r, LANES + SHARED_GROUPS);
    uint64_t floor = number < LANES ? atomic_load(&sh->lanes[number].group.done) : 0;
    watch_start(&d->w);
    uint64_t seen = whole_group(group_id(number), d->copies);
    note_read(d, watch_stop(&d->w), behind_a_stop);
    if (number < LANES)
        judge_read(group_id(number), floor, seen, &sh->lanes[number].group, now.lossy);
}

static void read_meter(reader *d)
{
    uint32_t number = below(&d->r, LANES);
    const track *t = &sh->lanes[number].meter;
    uint64_t floor = atomic_load(&t->done), seen = number_at(METER_BASE + number, &d->f),
            ceiling = atomic_load(&t->begun);
    /* A step that found no room is taken back: then `begun` is what it was before. */
    REQUIRE((seen >= floor || (now.lossy && seen == 0)) && seen <= ceiling,
            "meter %u: %" PRIu64 ", not %" PRIu64 " to %" PRIu64, number,
            seen, floor, ceiling);
}

static void read_toll(reader *d)
{
    uint32_t which = below(&d->r, TOLLS);
    uint64_t least = 0, most = 0;
    for (uint32_t i = 0; i < LANES; i++)
        least += least_toll(&sh->lanes[i].tolls[which]);
    uint64_t seen = which == COUNTER ? number_at(COUNTER_ID, &d->f) : counter_of(b.store, LEDGER_ID, &d->f);
    for (uint32_t i = 0; i < LANES; i++)
        most += most_toll(&sh->lanes[i].tolls[which]);
    REQUIRE(now.lossy || (seen >= least && seen <= most), "toll %u: %" PRIu64 ", not %" PRIu64 " to %" PRIu64, which,
            seen, least, most);
}

static void reader_body(void *context)
{
    reader d = *(reader *)context;
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (d.number % 2) {
        detach_box(&b);
        attach_box(&b, true);
    }
    d.w = (watch){.suspicious_ns = 300000, .longest_queue_ns = &sh->longest_queue_ns};
    while (!atomic_load(&sh->stop)) {
        bool behind_a_stop = atomic_load(&sh->long_stop);
        uint32_t sort = below(&d.r, 10);
        if (sort < 6)
            read_own(&d, behind_a_stop);
        else if (sort < 7)
            read_slowly(&d);
        else if (sort < 8)
            read_group(&d, behind_a_stop);
        else if (sort < 9)
            read_meter(&d);
        else
            read_toll(&d);
        atomic_fetch_add_explicit(&sh->readers[d.number].operations, 1, memory_order_relaxed);
    }
}

/* ---- The keeper --------------------------------------------------------------------------- */

static void scan_a_bucket(rng *r)
{
    skv_copies copies = {0};
    REQUIRE_OK(skv_copy_bucket(b.store, rnd(r) % skv_bucket_count(b.store), true, NULL, NULL, &copies));
    for (size_t i = 0; i < copies.count; i++) {
        uint64_t id = id_in_key(copies.bytes + copies.items[i].key_at);
        bool number = copies.items[i].type == SKV_T_INT;
        REQUIRE(number || read_value(copies.bytes + copies.items[i].value_at, copies.items[i].value_len,
                                     id) != UINT64_MAX,
                "a scan shows key %" PRIu64 " torn", id);
    }
    skv_free_items(&copies);
}

static void keep(rng *r)
{
    skv_compact_report report;
    skv_wait wait = patient();
    uint64_t count;
    skv_status status = SKV_OK;
    switch (below(r, now.lossy ? 8 : 7)) {
    case 0:
        status = skv_compact(b.store, &report, &wait);
        if (status == SKV_OK)
            status = skv_return_memory(b.store, &wait);
        break;
    case 1:
        status = skv_audit(b.store, &count, &wait);
        break;
    case 2:
        status = skv_reclaim_dead(b.store, NULL);
        break;
    case 3:
        status = skv_sweep_expired(b.store, 4, &count, &wait);
        break;
    case 4:
        skv_count_items(b.store);
        break;
    case 7:
        status = skv_clear(b.store, &wait);
        break;
    default:
        scan_a_bucket(r);
    }
    REQUIRE(status == SKV_OK || status == SKV_BUSY || status == SKV_TIMEOUT, "status %d", (int)status);
    atomic_fetch_add(&sh->keeper_work, 1);
}

static void keeper_body(void *context)
{
    rng r = ((start *)context)->r;
    const struct timespec nap = {0, 4000000};
    become_victim(&r);
    while (!atomic_load(&sh->stop)) {
        keep(&r);
        nanosleep(&nap, NULL);
    }
}

/* ---- Kills and stops ---------------------------------------------------------------------- */

static pid_t victims[VICTIMS];
static bool stopped[VICTIMS];

static void start_victim(uint32_t i, rng *r)
{
    start s = {.worker = i, .r = {rnd(r)}};
    victims[i] = start_child(i == KEEPER ? keeper_body : worker_body, &s, 120);
    setpgid(victims[i], victims[i]);
}

static void require_end(int status, const char *who)
{
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    REQUIRE(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0), "%s ended by itself with status %x", who,
            (unsigned)status);
}

/* Guests of a dead victim are ours (we are their subreaper): dead and gone before anybody takes its lanes. */
static void bury_victim(uint32_t i)
{
    int status;
    require_end(wait_child(victims[i]), "a victim");
    kill(-victims[i], SIGKILL);
    while (waitpid(-victims[i], &status, 0) > 0)
        require_end(status, "a guest or an orphan");
}

static void kill_victim(uint32_t i, rng *r)
{
    kill(-victims[i], SIGKILL);
    bury_victim(i);
    sum.kills++;
    stopped[i] = false;
    start_victim(i, r);
}

/* Those that died by themselves, at a crash point. */
static void replace_dead(rng *r)
{
    for (uint32_t i = 0; i < VICTIMS; i++) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)victims[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == victims[i])
            kill_victim(i, r);
    }
}

static void nap_ms(uint32_t ms)
{
    const struct timespec nap = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&nap, NULL);
}

static void begin_stop(uint32_t i)
{
    if (atomic_load(&sh->stops) % 2 == 0)
        atomic_fetch_add(&sh->stops, 1);
    kill(-victims[i], SIGSTOP);
    stopped[i] = true;
}

/* Until they run again they are as good as stopped. */
static void end_stops(void)
{
    for (uint32_t i = 0; i < VICTIMS; i++)
        if (stopped[i])
            kill(-victims[i], SIGCONT);
    memset(stopped, 0, sizeof stopped);
    nap_ms(2);
    if (atomic_load(&sh->stops) % 2)
        atomic_fetch_add(&sh->stops, 1);
}

/* One or two writers stand still for seconds, wherever they were; the others go on being killed. */
static void begin_long_stop(rng *r)
{
    begin_stop(below(r, WORKERS));
    if (below(r, 2))
        begin_stop(below(r, WORKERS));
    atomic_store(&sh->long_stop, true);
    sum.long_stops++;
}

static void one_blow(rng *r, bool in_long_stop)
{
    uint32_t i = below(r, VICTIMS);
    if (stopped[i])
        return;
    if (in_long_stop || below(r, 8)) {
        kill_victim(i, r);
        return;
    }
    begin_stop(i);
    nap_ms(1 + below(r, 40));
    end_stops();
    sum.stops++;
}

static void storm(rng *r, double seconds)
{
    double begin = now_s(), from = begin + seconds * 0.3, to = from + seconds * 0.4;
    bool long_stop = false;
    while (now_s() < begin + seconds) {
        nap_ms(below(r, 14));
        replace_dead(r);
        if (!long_stop && now_s() > from && now_s() < to) {
            begin_long_stop(r);
            long_stop = true;
        } else if (long_stop && now_s() > to) {
            atomic_store(&sh->long_stop, false);
            end_stops();
            long_stop = false;
        }
        one_blow(r, long_stop);
    }
    atomic_store(&sh->long_stop, false);
    end_stops();
}

/* ---- A round ------------------------------------------------------------------------------ */

static void end_victims(rng *r)
{
    bool in_peace = below(r, 2);
    if (in_peace)
        atomic_store(&sh->stop, true);
    for (uint32_t i = 0; i < VICTIMS; i++) {
        if (!in_peace)
            kill(-victims[i], SIGKILL);
        bury_victim(i);
    }
    sum.ends += in_peace ? VICTIMS : 0;
    sum.kills += in_peace ? 0 : VICTIMS;
}

/* Everything is where it was promised. */
static void require_promises(void)
{
    for (uint32_t i = 0; i < LANES; i++) {
        lanes[i].number = i;
        settle_lane(&lanes[i], "at the end");
    }
    for (uint32_t i = 0; i < SHARED_GROUPS; i++)
        whole_group(group_id(LANES + i), lanes[0].copies);
    reader d = {0};
    for (uint32_t i = 0; i < 20; i++)
        read_toll(&d);
    free(d.f.value);
}

/* The store is as good as new: clean, without leaks, with all its room, and without rows of the dead. */
static void require_recovery(void)
{
    skv_stats stats;
    require_clean(b.store);
    require_no_leaks(b.store);
    require_promises();
    REQUIRE_OK(clear_all(b.store));
    require_no_leaks(b.store);
    REQUIRE_OK(skv_get_stats(b.store, &stats));
    REQUIRE(stats.processes == 1 && stats.items == 0, "%u rows, %" PRIu64 " items", stats.processes, stats.items);
    uint64_t fixed_areas = skv_fixed_areas_size(skv_fixed_of(b.store));
    REQUIRE(stats.used <= fixed_areas + 4 * 65536, "%" PRIu64 " bytes are in use, not %" PRIu64 " and a little",
            stats.used, fixed_areas);
}

static void add_up(void)
{
    for (uint32_t i = 0; i < LANES; i++)
        sum.operations += sh->lanes[i].operations;
    for (uint32_t i = 0; i < READERS; i++) {
        sum.operations += sh->readers[i].operations;
        double p999 = p999_us(sh->readers[i].times);
        sum.largest_p999_us = p999 > sum.largest_p999_us ? p999 : sum.largest_p999_us;
        REQUIRE(sh->readers[i].operations > 100, "a reader makes no progress");
    }
    sum.kills += sh->guest_kills;
    sum.guests += sh->guests;
    sum.rounds++;
    double write_ms = (double)sh->longest_write_ns / 1e6, read_ms = (double)sh->longest_read_ns / 1e6;
    double noise_ms = (double)sh->longest_queue_ns / 1e6;
    sum.longest_write_ms = write_ms > sum.longest_write_ms ? write_ms : sum.longest_write_ms;
    sum.longest_read_ms = read_ms > sum.longest_read_ms ? read_ms : sum.longest_read_ms;
    printf("   %s: %" PRIu64 " operations and %" PRIu64 " kills so far; ", now.name, sum.operations, sum.kills);
    printf("longest write %.1f ms, read %.1f ms, machine %.1f ms\n", write_ms, read_ms, noise_ms);
    fflush(stdout);
    REQUIRE(read_ms < READ_LIMIT_MS + noise_ms, "a read took %.1f ms", read_ms);
    REQUIRE(write_ms < WRITE_LIMIT_MS + noise_ms, "a write took %.1f ms while nobody was stopped", write_ms);
}

static void one_round(rng *r, const kind *k, double seconds)
{
    pid_t readers[READERS];
    memset(sh, 0, sizeof *sh);
    now = *k;
    now_testing = k->name;
    make_box(&b, now.mib * MIB, now.flags);
    for (uint32_t i = 0; i < READERS; i++) {
        reader d = {.number = i, .r = {rnd(r)}};
        readers[i] = start_child(reader_body, &d, 120);
    }
    for (uint32_t i = 0; i < VICTIMS; i++)
        start_victim(i, r);
    storm(r, seconds);
    end_victims(r);
    atomic_store(&sh->stop, true);
    for (uint32_t i = 0; i < READERS; i++)
        finish_child(readers[i]);
    require_promises();
    require_recovery();
    add_up();
    remove_box(&b);
}

static void print_figures(void)
{
    printf("figure kills %" PRIu64 "\nfigure operations %" PRIu64 "\n", sum.kills, sum.operations);
    printf("figure rounds %" PRIu64 "\nfigure forks_in_the_middle %" PRIu64 "\n", sum.rounds, sum.guests);
    printf("figure stops %" PRIu64 "\nfigure stops_for_seconds %" PRIu64 "\n", sum.stops, sum.long_stops);
    printf("figure largest_reader_p999_us %.1f\nfigure longest_write_ms %.1f\n", sum.largest_p999_us,
           sum.longest_write_ms);
}

int main(int argc, char **argv)
{
    rng r = {argc > 1 ? strtoull(argv[1], NULL, 10) : 1};
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 12, end = now_s() + seconds;
    alarm((unsigned)(seconds * 2) + 60 * SLOW);
    REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "no subreaper: %s", strerror(errno));
    sh = share(sizeof *sh);
    for (uint32_t round = 0; now_s() < end - 0.5; round++) {
        const kind *k = &kinds[round % COUNT(kinds)];
        bool chosen = argc < 4;
        for (int i = 3; i < argc; i++)
            chosen = chosen || strcmp(argv[i], k->name) == 0;
        REQUIRE(chosen || round < 1000, "no such kind of round");
        double left = end - now_s();
        if (chosen)
            one_round(&r, k, left < ROUND_S ? left : ROUND_S);
    }
    print_figures();
    return 0;
}
