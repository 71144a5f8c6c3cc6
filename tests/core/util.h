/* util.h: what the engine's C tests share.
 *
 * What: a region of one's own, values that carry an equation, children with a time limit, a check of the whole store.
 * How:  a value holds its key's number, a counter, its own length, and bytes that follow from all three;
 *       one torn, lost or foreign byte breaks it.  So every reader can judge every value, whoever wrote it.
 */
#ifndef SKV_TEST_UTIL_H
#define SKV_TEST_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "compact.h"
#include "os.h"
#include "pages.h"
#include "read.h"

#define UNUSED __attribute__((unused))
#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 10u                /* a sanitizer may take so many times as long                 */
#else
#define SLOW 1u
#endif

/* ---- Failing ---------------------------------------------------------------------------- */

#define REQUIRE(condition, ...)                                                                  \
    do {                                                                                         \
        if (!(condition))                                                                        \
            fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                                   \
    } while (0)

#define REQUIRE_OK(call)                                                                         \
    do {                                                                                         \
        skv_status status_ = (call);                                                             \
        REQUIRE(status_ == SKV_OK, "status %d", (int)status_);                                   \
    } while (0)

static const char *now_testing = "";    /* name of the running test, for messages             */

__attribute__((noreturn, format(printf, 4, 5)))
static inline void fail(const char *file, int line, const char *condition, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "%s:%d: %s: not (%s): %s\n", file, line, now_testing, condition, text);
    fflush(NULL);
    _exit(1);
}

/* ---- Random numbers, clock ---------------------------------------------------------------- */

typedef struct rng { uint64_t x; } rng;

static inline uint64_t mix64(uint64_t x)
{
    x ^= x >> 31;
    x *= UINT64_C(0x7fb5d329728ea185);
    x ^= x >> 27;
    x *= UINT64_C(0x81dadef4bc2dd44d);
    return x ^ x >> 33;
}
static inline uint64_t rnd(rng *r) { return mix64(r->x += UINT64_C(0x9e3779b97f4a7c15)); }
static inline uint32_t below(rng *r, uint32_t n) { return (uint32_t)(rnd(r) % n); }
static inline double now_s(void) { return (double)skv_os_monotonic_ns() * 1e-9; }

/* ---- Regions -------------------------------------------------------------------------------- */

typedef struct box {
    char        name[64];
    int         fd;
    skv_region *region;
    skv        *store;
} box;

/* The runner removes what a killed test leaves: names begin so. */
#define NAME_PREFIX "/shmkv-core-"

static inline void name_box(box *b)
{
    static int serial;
    snprintf(b->name, sizeof b->name, NAME_PREFIX "%d-%d", (int)getpid(), serial++);
}

static inline skv_params params_for(uint64_t size, uint16_t flags)
{
    skv_params p = {.size = size, .flags = flags, .hash_seed = 42, .created_boot_ms = skv_os_boot_ms(),
                    .created_wall_ms = skv_os_wall_ms(), .time_namespace = skv_os_time_namespace(),
                    .uid = getuid(), .mode = 0600};
    REQUIRE(skv_os_boot_id(p.boot_id), "boot id: %s", strerror(errno));
    return p;
}

static inline void attach_box(box *b, bool read_only)
{
    REQUIRE_OK(skv_region_attach(b->fd, read_only, &b->region));
    b->store = skv_region_store(b->region);
}

static inline void open_object(box *b)
{
    name_box(b);
    b->fd = shm_open(b->name, O_RDWR | O_CREAT | O_EXCL, 0600);
    REQUIRE(b->fd >= 0, "shm_open %s: %s", b->name, strerror(errno));
}

static inline void make_box(box *b, uint64_t size, uint16_t flags)
{
    bool created;
    skv_params p = params_for(size, flags);
    open_object(b);
    REQUIRE_OK(skv_region_create(b->fd, &p, false, &created));
    REQUIRE(created, "nobody else knows the name");
    attach_box(b, false);
}

static inline void detach_box(box *b)
{
    skv_region_detach(b->region);
    b->region = NULL;
    b->store = NULL;
}

static inline void remove_box(box *b)
{
    if (b->region)
        detach_box(b);
    shm_unlink(b->name);
    close(b->fd);
}

/* ---- Values ---------------------------------------------------------------------------------- */

#define VALUE_HEAD 24u
#define ANY_KEY UINT64_MAX

typedef struct value_head { uint64_t id, counter, len; } value_head;

static inline uint8_t fill_byte(uint64_t base, size_t i)
{
    return (uint8_t)((base >> (i % 8 * 8)) + i / 8 * 31);
}

static inline void make_value(uint8_t *out, uint64_t id, uint64_t counter, size_t len)
{
    value_head head = {id, counter, len};
    uint64_t base = mix64(id * 3 + counter * 7 + len);
    memcpy(out, &head, sizeof head);
    for (size_t i = sizeof head; i < len; i++)
        out[i] = fill_byte(base, i);
}

