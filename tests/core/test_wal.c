/* test_wal.c: a log on a disk that loses its power, fails, rots, and is written by many.
 *
 * How: after each change of the disk the power is cut many times over (disk.h), and what is left is recovered: all
 *      that was acknowledged as synced is there, it is the beginning of what was appended, and the log goes on.
 */
#include <pthread.h>
#include <setjmp.h>

#include "appending.h"

static uint64_t seed = 1;
static uint32_t cuts = 12;              /* after each change of the disk                      */
static uint64_t states;

/* ---- Power cuts -------------------------------------------------------------------------------------- */

typedef struct storm {
    journal *j;
    rng r;
    uint64_t acknowledged, appended;    /* before the call that is going on                  */
    uint32_t depth;
} storm;

static void go_on_after(storm *s, disk *left, uint64_t frames);

static void judge_state(storm *s, disk *left)
{
    skv_recovered found;
    seen there = {0};
    states++;
    int status = skv_recover(files_on(left), false, judge_frame, &there, &found);
    REQUIRE(status == 0, "recovery: %s", strerror(-status));
    REQUIRE(!found.damage, "damage %d in %s at %" PRIu64, (int)found.damage, found.name, found.offset);
    REQUIRE(there.frames >= s->acknowledged, "%" PRIu64 " frames are left of %" PRIu64 " that were acknowledged", there.frames,
            s->acknowledged);
    REQUIRE(there.frames <= s->appended + 1, "%" PRIu64 " frames, and %" PRIu64 " were appended", there.frames, s->appended);
    if (s->depth == 0 && below(&s->r, 40) == 0)
        go_on_after(s, left, there.frames);
}

static void cut_often(void *context)
{
    storm *s = context;
    for (uint32_t i = 0; i < cuts; i++) {
        disk *left = disk_cut(s->j->d, &s->r);
        judge_state(s, left);
        disk_free(left);
    }
}

static void step(storm *s)
{
    journal *j = s->j;
    uint64_t position;
    int status = 0;
    s->acknowledged = j->acknowledged;
    s->appended = j->appended;
    switch (below(&s->r, 12)) {
    case 0:
        status = skv_wal_rotate_locked(&j->wal);
        break;
    case 1: case 2: case 3:
        status = sync_all(j);
        break;
    default:
        status = append_one(j, &position);
    }
    REQUIRE(status == 0, "%s", strerror(-status));
}

/* The log is opened on what is left, goes on, and the power is cut again. */
static void go_on_after(storm *s, disk *left, uint64_t frames)
{
    journal j = {0};
    storm again = {.j = &j, .r = {rnd(&s->r)}, .acknowledged = s->acknowledged, .appended = frames, .depth = 1};
    j.acknowledged = s->acknowledged;
    left->after = cut_often;
    left->context = &again;
    j.d = left;
    REQUIRE(open_journal(&j, left) == 0, "it can be opened");
    REQUIRE(j.appended == frames, "and holds the same");
    for (uint32_t i = 0; i < 6; i++)
        step(&again);
    left->after = NULL;
    close_journal(&j);
}

static void power_cuts(void)
{
    for (uint32_t round = 0; round < 8; round++) {
        journal j = {0};
        storm s = {.j = &j, .r = {seed * 100 + round}};
        disk *d = disk_new();
        d->after = cut_often;
        d->context = &s;
        j.d = d;
        REQUIRE(open_journal(&j, d) == 0, "an empty folder");
        for (uint32_t i = 0; i < 30; i++)
            step(&s);
        d->after = NULL;
        close_journal(&j);
        disk_free(d);
    }
    printf("figure power_cuts %" PRIu64 "\n", states);
}

/* ---- Kills ------------------------------------------------------------------------------------------------ */

#ifdef SKV_CRASH_POINTS
static const char *const points[] = {"wal.made", "wal.head_written", "wal.head_synced", "wal.folder_synced", "wal.noted", "wal.begun",
                                    "wal.cut", "wal.rotating", "wal.written", "wal.appended", "wal.leading", "wal.synced",
                                    "wal.written_again", "wal.resumed", "wal.told", "wal.lead_repaired"};
