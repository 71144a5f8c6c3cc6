/* os_memory.c: memory that is really there before anybody touches it, and its return.
 *
 * What: commit (allocate and populate a range of the region) and punch (give it back).
 * How:  three things can go wrong when a tmpfs page is first touched, and each is met before:
 *       1. the control group's limit: the kernel kills, it gives no error.  So the limits of all
 *          levels are compared with their use first, and a margin is left.
 *       2. the file system is full: fallocate says ENOSPC, and takes back what it had allocated.
 *       3. a hole is touched, SIGBUS: never, because of 2.  MADV_POPULATE_WRITE maps the pages now,
 *          so that no put pays for a page fault of some microseconds.
 *
 * Concurrency: any thread; who may commit which range is the engine's grow and page locks.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os_region.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23          /* Linux 5.14; older headers lack the name            */
#endif

/* ---- Control groups ------------------------------------------------------------------ */

#define MARGIN       (UINT64_C(16) << 20) /* for page tables, and for everything else here     */
#define NO_LIMIT     (UINT64_C(1) << 62)  /* v1 writes 2^63 rounded down to a page             */
#define MAX_LEVELS   32
#define TRUST_MS     100u               /* how long a look at the limits is good for          */
#define TRUST_PART   8u                 /* and for which part of the room it saw: other
                                           processes of the group use it up as well           */

typedef struct group_files {
    const char *mount, *limit, *use, *reclaimable;
} group_files;

static const group_files group_v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                     "memory.usage_in_bytes", "\ntotal_inactive_file "};
static const group_files group_v2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "\ninactive_file "};

