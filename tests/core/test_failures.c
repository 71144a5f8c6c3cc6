/* test_failures.c: the n-th allocation of memory fails, or the n-th call to the kernel, for every n and every operation.
 *
 * What: an operation that is refused so says why, and has changed nothing or all of what it was asked for; the next one,
 *       with nothing failing, succeeds; the store is clean.
 * How:  this program's own malloc, mmap, fallocate ... take the place of the C library's, and fail when it is their turn.
 *       An operation is repeated with n = 1, 2, ... until it comes to its end without having met a failure.
 */
#include "util.h"

#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define IDS   400u
#define SIZE  (24 * MIB)
#define MOST  400u              /* failures of one operation                                  */

/* ---- What fails ---------------------------------------------------------------------------- */

enum failing { NOTHING, MEMORY, KERNEL };

static enum failing failing;
static uint32_t countdown;
static int failure;             /* errno of a call to the kernel                              */

static bool fails(enum failing what)
{
    return failing == what && countdown && --countdown == 0;
}

static bool kernel_fails(void)
{
    if (!fails(KERNEL))
        return false;
    errno = failure;
    return true;
}

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

void *malloc(size_t n) { return fails(MEMORY) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t each) { return fails(MEMORY) ? NULL : __libc_calloc(n, each); }
void *realloc(void *old, size_t n) { return fails(MEMORY) ? NULL : __libc_realloc(old, n); }
void *aligned_alloc(size_t unit, size_t n) { return fails(MEMORY) ? NULL : __libc_memalign(unit, n); }

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    return kernel_fails() ? MAP_FAILED : (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
}
int madvise(void *at, size_t n, int advice)
{
    return kernel_fails() ? -1 : (int)syscall(SYS_madvise, at, n, advice);
}
int ftruncate(int fd, off_t n)
{
    return kernel_fails() ? -1 : (int)syscall(SYS_ftruncate, fd, n);
}
int fallocate(int fd, int mode, off_t offset, off_t n)
{
    return kernel_fails() ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, n);
}
int fstat(int fd, struct stat *out)
{
    return kernel_fails() ? -1 : (int)syscall(SYS_fstat, fd, out);
}
ssize_t pread(int fd, void *out, size_t n, off_t offset)
{
    return kernel_fails() ? -1 : (ssize_t)syscall(SYS_pread64, fd, out, n, offset);
}
int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    int mode = flags & O_CREAT ? va_arg(args, int) : 0;
    va_end(args);
    return kernel_fails() ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int fcntl(int fd, int command, ...)
{
    va_list args;
    va_start(args, command);
    void *argument = va_arg(args, void *);
    va_end(args);
    return kernel_fails() ? -1 : (int)syscall(SYS_fcntl, fd, command, argument);
}

/* ---- Operations on a store --------------------------------------------------------------------- */

typedef struct shop {
    box b;
    uint64_t counter[IDS];      /* 0 = absent                                                 */
    uint64_t turn;
    found scratch;
} shop;

/* What the operation changes: ids from `first`, `count` of them; all get the turn's number, or are gone. */
typedef struct operation {
    const char *name;
    skv_status (*run)(shop *);
    uint64_t first, count;
    bool removes;
} operation;

static skv_status run_put(shop *w) { return put_value(w->b.store, 1, w->turn, 3000, 0); }
static skv_status run_large(shop *w)
{
    static uint8_t value[1300000];      /* put_value would take memory for it                 */
    make_value(value, 2, w->turn, sizeof value);
    return put_bytes(w->b.store, 2, value, sizeof value, 0);
}
static skv_status run_delete(shop *w)
{
    skv_status status = delete_id(w->b.store, 3);
    return status == SKV_MISSING ? SKV_OK : status;
}