static uint32_t killed[COUNT(points)], point;
static jmp_buf killed_here;
static uint32_t passes_left;            /* of `point`; 0 = it lives                           */

static void die_here(const char *name)
{
    if (passes_left && strcmp(name, points[point]) == 0 && --passes_left == 0) {
        killed[point]++;
        longjmp(killed_here, 1);
    }
}

static void draw_death(rng *r, uint32_t most)
{
    point = below(r, COUNT(points));
    passes_left = below(r, most);
}

/* False: the process died in it. */
static bool live_through(journal *j, uint32_t what)
{
    uint64_t position;
    if (setjmp(killed_here))
        return false;
    int status = what == 0 ? skv_wal_rotate_locked(&j->wal) : what < 3 ? sync_all(j) : append_one(j, &position);
    REQUIRE(status == 0, "%s", strerror(-status));
    passes_left = 0;
    return true;
}

static bool live_to_open(journal *j, disk *d)
{
    if (setjmp(killed_here))
        return false;
    REQUIRE(open_journal(j, d) == 0, "it can be opened");
    passes_left = 0;
    return true;
}

/* The process dies at a step of the log, or of opening it; the cache lives on.  The next one cuts off and goes on. */
static void kills(void)
{
    static journal j;
    rng r = {seed + 7};
    uint32_t deaths = 0;
    skv_crash_hook = die_here;
    for (uint32_t life = 0; life < 12; life++) {
        disk *d = disk_new();
        uint64_t least = 0, most = 0;           /* frames that the file may hold              */
        while (d->file_count < DISK_FILES - 30) {
            j = (journal){0};
            draw_death(&r, 2);
            bool lives = live_to_open(&j, d);
            REQUIRE(!lives || (j.appended >= least && j.appended <= most), "%" PRIu64 " frames, not %" PRIu64 " to %" PRIu64,
                    j.appended, least, most);
            for (uint32_t i = 0; lives && i < 60; i++) {
                draw_death(&r, 3);
                least = j.appended;
                most = j.appended + 1;
                lives = live_through(&j, below(&r, 10));
                least = j.appended;
            }
            deaths += !lives;
            passes_left = 0;
            close_journal(&j);
        }
        disk_free(d);
    }
    skv_crash_hook = NULL;
    REQUIRE(deaths > 100, "%u deaths", deaths);
}

/* ---- A sync that failed, and nobody left who knows ----------------------------------------------------------- */

static uint32_t bad_syncs;              /* so many of the next ones fail                      */

static int bad_sync(void *context, int handle)
{
    disk *d = context;
    if (bad_syncs) {
        bad_syncs--;
        d->error = EIO;
        d->fail_at = d->calls + 1;
    }
    return disk_sync(d, handle);
}

static void die_at(const char *name)
{
    for (point = 0; strcmp(points[point], name);)
        point++;
    passes_left = 1;
}

/* The next call ends in a death, or the disk was not asked. */
static void die_of(journal *j, int (*call)(skv_wal *wal), const char *name)
{
    if (setjmp(killed_here) == 0) {
        die_at(name);
        call(&j->wal);
        fail(__FILE__, __LINE__, "killed", "it does not pass %s", name);
    }
}

static int sync_end(skv_wal *wal) { return skv_wal_sync(wal, skv_load(&wal->state->end)); }

/* Frames that were synced, and some more whose sync is about to fail. */
static void begin_badly(journal *j, storm *s, disk *d)
{
    uint64_t position;
    *j = (journal){0};
    REQUIRE(open_journal(j, d) == 0, "an empty folder");
    j->wal.files.sync = bad_sync;
    for (uint32_t i = 0; i < 3; i++)
        REQUIRE(append_one(j, &position) == 0, "append");
    REQUIRE(sync_all(j) == 0, "sync");
    for (uint32_t i = below(&s->r, 6); i < 6; i++)
        REQUIRE(append_one(j, &position) == 0, "append");
    s->j = j;
    s->acknowledged = j->acknowledged;
    s->appended = j->appended;
    d->context = s;
    d->after = cut_often;
    bad_syncs = 1;
}

