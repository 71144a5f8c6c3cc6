/* fuzz_box.h: a region on plain memory whose every byte beyond what is committed is out of bounds.
 *
 * What: memory for a region that ends at a page nobody may touch, an operating system for the engine, and a clock.
 * How:  the region lies at the very end of a mapping, before a guard page; AddressSanitizer is told that everything
 *       is poisoned but the fixed areas, the descriptors of committed pages, and these pages.  So a look at memory
 *       that nobody allocated, which on a full tmpfs would be SIGBUS, ends the run here.  The engine is compiled with
 *       -Dclock_gettime=box_clock_gettime and so on: time passes with each question and with each sleep, so that
 *       waiting behind a lock that is never given back takes microseconds, and every execution is the same every
 *       time.
 *
 * Concurrency: none; one thread.
 */
#ifndef SKV_FUZZ_BOX_H
#define SKV_FUZZ_BOX_H

#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#undef clock_gettime
#undef nanosleep
#undef sched_yield
int clock_gettime(clockid_t clock, struct timespec *out);

#include "compact.h"
#include "pages.h"
#include "read.h"

#define KIB UINT64_C(1024)
#define MIB (UINT64_C(1) << 20)
#define GUARD (UINT64_C(64) * KIB)
#define UNUSED __attribute__((unused))

#define INSIST_ON(condition, ...)                                                                \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "%s:%d: not (%s): ", __FILE__, __LINE__, #condition);                \
            fprintf(stderr, __VA_ARGS__);                                                        \
            fputc('\n', stderr);                                                                 \
            abort();                                                                             \
        }                                                                                        \
    } while (0)

/* ---- Time ------------------------------------------------------------------------------------ */

#define BOOT_NS    UINT64_C(1000000000000)
#define TICK_NS    UINT64_C(20000)      /* that pass with each look at the clock                */
#define LEAST_NAP  UINT64_C(5000000)    /* a nap of 50 microseconds, a thousand times, is a lot */

static uint64_t box_now_ns = BOOT_NS;

int box_clock_gettime(clockid_t clock, struct timespec *out);
int box_nanosleep(const struct timespec *span, struct timespec *left);
int box_sched_yield(void);

int box_clock_gettime(clockid_t clock, struct timespec *out)
{
    (void)clock;
    box_now_ns += TICK_NS;
    *out = (struct timespec){(time_t)(box_now_ns / 1000000000), (long)(box_now_ns % 1000000000)};
    return 0;
}

int box_nanosleep(const struct timespec *span, struct timespec *left)
{
    uint64_t ns = (uint64_t)span->tv_sec * 1000000000 + (uint64_t)span->tv_nsec;
    (void)left;
    box_now_ns += ns > LEAST_NAP ? ns : LEAST_NAP;
    return 0;
}

int box_sched_yield(void)
{
    box_now_ns += TICK_NS;
    return 0;
}

/* What the processor really spent; the other clocks are made up. */
UNUSED static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- A region and who lives in it ------------------------------------------------------------ */

typedef struct box {
    uint8_t  *base;             /* page-aligned; a guard lies behind base + size                */
    uint64_t  size;
    skv_fixed fixed;            /* what the region was opened with                              */
    skv      *store;
    uint64_t  low, high;        /* ends of the committed descriptors and pages: all below is accessible */
    uint32_t  living;           /* bit n: the process of slot n lives (n < 32; the others are dead) */
    bool      alone;
    uint32_t  fail_commit;      /* the n-th commit from now on fails; 0 = none                  */
} box;