static skv_status run_batch_of(shop *w, bool removes)
{
    enum { COUNT = 100, LEN = 900 };
    static uint8_t values[COUNT][LEN];
    static skv_item items[COUNT];
    static key_text texts[COUNT];
    skv_status status;
    uint32_t removed;
    for (uint64_t i = 0; i < COUNT; i++) {
        make_value(values[i], 100 + i, w->turn, LEN);
        items[i] = (skv_item){.key = key_for(w->b.store, 100 + i, &texts[i]), .value = values[i], .value_len = LEN,
                              .type = SKV_T_BYTES};
    }
    if (removes)
        INSIST(status, wait, skv_delete_many(w->b.store, items, COUNT, &removed, &wait));
    else
        INSIST(status, wait, skv_put_many(w->b.store, items, COUNT, &wait));
    return status;
}
static skv_status run_batch(shop *w) { return run_batch_of(w, false); }
static skv_status run_removal(shop *w) { return run_batch_of(w, true); }
static skv_status run_clear(shop *w) { return clear_all(w->b.store); }

static skv_status run_compact(shop *w)
{
    skv_compact_report report;
    return compact_all(w->b.store, &report);
}

static skv_status run_check(shop *w)
{
    skv_check_result result = {0};
    uint64_t problems = skv_check(w->b.store, print_problem, NULL, &result);
    REQUIRE(problems == 0, "check blames the store for a failure that is not its own");
    return SKV_OK;
}

static skv_status run_walk(shop *w)
{
    skv_copies copies = {0};
    skv_status status = SKV_OK;
    for (uint64_t i = 0; i < skv_bucket_count(w->b.store) && status == SKV_OK; i++)
        status = skv_copy_bucket(w->b.store, i, true, NULL, NULL, &copies);
    free(copies.items);
    free(copies.bytes);
    return status;
}

static skv_status run_frozen_read(shop *w)
{
    key_text text;
    skv_key key = key_for(w->b.store, 1, &text);
    skv_frozen *frozen = skv_freeze(w->b.store, &key, 1);
    skv_thaw(w->b.store, frozen);
    return frozen ? SKV_OK : SKV_NO_MEMORY;
}

static const operation operations[] = {
    {"put", run_put, 1, 1, false},           {"put of a run of pages", run_large, 2, 1, false},
    {"delete", run_delete, 3, 1, true},      {"put_many", run_batch, 100, 100, false},
    {"delete_many", run_removal, 100, 100, true}, {"clear", run_clear, 0, IDS, true},
    {"compact", run_compact, 0, 0, false},   {"check", run_check, 0, 0, false},
    {"walk", run_walk, 0, 0, false},         {"frozen read", run_frozen_read, 0, 0, false},
};

/* ---- Judging ------------------------------------------------------------------------------------- */

static void fill(shop *w)
{
    w->turn++;
    for (uint64_t id = 0; id < IDS; id++) {
        REQUIRE_OK(put_value(w->b.store, id, w->turn, 100 + id * 20, 0));
        w->counter[id] = w->turn;
    }
    for (uint64_t id = 0; id < IDS; id += 3) {      /* pages with gaps, for compact          */
        REQUIRE_OK(delete_id(w->b.store, id));
        w->counter[id] = 0;
    }
}

/* All that the operation names is changed, or nothing; the rest is as it was. */
static void judge(shop *w, const operation *op, skv_status status)
{
    uint64_t changed = 0;
    for (uint64_t id = 0; id < IDS; id++) {
        uint64_t seen = counter_of(w->b.store, id, &w->scratch);
        bool meant = id >= op->first && id < op->first + op->count;
        uint64_t after = meant && !op->removes ? w->turn : meant ? 0 : w->counter[id];
        REQUIRE(seen == w->counter[id] || seen == after, "%s: key %d holds %d", op->name, (int)id, (int)seen);
        REQUIRE(status || seen == after, "%s: key %d was not changed", op->name, (int)id);
        changed += seen != w->counter[id];
        w->counter[id] = seen;
    }
    REQUIRE(status == SKV_OK || changed == 0, "%s: status %d, and %d keys are changed", op->name, (int)status, (int)changed);
}

/* True: the operation met the failure. */
static bool meet_failure(shop *w, const operation *op, enum failing what, uint32_t n)
{
    w->turn++;
    failing = what;
    countdown = n;
    skv_status status = op->run(w);
    bool met = countdown == 0;
    failing = NOTHING;
    REQUIRE(met || status == SKV_OK, "%s: status %d without a failure", op->name, (int)status);
    judge(w, op, status);
    return met;
}