/* What a sync answered for, or an opener found, is there whatever is lost now. */
static void require_all_kept(journal *j, storm *s)
{
    uint64_t position;
    for (uint32_t i = 0; i < 3; i++) {
        s->acknowledged = s->appended = j->appended;
        cut_often(s);
        REQUIRE(append_one(j, &position) == 0 && sync_all(j) == 0, "the log goes on");
    }
}

/* Of several who open it, all but the last are killed, or meet an error: the log is in doubt all the same. */
static void openers_die(journal *j, storm *s, disk *d)
{
    static const char *const where[] = {"wal.written_again", "wal.cut", "wal.resumed"};
    REQUIRE(sync_end(&j->wal) == -EIO, "it fails");
    REQUIRE(sync_end(&j->wal) == -EROFS, "it has failed");
    for (uint32_t i = below(&s->r, 4); i < 4; i++) {
        close_journal(j);
        *j = (journal){.d = d};
        die_at(where[below(&s->r, COUNT(where))]);
        REQUIRE(!live_to_open(j, d), "it is not killed");
    }
    for (uint64_t call = 1, open = false; !open; call++) {
        close_journal(j);
        *j = (journal){.d = d};
        d->fail_at = d->calls + call;
        open = open_journal(j, d) == 0;
        REQUIRE(open || d->calls >= d->fail_at, "it can be opened");
    }
    d->fail_at = 0;
}

static void leader_dies(journal *j, storm *s, disk *d)
{
    (void)d;
    die_of(j, sync_end, "wal.told");
    for (uint32_t i = below(&s->r, 3); i < 3; i++)
        die_of(j, skv_wal_repair_lead, "wal.lead_repaired");
    REQUIRE(skv_wal_repair_lead(&j->wal) == 0, "repair");
    skv_store(&j->state.sync_lock, 0);
    REQUIRE(sync_all(j) == 0, "sync");
}

static void leader_is_stopped(journal *j, storm *s, disk *d)
{
    (void)s, (void)d;
    die_of(j, sync_end, "wal.told");        /* its lock stays, and no death is seen               */
    j->wal.turns.wait = wait_no_time;
    REQUIRE(sync_all(j) == 0, "sync");
    skv_store(&j->state.sync_lock, 0);
}

static void bad_news(void)
{
    static void (*const cases[])(journal *j, storm *s, disk *d) = {openers_die, leader_dies, leader_is_stopped};
    static journal j;
    skv_crash_hook = die_here;
    for (uint32_t round = 0; round < 30; round++) {
        storm s = {.r = {seed * 300 + round}, .depth = 1};
        disk *d = disk_new();
        begin_badly(&j, &s, d);
        cases[round % COUNT(cases)](&j, &s, d);
        require_all_kept(&j, &s);
        d->after = NULL;
        close_journal(&j);
        disk_free(d);
    }
    skv_crash_hook = NULL;
}
#endif

/* A frame of which only a part is in the file, and whose writer is dead: the next one may be shorter, and what is
 * behind it was never a frame of this log. */
static void half_a_frame(void)
{
    journal j = {0};
    uint64_t position;
    disk *d = disk_new();
    REQUIRE(open_journal(&j, d) == 0, "an empty folder");
    for (uint32_t i = 0; i < 200; i++) {
        uint8_t part[3000];
        memset(part, (int)i, sizeof part);
        disk_write(d, j.wal.handle, part, i * 37 % sizeof part, SKV_SEGMENT_HEAD + j.state.end - j.wal.base);
        REQUIRE(skv_wal_repair_locked(&j.wal, NULL, NULL) == 0, "repair");
        REQUIRE(append_one(&j, &position) == 0, "append");
        REQUIRE(d->files[0].now_size == SKV_SEGMENT_HEAD + position, "nothing is behind frame %u", i);
        if (i % 16 == 0)
            REQUIRE(sync_all(&j) == 0, "sync");
    }
    seen s = {0};
    skv_recovered found;
    REQUIRE(skv_recover(files_on(d), false, judge_frame, &s, &found) == 0 && !found.damage && s.frames == 200 && found.cut == 0,
            "%" PRIu64 " frames", s.frames);
    close_journal(&j);
    disk_free(d);
}