/* A file, or fd -1 and zeroes. */
static void box_map(box *b, uint64_t size, int sharing, int fd)
{
    *b = (box){.size = size};
    uint8_t *room = mmap(NULL, size + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    INSIST_ON(room != MAP_FAILED, "no address space");
    const int kind = sharing | MAP_FIXED | (fd < 0 ? MAP_ANONYMOUS : 0);
    b->base = mmap(room + GUARD, size, PROT_READ | PROT_WRITE, kind, fd, 0);
    INSIST_ON(b->base == room + GUARD, "no memory");
}

/* What is allocated of a region with this header, if `committed` pages are. */
static void box_fence(box *b, uint64_t committed)
{
    const skv_fixed *f = &b->fixed;
    uint64_t pages = committed < f->pages ? committed : f->pages;
    b->low = f->descriptors_offset + pages * sizeof(skv_page);
    b->high = f->pages_offset + (pages << SKV_PAGE_SHIFT);
    __asan_poison_memory_region(b->base, b->size);
    __asan_unpoison_memory_region(b->base, b->low);
    __asan_unpoison_memory_region(b->base + f->pages_offset, b->high - f->pages_offset);
}

static skv_status box_commit(void *context, uint64_t offset, uint64_t len)
{
    box *b = context;
    INSIST_ON(offset <= b->size && len <= b->size - offset, "commit of bytes beyond the region");
    if (b->fail_commit && --b->fail_commit == 0)
        return SKV_NO_SPACE;
    __asan_unpoison_memory_region(b->base + offset, len);
    uint64_t *end = offset < b->fixed.pages_offset ? &b->low : &b->high;
    if (offset + len > *end)
        *end = offset + len;
    return SKV_OK;
}

static void box_punch(void *context, uint64_t offset, uint64_t len)
{
    box *b = context;
    INSIST_ON(offset >= b->fixed.pages_offset && offset <= b->size && len <= b->size - offset,
              "a punch beyond the pages");
    memset(b->base + offset, 0, len);
}

static bool box_alone(void *context) { return ((box *)context)->alone; }
static void box_not_alone(void *context) { (void)context; }
static uint64_t box_now_ms(void *context)
{
    (void)context;
    return (box_now_ns += TICK_NS) / 1000000;
}

static void box_identify(void *context, uint32_t *pid, uint64_t *start_time, uint64_t *pid_namespace)
{
    (void)context;
    *pid = 4711;
    *start_time = *pid_namespace = 1;
}

static void box_futex_wait(void *context, _Atomic uint32_t *word, uint32_t expected, uint32_t timeout_ms)
{
    (void)context, (void)word, (void)expected;
    box_now_ns += timeout_ms * UINT64_C(1000000);
}

static void box_futex_wake(void *context, _Atomic uint32_t *word) { (void)context, (void)word; }

static bool box_lives(const box *b, uint32_t slot)
{
    INSIST_ON(slot < SKV_PROCS, "slot %u", slot);
    return slot < 32 && (b->living >> slot & 1);
}

static bool box_claim_dead(void *context, uint32_t slot) { return !box_lives(context, slot); }
static void box_release_dead(void *context, uint32_t slot) { (void)context, (void)slot; }

/* Whoever registers lives from then on. */
static bool box_claim_own(void *context, uint32_t slot)
{
    box *b = context;
    if (box_lives(b, slot))
        return false;
    if (slot < 32)
        b->living |= 1u << slot;
    return true;
}

/* Opens what lies at `base`; `fixed` is what was read from there. */
static skv_status box_open(box *b, const skv_fixed *fixed, bool read_only)
{
    const skv_os os = {
        .context = b, .commit = box_commit, .punch = box_punch,
        .acquire_alone = box_alone, .release_alone = box_not_alone,
        .now_ms = box_now_ms, .identify = box_identify, .futex_wait = box_futex_wait, .futex_wake = box_futex_wake,
        .claim_dead = box_claim_dead, .release_dead = box_release_dead, .claim_own = box_claim_own,
    };
    b->store = NULL;
    skv_status status = skv_check_fixed(fixed, b->size);
    if (status)
        return status;
    b->fixed = *fixed;
    box_fence(b, ((skv_header *)(void *)b->base)->committed_pages);
    status = skv_open(b->base, fixed, read_only, &os, &b->store);
    return status;
}

UNUSED static void box_close(box *b)
{
    if (b->store)
        skv_close(b->store);
    b->store = NULL;
}

/* An empty store in zeroed memory. */
UNUSED static void box_format(box *b, uint16_t flags)
{
    const skv_params params = {.size = b->size, .flags = flags, .hash_seed = 42};
    skv_fixed fixed;
    INSIST_ON(skv_plan(&params, &fixed) == SKV_OK, "no plan");
    skv_format(b->base, &fixed);
    INSIST_ON(box_open(b, &fixed, false) == SKV_OK, "cannot open");
}

#endif
