/* os.c: the regions that this process has, and what a fork does to them.
 *
 * What: attach, detach, the registry; see os_create.c, os_liveness.c, os_memory.c, os_facts.c for
 *       the rest of os.h, and os_region.h for who holds which lock.
 * How:  one skv_region per object and kind of mapping, found by device and inode and counted: a
 *       process has one slot per region, whatever number of handles.
 *       Fork: pthread_atfork, not os.register_at_fork, which misses forks made in C.  Before the fork
 *       all mutexes are taken, and a description with an "attached" lock is opened for the child,
 *       so that the child is attached from its first instant and nobody punches holes under it.  The
 *       child then puts that description behind its own mapping (same address), forgets slot and
 *       takeovers, and registers anew at its first write.
 *
 * Concurrency: any thread.  The registry mutex is held during a whole attach or detach, so a fork
 * waits for them, and two threads that attach get one region.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kept.h"
#include "os_region.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22           /* Linux 5.14; older headers lack the name            */
#endif

#define ALONE_MS 5000u          /* how long an attach waits for somebody who punches holes    */

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t fork_mutex = PTHREAD_MUTEX_INITIALIZER;
static skv_region *registry;    /* guarded by registry_mutex                                  */

/* ---- Fork ---------------------------------------------------------------------------- */

/* Without a description of its own the child shares its parent's, and then neither may ever
 * believe to be alone. */
static void open_for_child_locked(skv_region *region)
{
    region->child_fd = skv_region_reopen_locked(region);
    if (region->child_fd >= 0 && skv_lock_byte(region->child_fd, SKV_ATTACHED_BYTE, F_RDLCK))
        return;
    skv_close_fd(region->child_fd);
    region->child_fd = -1;
    region->never_alone = region->fd_is_shared = true;
}

static void before_fork(void)
{
    int saved = errno;
    pthread_mutex_lock(&registry_mutex);
    for (skv_region *region = registry; region; region = region->next)
        pthread_mutex_lock(&region->alone_mutex);
    pthread_mutex_lock(&fork_mutex);
    for (skv_region *region = registry; region; region = region->next) {
        skv_family_before_fork(region);         /* before the description may become a shared one */
        open_for_child_locked(region);
    }
    errno = saved;
}

static void after_fork_in_parent(void)
{
    for (skv_region *region = registry; region; region = region->next) {
        skv_close_fd(region->child_fd);
        region->child_fd = -1;
        skv_family_after_fork(region, false);
    }
    pthread_mutex_unlock(&fork_mutex);
    for (skv_region *region = registry; region; region = region->next)
        pthread_mutex_unlock(&region->alone_mutex);
    pthread_mutex_unlock(&registry_mutex);
}

/* The number of the descriptor stays, if it still is ours: it may have been handed out. */
static void adopt_description(skv_region *region)
{
    if (region->child_fd < 0)
        return;
    if (skv_fd_is(region->fd, region->dev, region->ino)
        && dup3(region->child_fd, region->fd, O_CLOEXEC) == region->fd)
        skv_close_fd(region->child_fd);
    else
        region->fd = region->child_fd;
    region->child_fd = -1;
    region->fd_is_shared = false;
    /* Linux copies no page tables of a shared file mapping, so mapping again costs nothing more. */
    int protection = region->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    void *base = mmap(region->base, region->size, protection, MAP_SHARED | MAP_FIXED, region->fd, 0);
    region->never_alone = base == MAP_FAILED;
}

/* System calls and initialisations only: other threads of the parent do not exist here. */
static void after_fork_in_child(void)
{
    int saved = errno;
    pthread_mutex_init(&registry_mutex, NULL);
    pthread_mutex_init(&fork_mutex, NULL);
    for (skv_region *region = registry; region; region = region->next) {
        pthread_mutex_init(&region->alone_mutex, NULL);
        region->reserved = false;       /* the thread that moves it is not here               */
        region->own.page = NULL;        /* not mapped here: MADV_DONTFORK                     */
        region->dead.page = NULL;
        adopt_description(region);
        skv_family_after_fork(region, true);
        skv_after_fork(region->store);
    }
    errno = saved;
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* The handlers are there before the first lock is: nothing else takes one. */
void skv_fork_lock(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&fork_mutex);
}

void skv_fork_unlock(void)
{
    pthread_mutex_unlock(&fork_mutex);
}

/* ---- Attach -------------------------------------------------------------------------- */

/* One that was cut off stays so for who has it (os_bus.c), whatever its file is made into later. */
static skv_region *find_locked(const struct stat *st, bool read_only)
{
    for (skv_region *region = registry; region; region = region->next)
        if (region->dev == st->st_dev && region->ino == st->st_ino && region->read_only == read_only
            && skv_is_whole(region->store))
            return region;
    return NULL;
}

static void note_name(skv_region *region)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", region->fd);
    ssize_t n = readlink(path, region->name, sizeof region->name - 1);
    region->name[n > 0 && n < (ssize_t)sizeof region->name - 1 ? n : 0] = 0;
}