/* ---- Errors -------------------------------------------------------------------------------------------------- */

/* The n-th call of the disk fails, once or from then on: an error is told, nothing acknowledged is lost, and the log
 * goes on, or says that it has failed. */
static void failing_calls(void)
{
    static const int errors[] = {EIO, ENOSPC};
    for (uint32_t variant = 0; variant < 4; variant++) {
        for (uint64_t n = 1;; n++) {
            journal j = {0};
            storm s = {.j = &j, .r = {seed + 50}};
            disk *d = disk_new();
            d->fail_at = n;
            d->fails_on = variant / 2;
            d->error = errors[variant % 2];
            bool failed = open_journal(&j, d) != 0;
            for (uint32_t i = 0; i < 40 && !failed; i++) {
                uint64_t position;
                uint32_t what = below(&s.r, 10);
                int status = what == 0 ? skv_wal_rotate_locked(&j.wal) : what < 4 ? sync_all(&j) : append_one(&j, &position);
                REQUIRE(status == 0 || status == -d->error || status == -EROFS, "%s", strerror(-status));
                REQUIRE(status == 0 || d->calls >= n, "an error without a cause");
                REQUIRE(status != -EROFS || j.state.failed, "it has failed");
                failed = j.state.failed;
            }
            bool all_done = d->calls < n;
            d->fail_at = 0;
            for (uint32_t i = 0; i < 30; i++) {
                disk *left = disk_cut(d, &s.r);
                s.acknowledged = j.acknowledged;
                s.appended = j.appended;
                s.depth = 1;
                judge_state(&s, left);
                disk_free(left);
            }
            close_journal(&j);
            disk_free(d);
            if (all_done)
                break;
        }
    }
}

/* ---- Rot ---------------------------------------------------------------------------------------------------------- */

/* The number of the first frame that no later one vouches for. */
static uint64_t first_unvouched;

static void write_log(journal *j, disk *d)
{
    uint64_t position;
    rng r = {seed + 9};
    REQUIRE(open_journal(j, d) == 0, "an empty folder");
    for (uint32_t i = 0; i < 60; i++) {
        if (i % 25 == 24)
            REQUIRE(skv_wal_rotate_locked(&j->wal) == 0, "rotate");
        if (below(&r, 3) == 0) {
            REQUIRE(sync_all(j) == 0, "sync");
            first_unvouched = j->appended + 1;
        }
        REQUIRE(append_one(j, &position) == 0, "append");
    }
    REQUIRE(sync_all(j) == 0, "sync");
}

/* A bit turns anywhere in a log that was synced as a whole: what comes back is right, and what lacks is told, unless it
 * is the last frames, for which nothing vouches. */