/* The counter of a value, or UINT64_MAX where the equation does not hold. */
static inline uint64_t read_value(const uint8_t *value, size_t len, uint64_t id)
{
    value_head head;
    if (len < sizeof head)
        return UINT64_MAX;
    memcpy(&head, value, sizeof head);
    if (head.len != len || (id != ANY_KEY && head.id != id))
        return UINT64_MAX;
    uint64_t base = mix64(head.id * 3 + head.counter * 7 + len);
    for (size_t i = sizeof head; i < len; i++)
        if (value[i] != fill_byte(base, i))
            return UINT64_MAX;
    return head.counter;
}

/* ---- Keys and single operations ------------------------------------------------------------------ */

typedef struct key_text { char text[24]; } key_text;

static inline skv_key key_for(const skv *store, uint64_t id, key_text *text)
{
    int n = snprintf(text->text, sizeof text->text, "key:%08" PRIu64, id);
    return skv_hash_key(store, text->text, (uint32_t)n, false);
}

/* The number in a copied key, which no NUL ends. */
static inline uint64_t id_in_key(const uint8_t *key)
{
    char digits[9] = {0};
    memcpy(digits, key + 4, 8);
    return strtoull(digits, NULL, 10);
}

static inline skv_wait patient(void)
{
    return (skv_wait){.block = true, .shared = true};
}

/* The first try is made as by a thread that holds the GIL: only one thread of a process writes (spare.h). */
UNUSED static bool one_thread;

/* As the binding does: first without waiting, then in slices, until it is done. */
#define INSIST(status, wait, call)                                                               \
    do {                                                                                         \
        skv_wait wait = {.block = false, .shared = !one_thread};                                      \
        (status) = (call);                                                                       \
        while ((status) == SKV_BUSY) {                                                           \
            wait = patient();                                                                    \
            (status) = (call);                                                                   \
        }                                                                                        \
    } while (0)

UNUSED static skv_status put_bytes(skv *store, uint64_t id, const void *value, size_t len, uint64_t expires_ms)
{
    key_text text;
    skv_item item = {.key = key_for(store, id, &text), .value = value, .value_len = len, .type = SKV_T_BYTES,
                     .expires_ms = expires_ms};
    skv_status status;
    INSIST(status, wait, skv_put(store, &item, SKV_PUT_ANY, 0, &wait));
    return status;
}

UNUSED static skv_status put_value(skv *store, uint64_t id, uint64_t counter, size_t len, uint64_t expires_ms)
{
    uint8_t small[4096], *value = len > sizeof small ? malloc(len) : small;
    REQUIRE(value, "no memory");
    make_value(value, id, counter, len);
    skv_status status = put_bytes(store, id, value, len, expires_ms);
    if (value != small)
        free(value);
    return status;
}

UNUSED static skv_status delete_id(skv *store, uint64_t id)
{
    key_text text;
    skv_key key = key_for(store, id, &text);
    skv_status status;
    INSIST(status, wait, skv_delete(store, &key, 0, &wait));
    return status;
}

UNUSED static skv_status clear_all(skv *store)
{
    skv_status status;
    INSIST(status, wait, skv_clear(store, &wait));
    return status;
}

UNUSED static skv_status compact_all(skv *store, skv_compact_report *report)
{
    skv_status status;
    INSIST(status, wait, skv_compact(store, report, &wait));
    if (status == SKV_OK)
        INSIST(status, wait, skv_return_memory(store, &wait));
    return status;
}

/* A copy of one item, taken as the protocol in read.h says. */
typedef struct found {
    bool     there;
    uint8_t *value;             /* room for `room` bytes, grown with realloc                  */
    size_t   room;
    uint32_t len;
    uint8_t  type;
    uint64_t version, expires_ms;
    uint32_t tries;
} found;

/* False: disturbed, or more room is needed. */
static inline bool copy_view(const skv_view *view, found *out)
{
    out->there = view->record != NULL;
    if (!out->there)
        return true;
    out->len = view->value_len;
    out->type = view->type;
    out->version = view->version;
    out->expires_ms = view->expires_ms;
    if (out->len > out->room) {
        if (!skv_validate(view))
            return false;
        out->room = out->len;
        out->value = realloc(out->value, out->room);
        REQUIRE(out->value, "no memory");
    }
    if (out->len)
        skv_copy_racy(out->value, view->value, out->len);
    return true;
}

UNUSED static bool get_id(skv *store, uint64_t id, found *out)
{
    key_text text;
    skv_key key = key_for(store, id, &text);
    for (out->tries = 0;; out->tries++) {
        skv_frozen *frozen = out->tries > 2 * SKV_READ_TRIES ? skv_freeze(store, &key, 1) : NULL;
        skv_view view;
        skv_find(store, &key, &view);
        bool good = copy_view(&view, out) && skv_validate(&view);
        skv_thaw(store, frozen);
        if (good) {
            skv_warm(store, &view);
            out->there = out->there && !skv_is_expired(store, out->expires_ms);
            return out->there;
        }
        REQUIRE(out->tries < 10000000, "a reader of key %" PRIu64 " is overtaken for ever", id);
        skv_relax(store, &view, out->tries);
    }
}