/* In a store of its own each time, so that it has to grow. */
static uint32_t fail_at_each(const operation *op, enum failing what, int error)
{
    failure = error;
    uint32_t n = 1;
    for (bool met = true; met; n++) {
        REQUIRE(n < MOST, "%s: there is always one more", op->name);
        shop w = {.turn = 1};
        make_box(&w.b, SIZE, 0);
        fill(&w);
        met = meet_failure(&w, op, what, n);
        require_clean(w.b.store);
        w.turn++;
        judge(&w, op, op->run(&w));
        require_no_leaks(w.b.store);
        free(w.scratch.value);
        remove_box(&w.b);
    }
    return n - 2;
}

static void test_operations(void)
{
    static const int errors[] = {ENOSPC, ENOMEM, EIO, EINVAL};
    for (size_t i = 0; i < COUNT(operations); i++) {
        uint32_t memory = fail_at_each(&operations[i], MEMORY, 0), kernel = 0;
        for (size_t e = 0; e < COUNT(errors); e++)
            kernel += fail_at_each(&operations[i], KERNEL, errors[e]);
        printf("%s: %u failures of memory, %u of the kernel\n", operations[i].name, memory, kernel);
    }
}

/* ---- The life of a region -------------------------------------------------------------------------- */

/* Create, attach, put, detach; with the status of the first step that fails. */
static skv_status live(box *b, const skv_params *p, bool fixed_size)
{
    bool created;
    skv_status status = skv_region_create(b->fd, p, fixed_size, &created);
    if (status == SKV_OK)
        status = skv_region_attach(b->fd, false, &b->region);
    if (status)
        return status;
    b->store = skv_region_store(b->region);
    status = put_value(b->store, 1, 1, 100, 0);
    detach_box(b);
    return status;
}

static void live_after_failure(box *b, bool fixed_size)
{
    found f = {0};
    bool created;
    skv_params p = params_for(2 * MIB, 0);
    REQUIRE_OK(skv_region_create(b->fd, &p, fixed_size, &created));
    attach_box(b, false);
    REQUIRE_OK(put_value(b->store, 2, 7, 100, 0));
    REQUIRE(counter_of(b->store, 2, &f) == 7, "what was put is there");
    require_clean(b->store);
    free(f.value);
}

static uint32_t fail_in_each_step_of_a_life(bool fixed_size, enum failing what, int error)
{
    failure = error;
    bool met = true;
    uint32_t n = 1;
    for (; met; n++) {
        REQUIRE(n < MOST, "there is always one more");
        box b = {0};
        open_object(&b);
        if (fixed_size)
            REQUIRE(ftruncate(b.fd, 2 * MIB) == 0, "ftruncate: %s", strerror(errno));
        skv_params p = params_for(2 * MIB, 0);
        failing = what;
        countdown = n;
        skv_status status = live(&b, &p, fixed_size);
        met = countdown == 0;
        failing = NOTHING;
        REQUIRE(met || status == SKV_OK, "status %d without a failure", (int)status);
        live_after_failure(&b, fixed_size);
        remove_box(&b);
    }
    return n - 2;
}

static void test_lives(void)
{
    static const int errors[] = {ENOSPC, ENOMEM, EIO, EAGAIN};
    for (int fixed_size = 0; fixed_size < 2; fixed_size++) {
        uint32_t memory = fail_in_each_step_of_a_life(fixed_size, MEMORY, 0), kernel = 0;
        for (size_t e = 0; e < COUNT(errors); e++)
            kernel += fail_in_each_step_of_a_life(fixed_size, KERNEL, errors[e]);
        REQUIRE(memory && kernel > 20, "only %u and %u failures", memory, kernel);
        printf("life: %u failures of memory, %u of the kernel\n", memory, kernel);
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {{"operations", test_operations}, {"lives", test_lives}};
    (void)argc;
    return run_tests(tests, COUNT(tests), argv + 1, 60);
}