static void rot(void)
{
    journal j = {0};
    disk *d = disk_new();
    write_log(&j, d);
    uint64_t told = 0, quiet = 0;
    for (uint32_t file = 0; file < d->file_count; file++) {
        disk_file *f = &d->files[file];
        for (size_t bit = mix64(file + seed) % 13; bit < f->now_size * 8; bit += 13) {
            skv_recovered found;
            seen s = {0};
            f->now[bit / 8] ^= (uint8_t)(1u << bit % 8);
            int status = skv_recover(files_on(d), false, judge_frame, &s, &found);
            REQUIRE(status == 0, "%s", strerror(-status));
            REQUIRE(found.damage || s.frames + 1 >= first_unvouched, "bit %zu of file %u: only %" PRIu64 " frames, and nothing is said",
                    bit, file, s.frames);
            REQUIRE(s.frames < j.appended, "bit %zu of file %u is not missed", bit, file);
            told += found.damage != SKV_UNDAMAGED;
            quiet += found.damage == SKV_UNDAMAGED;
            f->now[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    REQUIRE(told > 1000, "%" PRIu64 " were told, %" PRIu64 " not", told, quiet);
    close_journal(&j);
    disk_free(d);
}

/* A good frame in the place of another one. */
static void frames_out_of_order(void)
{
    static const uint64_t sequences[][4] = {{1, 2, 2, 3}, {1, 3, 2, 4}, {2, 1, 3, 4}, {1, 2, 4, 3}};
    for (size_t i = 0; i < COUNT(sequences); i++) {
        journal j = {0};
        disk *d = disk_new();
        uint64_t at = SKV_SEGMENT_HEAD;
        REQUIRE(open_journal(&j, d) == 0, "an empty folder");
        for (size_t n = 0; n < 4; n++) {
            fill_frame(&j.frame, sequences[i][n]);
            skv_frame_seal(&j.frame, sequences[i][n], 0, j.wal.salt);
            disk_write(d, j.wal.handle, j.frame.bytes, j.frame.size, at);
            at += j.frame.size;
        }
        seen s = {0};
        skv_recovered found;
        REQUIRE(skv_recover(files_on(d), false, judge_frame, &s, &found) == 0, "recovery");
        REQUIRE(s.frames == (i == 0 || i == 3 ? 2 : i == 1 ? 1 : 0), "%" PRIu64 " frames of case %zu", s.frames, i);
        close_journal(&j);
        disk_free(d);
    }
}

/* Files that are missing, exchanged, or of another log. */
static void files_that_do_not_belong(void)
{
    journal j = {0};
    disk *d = disk_new();
    write_log(&j, d);
    skv_recovered found;
    REQUIRE(d->now_count == 3, "%u files", d->now_count);
    for (uint32_t what = 0; what < 4; what++) {
        disk_name saved[DISK_FILES];
        seen s = {0};
        memcpy(saved, d->now, sizeof saved);
        if (what < 2) {                 /* the first, or the second, is gone                  */
            d->now[what] = d->now[--d->now_count];
        } else {                        /* two are exchanged                                  */
            d->now[what - 2].file = saved[what - 1].file;
            d->now[what - 1].file = saved[what - 2].file;
        }
        REQUIRE(skv_recover(files_on(d), false, judge_frame, &s, &found) == 0 && found.damage, "case %u is not seen", what);
        memcpy(d->now, saved, sizeof saved);
        d->now_count = 3;
    }
    /* The second file of another log that is otherwise the same. */
    journal k = {0};
    disk *e = disk_new();
    write_log(&k, e);
    skv_segment other = {.kind = SKV_SEGMENT_LOG, .number = 2, .base = 0, .sequence = 0, .uuid = "another log"};
    uint8_t head[SKV_SEGMENT_HEAD];
    skv_segment_encode(&other, head);
    memcpy(d->files[1].now, head, sizeof head);
    seen s = {0};
    REQUIRE(skv_recover(files_on(d), false, judge_frame, &s, &found) == 0 && found.damage == SKV_DAMAGE_FOREIGN_LOG, "damage %d",
            (int)found.damage);
    close_journal(&k);
    disk_free(e);
    close_journal(&j);
    disk_free(d);
}

/* ---- Many who wait ----------------------------------------------------------------------------------------------------- */

enum { THREADS = 8, PUTS = 150 };

static pthread_mutex_t appending = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t synced_appends;
static journal shared;

static int slow_sync(void *context, int handle)
{
    const struct timespec nap = {0, 200000};
    pthread_mutex_lock(&appending);     /* the disk itself is for one at a time               */
    int status = disk_sync(context, handle);
    pthread_mutex_unlock(&appending);
    nanosleep(&nap, NULL);
    return status;
}

static int open_alone(void *context, const char *name, enum skv_open how)
{
    pthread_mutex_lock(&appending);
    int handle = disk_open(context, name, how);
    pthread_mutex_unlock(&appending);
    return handle;
}

static int64_t read_alone(void *context, int handle, void *to, size_t len, uint64_t at)
{
    pthread_mutex_lock(&appending);
    int64_t got = disk_read(context, handle, to, len, at);
    pthread_mutex_unlock(&appending);
    return got;
}

/* Under the lock and without it, so it cannot take it. */
static int see_nothing_wrong(void *context, int handle, const skv_expected *expected)
{
    (void)context, (void)handle, (void)expected;
    return 0;
}

static void *append_and_wait(void *unused)
{
    (void)unused;
    for (uint32_t i = 0; i < PUTS; i++) {
        uint64_t position = 0;
        pthread_mutex_lock(&appending);
        int status = append_one(&shared, &position);
        pthread_mutex_unlock(&appending);
        REQUIRE(status == 0, "%s", strerror(-status));
        REQUIRE(skv_wal_sync(&shared.wal, position) == 0, "sync");
        pthread_mutex_lock(&appending);
        size_t safe = shared.d->files[0].safe_size;
        pthread_mutex_unlock(&appending);
        REQUIRE(safe >= SKV_SEGMENT_HEAD + position, "it returned before");
        atomic_fetch_add(&synced_appends, 1);
    }
    return NULL;
}

static void run_in_threads(void *(*body)(void *))
{
    pthread_t threads[THREADS];
    for (uint32_t i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, body, NULL) == 0, "pthread_create");
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

/* A file without its name, or with another one under it, takes frames and syncs as before, which nobody is to be told. */
static void a_log_that_is_gone(void)
{
    disk *d = disk_new();
    journal j = {0};
    uint64_t position = 0, end;
    char name[SKV_NAME_ROOM];
    uint8_t copy[4096];
    REQUIRE(open_journal(&j, d) == 0 && append_one(&j, &position) == 0, "an empty folder");
    skv_segment_name(SKV_SEGMENT_LOG, 1, name);
    const int64_t size = disk_read(d, j.wal.handle, copy, sizeof copy, 0);
    end = skv_load(&j.state.end);
    for (uint32_t turn = 0; turn < 2; turn++) {
        if (turn == 0)
            REQUIRE(disk_unlink(d, name) == 0, "its name");
        else
            REQUIRE(disk_write(d, disk_open(d, name, SKV_OPEN_NEW), copy, (size_t)size, 0) == 0, "a copy");
        REQUIRE(skv_wal_sync(&j.wal, end) == -ESTALE, "a sync is believed");
        REQUIRE(skv_wal_look_locked(&j.wal) == -ESTALE, "a look");
        REQUIRE(skv_wal_rotate_locked(&j.wal) == -ESTALE, "a rotation is believed");
        skv_wal_close(&j.wal);              /* as after a fork: the file is found by its name         */
        REQUIRE(skv_wal_sync(&j.wal, end) == -ESTALE, "a sync of what is under the name is believed");
        REQUIRE(skv_load(&j.state.synced) < end, "it counts as synced");
    }
    close_journal(&j);
    disk_free(d);
}

/* One syncs for all who wait: far fewer syncs than appends. */
static void group_commit(void)
{
    disk *d = disk_new();
    shared = (journal){0};
    REQUIRE(open_journal(&shared, d) == 0, "an empty folder");
    shared.wal.files.sync = slow_sync;
    shared.wal.files.open = open_alone;
    shared.wal.files.read = read_alone;
    shared.wal.files.look = see_nothing_wrong;
    run_in_threads(append_and_wait);
    REQUIRE(synced_appends == THREADS * PUTS, "all of them");
    REQUIRE(d->syncs < THREADS * PUTS / 2, "%" PRIu64 " syncs for %d appends", d->syncs, THREADS * PUTS);
    close_journal(&shared);
    disk_free(d);
}

/* ---- One of two syncs fails ------------------------------------------------------------------------------------------------ */

static skv_wal beside;                  /* of another process, over the same state                */
static bool first_fails;

static bool never_lead(void *context, _Atomic uint32_t *lock) { (void)context, (void)lock; return false; }

/* While one syncs, another one, tired of waiting for it, does so too; the error is told to one of them. */
static int sync_beside(void *context, int handle)
{
    disk *d = context;
    const uint64_t end = skv_load(&beside.state->end);
    if (!first_fails) {
        d->fail_at = d->calls + 1;
        REQUIRE(disk_sync(d, handle) == -EIO, "it fails");
        first_fails = true;             /* both are in it; this one hears of it later         */
        REQUIRE(skv_wal_sync(&beside, end) == -EIO, "the one that is told says so");
        return 0;
    }
    return -EIO;
}

static void a_failure_beside_a_sync(void)
{
    journal j = {0};
    uint64_t position;
    disk *d = disk_new();
    d->error = EIO;
    REQUIRE(open_journal(&j, d) == 0 && append_one(&j, &position) == 0, "append");
    j.wal.files.sync = sync_beside;
    beside = j.wal;
    beside.synced.handle = -1;
    beside.turns.try_lead = never_lead;
    beside.turns.wait = wait_no_time;
    first_fails = false;
    REQUIRE(skv_wal_sync(&j.wal, position) == -EROFS, "a success beside a failure is none");
    REQUIRE(skv_load(&j.state.synced) < position, "nothing is on stable storage");
    REQUIRE(skv_wal_sync(&j.wal, position) == -EROFS && skv_wal_sync(&beside, position) == -EROFS, "it has failed for all");
    skv_wal_close(&beside);
    close_journal(&j);
    disk_free(d);
}

enum { GOOD_SYNCS = 20 };
static _Atomic uint32_t syncs_left, errors_told;

static int sync_that_fails(void *context, int handle)
{
    disk *d = context;
    pthread_mutex_lock(&appending);
    if (atomic_fetch_sub(&syncs_left, 1) == 1)
        d->fail_at = d->calls + 1;
    int status = disk_sync(d, handle);
    pthread_mutex_unlock(&appending);
    usleep(300);                        /* for the others to come                             */
    return status;
}

static void *append_until_told(void *unused)
{
    (void)unused;
    for (;;) {
        uint64_t position = 0;
        pthread_mutex_lock(&appending);
        int status = append_one(&shared, &position);
        pthread_mutex_unlock(&appending);
        if (status == 0)
            status = skv_wal_sync(&shared.wal, position);
        pthread_mutex_lock(&appending);
        size_t safe = shared.d->files[0].safe_size;
        pthread_mutex_unlock(&appending);
        REQUIRE(status || safe >= SKV_SEGMENT_HEAD + position, "it was told a success, and is not on stable storage");
        if (status == 0)
            continue;
        REQUIRE(status == -EIO || status == -EROFS, "%s", strerror(-status));
        atomic_fetch_add(&errors_told, 1);
        return NULL;
    }
}

/* All who wait for a sync that fails are told, and all who come later. */
static void a_group_that_fails(void)
{
    disk *d = disk_new();
    d->error = EIO;
    shared = (journal){0};
    REQUIRE(open_journal(&shared, d) == 0, "an empty folder");
    shared.wal.files.sync = sync_that_fails;
    shared.wal.files.open = open_alone;
    shared.wal.files.read = read_alone;
    shared.wal.files.look = see_nothing_wrong;
    errors_told = 0;
    syncs_left = GOOD_SYNCS;
    run_in_threads(append_until_told);
    REQUIRE(errors_told == THREADS, "%u of %u were told", errors_told, THREADS);
    close_journal(&shared);
    disk_free(d);
}

static const test tests[] = {
    {"power_cuts", power_cuts},
#ifdef SKV_CRASH_POINTS
    {"kills", kills},
    {"bad_news", bad_news},
#endif
    {"half_a_frame", half_a_frame},
    {"failing_calls", failing_calls},
    {"rot", rot},
    {"frames_out_of_order", frames_out_of_order},
    {"files_that_do_not_belong", files_that_do_not_belong},
    {"a_log_that_is_gone", a_log_that_is_gone},
    {"group_commit", group_commit},
    {"a_failure_beside_a_sync", a_failure_beside_a_sync},
    {"a_group_that_fails", a_group_that_fails},
};

/* test_wal SEED CUTS [NAME...] */
int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        cuts = (uint32_t)strtoul(argv[2], NULL, 10);
    int status = run_tests(tests, COUNT(tests), argv + (argc > 2 ? 3 : argc), 120);
#ifdef SKV_CRASH_POINTS
    for (size_t i = 0; i < COUNT(points); i++)
        printf("killed %s %u\n", points[i], killed[i]);
#endif
    return status;
}