static bool read_group_file(const group_files *files, const char *group, const char *name,
                            char *out, size_t room)
{
    char path[1200];
    if (snprintf(path, sizeof path, "%s%s/%s", files->mount, group, name) >= (int)sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, out, room - 1);
    skv_close_fd(fd);
    out[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* Bytes left in one group; page cache that is not in use counts as left, swap does not: whether
 * there is any cannot be relied upon.  "max" and unreadable files mean no limit. */
static uint64_t room_in_group(const group_files *files, const char *group)
{
    char text[8192];
    if (!read_group_file(files, group, files->limit, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    uint64_t limit = strtoull(text, NULL, 10);
    if (limit >= NO_LIMIT || !read_group_file(files, group, files->use, text, sizeof text))
        return UINT64_MAX;
    uint64_t use = strtoull(text, NULL, 10);
    if (read_group_file(files, group, "memory.stat", text, sizeof text)) {
        const char *line = strstr(text, files->reclaimable);
        if (line)
            limit += strtoull(line + strlen(files->reclaimable), NULL, 10);
    }
    return use < limit ? limit - use : 0;
}

/* The least room from `group` up to the root.  In a container without a namespace of its own the
 * path is the host's and only the root exists here, which then is the container's group. */
static uint64_t room_upwards(const group_files *files, char *group)
{
    uint64_t least = UINT64_MAX;
    for (int level = 0; level < MAX_LEVELS; level++) {
        uint64_t room = room_in_group(files, group);
        if (room < least)
            least = room;
        char *slash = strrchr(group, '/');
        if (!slash)
            break;
        *slash = 0;
    }
    return least;
}

/* A line is "number:controllers:path"; v2 has number 0 and no controllers. */
static uint64_t room_in_line(char *line)
{
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return UINT64_MAX;
    *controllers++ = 0;
    *group++ = 0;
    if (strcmp(group, "/") == 0)
        *group = 0;
    if (*controllers == 0)
        return room_upwards(&group_v2, group);
    char *save;
    for (char *name = strtok_r(controllers, ",", &save); name; name = strtok_r(NULL, ",", &save))
        if (strcmp(name, "memory") == 0)
            return room_upwards(&group_v1, group);
    return UINT64_MAX;
}

static uint64_t room_in_groups(void)
{
    char text[4096];
    int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    skv_close_fd(fd);
    text[n > 0 ? n : 0] = 0;
    uint64_t least = UINT64_MAX;
    char *save;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        uint64_t room = room_in_line(line);
        if (room < least)
            least = room;
    }
    return least;
}

/* What the last look allows without another one.  Two threads may both use the last of it: that is
 * what the margin is for. */
static _Atomic uint64_t trusted_bytes, trusted_until_ms;

static bool groups_have_room(uint64_t len)
{
    uint64_t now = skv_os_monotonic_ns() / 1000000;
    uint64_t trusted = atomic_load_explicit(&trusted_bytes, memory_order_relaxed);
    if (now < atomic_load_explicit(&trusted_until_ms, memory_order_relaxed) && len <= trusted) {
        atomic_store_explicit(&trusted_bytes, trusted - len, memory_order_relaxed);
        return true;
    }
    uint64_t room = room_in_groups();
    if (room < MARGIN || room - MARGIN < len)
        return false;
    atomic_store_explicit(&trusted_bytes, (room - MARGIN - len) / TRUST_PART, memory_order_relaxed);
    atomic_store_explicit(&trusted_until_ms, now + TRUST_MS, memory_order_relaxed);
    return true;
}

/* ---- Commit -------------------------------------------------------------------------- */

static _Atomic uint32_t fail_countdown;

void skv_os_fail_commit(uint32_t nth)
{
    atomic_store(&fail_countdown, nth);
}

static bool must_fail_now(void)
{
    uint32_t left = atomic_load(&fail_countdown);
    while (left && !atomic_compare_exchange_weak(&fail_countdown, &left, left - 1))
        continue;
    return left == 1;
}

/* The system call, not posix_fallocate: where a file system cannot allocate, glibc would write
 * zeros over bytes that another process may be writing.  Signals are blocked because one of them
 * makes the kernel undo all and say EINTR, and a timer could make that go on for ever. */
static int allocate_range(int fd, uint64_t offset, uint64_t len)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error;
    do
        error = fallocate(fd, 0, (off_t)offset, (off_t)len) == 0 ? 0 : errno;
    while (error == EINTR);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

skv_status skv_allocate(int fd, uint64_t offset, uint64_t len)
{
    if (must_fail_now())
        return SKV_NO_SPACE;
    if (!groups_have_room(len))
        return SKV_CGROUP_FULL;
    int error = allocate_range(fd, offset, len);
    if (error == 0)
        return SKV_OK;
    errno = error;
    return error == ENOSPC || error == EDQUOT || error == ENOMEM ? SKV_NO_SPACE : SKV_OS_ERROR;
}

/* An addition of nothing is a write fault that changes no byte, whatever other processes do. */
static void touch_pages(uint8_t *at, uint64_t len)
{
    for (uint64_t i = 0; i < len; i += 4096)
        atomic_fetch_add_explicit((_Atomic uint32_t *)(void *)(at + i), 0, memory_order_relaxed);
}

/* Allocated memory cannot be missing here, and where it was not allocated (the descriptor is
 * lost), a full file system is EFAULT, not SIGBUS. */
skv_status skv_populate(uint8_t *at, uint64_t len)
{
    int result;
    do
        result = madvise(at, len, MADV_POPULATE_WRITE);
    while (result < 0 && (errno == EINTR || errno == EAGAIN));
    if (result == 0)
        return SKV_OK;
    return errno == EFAULT || errno == ENOMEM ? SKV_NO_SPACE : SKV_OS_ERROR;
}

static skv_status populate_allocated(uint8_t *at, uint64_t len)
{
    skv_status status = skv_populate(at, len);
    if (status != SKV_OS_ERROR || errno != EINVAL)
        return status;
    touch_pages(at, len);
    return SKV_OK;
}

/* ---- Huge pages ---------------------------------------------------------------------- */

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25                /* Linux 6.1; older kernels say EINVAL                  */
#endif

#define HUGE_PAGE       ((uint64_t)2 << 20)
#define HUGE_PAUSE      64u             /* commits without a try after one that failed          */

/* At ten million items most of a get is waiting for memory, and half of that for page tables: in
 * pages of 2 MiB a get takes two thirds of the time (docs/decisions.md).  /dev/shm never makes
 * huge pages by itself, but collapses what a process asks it to.  It needs one page to be there; the rest
 * of the range is still a hole, so nothing is copied, and it is even faster than 512 small pages:
 * 0.3 ms for 2 MiB, or 4 ms in a virtual machine whose host must find the memory first, which small
 * pages would wait for as well.  Best effort: what comes after it allocates whatever is missing. */
static void prefer_huge(uint8_t *base, int fd, uint64_t offset, uint64_t len)
{
    static _Atomic uint32_t pause;
    uint32_t left = atomic_load(&pause);
    if (offset % HUGE_PAGE || len % HUGE_PAGE || len > 16 * HUGE_PAGE)
        return;
    if (left) {
        atomic_store(&pause, left - 1);
        return;
    }
    for (uint64_t at = 0; at < len; at += HUGE_PAGE)
        if (fallocate(fd, 0, (off_t)(offset + at), 4096))
            return;
    if (madvise(base + offset, len, MADV_COLLAPSE))
        atomic_store(&pause, errno == EINVAL ? UINT32_MAX : HUGE_PAUSE);
}

void skv_region_gather(void *context, uint64_t offset, uint64_t len)
{
    const skv_region *region = context;
    madvise(region->base + offset, len, MADV_COLLAPSE);
}

skv_status skv_region_commit(void *context, uint64_t offset, uint64_t len)
{
    skv_region *region = context;
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
    uint64_t start = offset & ~page;
    uint64_t bytes = (offset + len + page - start) & ~page;
    if (offset > region->size || len > region->size - offset)
        return SKV_CORRUPT;
    int fd = skv_region_usable_fd(region);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size < region->size)
        return SKV_CORRUPT;         /* cut off: fallocate would make it long again            */
    if (fd < 0) {
        if (must_fail_now())
            return SKV_NO_SPACE;
        return groups_have_room(bytes) ? skv_populate(region->base + start, bytes) : SKV_CGROUP_FULL;
    }
    if (groups_have_room(bytes))
        prefer_huge(region->base, fd, offset, len);
    skv_status status = skv_allocate(fd, offset, len);
    return status ? status : populate_allocated(region->base + start, bytes);
}

void skv_region_punch(void *context, uint64_t offset, uint64_t len)
{
    skv_region *region = context;
    int fd = skv_region_usable_fd(region);
    if (fd >= 0)
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
}