/* The counter under a key: 0 = absent.  A broken equation ends the test. */
UNUSED static uint64_t counter_of(skv *store, uint64_t id, found *scratch)
{
    if (!get_id(store, id, scratch))
        return 0;
    uint64_t counter = read_value(scratch->value, scratch->len, id);
    REQUIRE(counter != UINT64_MAX, "key %" PRIu64 ": torn or foreign value of %u bytes", id, scratch->len);
    return counter;
}

/* ---- Children ------------------------------------------------------------------------------------- */

typedef void (*child_body)(void *context);

/* The child ends with the body, or after `seconds`, or with its parent. */
UNUSED static pid_t start_child(child_body body, void *context, unsigned seconds)
{
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: %s", strerror(errno));
    if (pid)
        return pid;
    alarm(seconds * SLOW);
    body(context);
    fflush(NULL);
    _exit(0);
}

UNUSED static int wait_child(pid_t pid)
{
    int status;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    REQUIRE(got == pid, "waitpid: %s", strerror(errno));
    return status;
}

UNUSED static void finish_child(pid_t pid)
{
    int status = wait_child(pid);
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child %s %d",
            WIFSIGNALED(status) ? "died of signal" : "ended with",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

/* Memory that parent and children share, zeroed. */
UNUSED static void *share(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

/* ---- The whole store -------------------------------------------------------------------------------- */

/* Blocks that are in use and that nothing names, by another road than check.c's. */
typedef struct leak_walk {
    skv *store;
    skv_names names;
    uint64_t leaked, used;
} leak_walk;

static inline bool count_leak(void *context, uint64_t offset, uint32_t size)
{
    leak_walk *walk = context;
    (void)size;
    walk->used++;
    walk->leaked += !skv_is_named(walk->store, &walk->names, offset);
    return true;
}

UNUSED static uint64_t count_leaks(skv *store)
{
    leak_walk walk = {.store = store};
    REQUIRE(skv_names_collect(store, &walk.names), "no memory");
    for (uint32_t page = 0; page < skv_committed_pages(store); page++) {
        uint64_t word = skv_load(&store->pages[page].word);
        if (skv_pw_state(word) == SKV_PAGE_BLOCKS)
            skv_page_walk(store, page, skv_pw_class(word), count_leak, &walk);
        else if (skv_pw_state(word) == SKV_PAGE_RUN)
            count_leak(&walk, skv_page_start(store, page), 0);
    }
    free(walk.names.bits);
    return walk.leaked;
}

static inline void print_problem(void *context, const char *invariant, const char *sentence)
{
    (void)context;
    fprintf(stderr, "%s: %s: %s\n", now_testing, invariant, sentence);
}

/* check.c belongs to the engine; a build without it still runs these tests. */
extern uint64_t skv_check(skv *, skv_problem, void *, skv_check_result *) __attribute__((weak));

/* No invariant is broken.  Leaks are allowed: see require_no_leaks. */
UNUSED static void require_clean(skv *store)
{
    skv_check_result result = {0};
    if (!skv_check)
        return;
    uint64_t problems = skv_check(store, print_problem, NULL, &result);
    REQUIRE(problems == 0, "check found %" PRIu64 " problems", problems);
}

/* Nobody else works in the store: after one compact() nothing leaks and nothing is broken. */
UNUSED static void require_no_leaks(skv *store)
{
    skv_compact_report report;
    skv_check_result result = {0};
    REQUIRE_OK(compact_all(store, &report));
    require_clean(store);
    uint64_t leaks = count_leaks(store);
    REQUIRE(leaks == 0, "%" PRIu64 " blocks are still leaked after compact()", leaks);
    if (skv_check)
        skv_check(store, print_problem, NULL, &result);
    REQUIRE(result.blocks_leaked == 0, "check counts %" PRIu64 " leaked blocks after compact()", result.blocks_leaked);
}

/* ---- Running ------------------------------------------------------------------------------------------- */

typedef struct test {
    const char *name;
    void (*run)(void);
} test;

/* All tests, or those whose names contain one of the words; the time limit is for all of them. */
UNUSED static int run_tests(const test *tests, size_t count, char **words, unsigned seconds)
{
    alarm(seconds * SLOW);
    for (size_t i = 0; i < count; i++) {
        bool chosen = *words == NULL;
        for (char **word = words; *word; word++)
            chosen = chosen || strstr(tests[i].name, *word);
        if (!chosen)
            continue;
        now_testing = tests[i].name;
        double start = now_s();
        tests[i].run();
        printf("ok %s (%.2f s)\n", tests[i].name, now_s() - start);
        fflush(stdout);
    }
    return 0;
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

#endif