/* The byte is write-locked only while somebody who believed to be alone punches holes. */
static skv_status lock_attached(const skv_region *region)
{
    for (uint32_t waited = 0;; waited++) {
        if (skv_lock_byte(region->fd, SKV_ATTACHED_BYTE, F_RDLCK))
            return SKV_OK;
        if (errno != EAGAIN && errno != EACCES)
            return SKV_OS_ERROR;
        if (waited >= ALONE_MS)
            return SKV_BUSY;
        skv_nap_ms(1);
    }
}

static skv_status open_object(skv_region *region, int fd)
{
    skv_fork_lock();        /* for its handlers: a fork from here on waits for the registry   */
    region->fd = skv_reopen_fd(fd, region->read_only ? O_RDONLY : O_RDWR);
    skv_fork_unlock();
    if (region->fd < 0 || !skv_fd_is(region->fd, region->dev, region->ino))
        return SKV_OS_ERROR;
    note_name(region);
    return lock_attached(region);
}

/* A store of another boot holds locks of processes that are gone and times of another clock. */
static skv_status check_epoch(const skv_fixed *fixed)
{
    uint8_t boot_id[16];
    if (!skv_os_boot_id(boot_id))
        return SKV_OS_ERROR;
    bool same = memcmp(boot_id, fixed->boot_id, sizeof boot_id) == 0
                && fixed->time_namespace == skv_os_time_namespace();
    return same ? SKV_OK : SKV_STALE;
}

/* Every creator allocates the fixed areas; in a hostile object they may be holes, and a read of a
 * hole in a full tmpfs is SIGBUS.  Reading them in now gives an error instead, and saves the page
 * faults.  Asking for the first hole (SEEK_HOLE) was refused: it walks all pages of a full store. */
static skv_status read_in(uint8_t *base, const skv_fixed *fixed)
{
    int result = madvise(base, skv_fixed_areas_size(fixed), MADV_POPULATE_READ);
    return result < 0 && errno == EFAULT ? SKV_CORRUPT : SKV_OK;
}

#define HUGE_PAGE ((uint64_t)2 << 20)

/* At a multiple of 2 MiB, without which no part of it could ever be a huge page. */
static void *map_aligned(uint64_t size, int protection, int fd)
{
    void *room = mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return MAP_FAILED;
    uint64_t low = (uint64_t)(uintptr_t)room, start = (low + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    void *base = mmap((void *)(uintptr_t)start, size, protection, MAP_SHARED | MAP_FIXED, fd, 0);
    if (base == MAP_FAILED) {
        int error = errno;
        munmap(room, size + HUGE_PAGE);
        errno = error;
        return MAP_FAILED;
    }
    uint64_t end = (start + size + 4095) & ~UINT64_C(4095);
    if (start > low)
        munmap(room, start - low);
    if (end < low + size + HUGE_PAGE)
        munmap((void *)(uintptr_t)end, low + size + HUGE_PAGE - end);
    return base;
}

static skv_status map_object(skv_region *region, const skv_fixed *fixed)
{
    int protection = region->read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    void *base = map_aligned(fixed->size, protection, region->fd);
    if (base == MAP_FAILED)
        return SKV_OS_ERROR;
    region->base = base;
    region->size = fixed->size;
    region->procs_offset = fixed->procs_offset;
    skv_bus_watch(region);
    SKV_CRASH("attach.mapped");
    return read_in(base, fixed);
}

static uint64_t wall_ms(void *context)
{
    (void)context;
    return skv_os_wall_ms();
}

static skv_status open_store(skv_region *region, const skv_fixed *fixed)
{
    const skv_os os = {
        .context = region,
        .commit = skv_region_commit,
        .punch = skv_region_punch,
        .acquire_alone = skv_region_acquire_alone,
        .release_alone = skv_region_release_alone,
        .now_ms = skv_os_now_ms,
        .wall_ms = wall_ms,
        .identify = skv_os_identify,
        .gather = skv_region_gather,
        .futex_wait = skv_os_futex_wait,
        .futex_wake = skv_os_futex_wake,
        .futex_wake_all = skv_os_futex_wake_all,
        .pause = skv_os_pause,
        .lives = skv_region_lives,
        .claim_dead = skv_region_claim_dead,
        .release_dead = skv_region_release_dead,
        .claim_own = skv_region_claim_own,
    };
    skv_status status = skv_open(region->base, fixed, region->read_only, &os, &region->store);
    if (status || region->read_only)
        return status;
    status = skv_register(region->store);
    SKV_CRASH("attach.claimed");
    return status;
}

static skv_status build(skv_region *region, int fd)
{
    skv_fixed fixed;
    skv_status status = open_object(region, fd);
    if (status == SKV_OK)
        status = skv_read_header(region->fd, &fixed);
    if (status == SKV_OK)
        status = check_epoch(&fixed);
    if (status == SKV_OK)
        status = map_object(region, &fixed);
    return status ? status : open_store(region, &fixed);
}

/* skv_close first: it marks the slot free while the liveness byte still is ours. */
static void destroy(skv_region *region)
{
    int saved = errno;
    if (region->store)
        skv_close(region->store);
    skv_region_let_go(region);
    if (region->base) {
        skv_bus_forget(region);
        munmap(region->base, region->size);
    }
    if (skv_fd_is(region->fd, region->dev, region->ino))
        close(region->fd);
    pthread_mutex_destroy(&region->alone_mutex);
    free(region);
    errno = saved;
}

static skv_status attach_new_locked(int fd, const struct stat *st, bool read_only, skv_region **out)
{
    skv_region *region = calloc(1, sizeof *region);
    if (!region)
        return SKV_NO_MEMORY;
    region->dev = st->st_dev;
    region->ino = st->st_ino;
    region->read_only = read_only;
    region->refs = 1;
    region->fd = region->child_fd = region->family_fd = region->child_family_fd = -1;
    pthread_mutex_init(&region->alone_mutex, NULL);
    skv_status status = build(region, fd);
    if (status) {
        destroy(region);
        return status;
    }
    region->next = registry;
    registry = region;
    *out = region;
    return SKV_OK;
}

static skv_status attach_known_locked(skv_region *region, skv_region **out)
{
    if (region->reserved)
        return SKV_BUSY;
    /* In a forked child it is known but not registered yet. */
    skv_status status = region->read_only ? SKV_OK : skv_register(region->store);
    if (status == SKV_OK) {
        region->refs++;
        *out = region;
    }
    return status;
}

static skv_status attach_once(int fd, const struct stat *st, bool read_only, skv_region **out)
{
    pthread_mutex_lock(&registry_mutex);
    skv_region *region = find_locked(st, read_only);
    skv_status status = region ? attach_known_locked(region, out) : attach_new_locked(fd, st, read_only, out);
    pthread_mutex_unlock(&registry_mutex);
    return region || status != SKV_BUSY ? status : SKV_TIMEOUT;     /* that one has waited    */
}

skv_status skv_region_attach(int fd, bool read_only, skv_region **out)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return SKV_OS_ERROR;
    skv_status status = attach_once(fd, &st, read_only, out);
    for (uint32_t waited = 0; status == SKV_BUSY && waited < ALONE_MS; waited++) {
        skv_nap_ms(1);
        status = attach_once(fd, &st, read_only, out);
    }
    return status == SKV_TIMEOUT ? SKV_BUSY : status;
}

void skv_region_detach(skv_region *region)
{
    pthread_mutex_lock(&registry_mutex);
    if (--region->refs == 0) {
        skv_region **link = &registry;
        while (*link != region)
            link = &(*link)->next;
        *link = region->next;
        destroy(region);
    }
    pthread_mutex_unlock(&registry_mutex);
}

/* The path, not the link count of our descriptor: that one is 1 for an object that was renamed, and user code may
 * have closed it.  The inode cannot have been given to another object while we have this one mapped. */
skv_place skv_region_at(const skv_region *region, const char *path)
{
    struct stat st;
    int saved = errno;
    skv_place place = SKV_PLACE_UNKNOWN;
    if (fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
        place = st.st_dev == region->dev && st.st_ino == region->ino ? SKV_PLACE_SAME : SKV_PLACE_ANOTHER;
    else if (errno == ENOENT || errno == ENOTDIR)
        place = SKV_PLACE_NOTHING;
    errno = saved;
    return place;
}

void skv_regions_give_back(void)
{
    pthread_mutex_lock(&registry_mutex);
    for (skv_region *region = registry; region; region = region->next)
        skv_kept_return(region->store);
    pthread_mutex_unlock(&registry_mutex);
}

skv *skv_region_store(skv_region *region)
{
    return region->store;
}

static bool mark_reserved(skv_region *region)
{
    pthread_mutex_lock(&registry_mutex);
    bool only = region->refs == 1 && !region->reserved;
    region->reserved = region->reserved || only;
    pthread_mutex_unlock(&registry_mutex);
    return only;
}

static void unmark_reserved(skv_region *region)
{
    pthread_mutex_lock(&registry_mutex);
    region->reserved = false;
    pthread_mutex_unlock(&registry_mutex);
}

bool skv_region_reserve(skv_region *region)
{
    if (!mark_reserved(region))
        return false;
    if (skv_region_acquire_alone(region))
        return true;
    unmark_reserved(region);
    return false;
}

/* A fork waits for `alone` with the registry in its hand, so that goes first. */
void skv_region_unreserve(skv_region *region)
{
    skv_region_release_alone(region);
    unmark_reserved(region);
}

bool skv_region_is_alone(skv_region *region)
{
    pthread_mutex_lock(&registry_mutex);
    bool once = region->refs == 1;
    pthread_mutex_unlock(&registry_mutex);
    bool alone = once && skv_region_acquire_alone(region);
    if (alone)
        skv_region_release_alone(region);
    return alone;
}

int skv_region_fd(const skv_region *region)
{
    return region->fd;
}
