/* os_liveness.c: who lives, told by open-file-description locks (F_OFD_SETLK).
 *
 * What: the proof that this process lives, the takeover of a dead one's, and "nobody else is here".
 * How:  see os_region.h for the bytes and for what keeps each description open.  A lock goes when
 *       the last reference to its description goes, so the kernel tells of a death at once, across
 *       pid namespaces and reused pids.  Classic F_SETLK was refused: any close() of any
 *       descriptor of the object would drop it.  Every doubt (a descriptor that is closed, or that is
 *       another file by now, no /proc) is answered with false, "not known to be dead".
 *
 * Concurrency: any thread.  The fork mutex is a leaf and is held for a few system calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os_region.h"

#define LOCK_PAGE 4096u

/* ---- Descriptors --------------------------------------------------------------------- */

bool skv_fd_is(int fd, dev_t dev, ino_t ino)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void skv_close_fd(int fd)
{
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
}

/* Through /proc, because that works after an unlink and needs no name. */
int skv_reopen_fd(int fd, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, flags | O_CLOEXEC);
}

static int checked(int fd, const skv_region *region)
{
    if (fd < 0 || skv_fd_is(fd, region->dev, region->ino))
        return fd;
    skv_close_fd(fd);
    errno = ESTALE;
    return -1;
}

/* A new description of the region's object, or -1.  Three ways, since user code may have closed
 * everything (a daemon does): our descriptor, the name, and our own mapping (privileged only). */
int skv_region_reopen_locked(const skv_region *region)
{
    int flags = region->read_only ? O_RDONLY : O_RDWR;
    int fd = -1;
    if (skv_fd_is(region->fd, region->dev, region->ino))
        fd = checked(skv_reopen_fd(region->fd, flags), region);
    if (fd < 0 && region->name[0])
        fd = checked(open(region->name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), region);
    if (fd < 0) {
        char path[80];
        uintptr_t start = (uintptr_t)region->base;
        uintptr_t unit = (uintptr_t)sysconf(_SC_PAGESIZE);
        uintptr_t end = start + (region->size + unit - 1) / unit * unit;
        snprintf(path, sizeof path, "/proc/self/map_files/%lx-%lx", (unsigned long)start, (unsigned long)end);
        fd = checked(open(path, flags | O_CLOEXEC), region);
    }
    return fd;
}

/* The lost description still holds its "attached" lock through the mapping, for ever, so a region
 * that had to be reopened can never prove again that it is alone. */
int skv_region_usable_fd(skv_region *region)
{
    skv_fork_lock();
    if (!skv_fd_is(region->fd, region->dev, region->ino)) {
        region->fd = skv_region_reopen_locked(region);
        region->never_alone = true;
    }
    int fd = region->fd;
    skv_fork_unlock();
    return fd;
}

/* ---- Bytes --------------------------------------------------------------------------- */

static struct flock one_byte(uint64_t offset, short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = 1};
}

bool skv_lock_byte(int fd, uint64_t offset, short type)
{
    struct flock lock = one_byte(offset, type);
    int result;
    do
        result = fcntl(fd, F_OFD_SETLK, &lock);
    while (result < 0 && errno == EINTR);
    return result == 0;
}

bool skv_byte_is_held(int fd, uint64_t offset)
{
    struct flock lock = one_byte(offset, F_WRLCK);
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static uint64_t liveness_byte(const skv_region *region, uint32_t slot)
{
    return region->procs_offset + slot * (uint64_t)sizeof(skv_proc);
}

static void *keep_by_mapping(int fd)
{
    void *page = mmap(NULL, LOCK_PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return NULL;
    if (madvise(page, LOCK_PAGE, MADV_DONTFORK) == 0)
        return page;
    munmap(page, LOCK_PAGE);
    return NULL;
}

/* Takes a liveness byte and keeps it with a page that is never touched; NULL if somebody else has
 * it, or on any doubt. */
static void *hold_byte_locked(const skv_region *region, uint32_t slot)
{
    int fd = skv_region_reopen_locked(region);
    if (fd < 0)
        return NULL;
    void *page = skv_lock_byte(fd, liveness_byte(region, slot), F_WRLCK) ? keep_by_mapping(fd) : NULL;
    skv_close_fd(fd);
    return page;
}

static void drop_page(void **page)
{
    if (*page)
        munmap(*page, LOCK_PAGE);
    *page = NULL;
}

void skv_region_let_go(skv_region *region)
{
    skv_fork_lock();
    drop_page(&region->own_page);
    drop_page(&region->dead_page);
    skv_fork_unlock();
}

/* ---- For the engine (struct skv_os) --------------------------------------------------- */

/* Without a descriptor of the object nobody is known to be dead.  Our own byte is asked for by nobody. */
bool skv_region_lives(void *context, uint32_t slot)
{
    skv_region *region = context;
    int fd = skv_region_usable_fd(region);
    return fd < 0 || skv_byte_is_held(fd, liveness_byte(region, slot));
}

/* A byte that was taken before, for a slot that turned out to be in use, is given back. */
bool skv_region_claim_own(void *context, uint32_t slot)
{
    skv_region *region = context;
    if (slot >= SKV_PROCS || region->read_only)
        return false;
    skv_fork_lock();
    void *page = hold_byte_locked(region, slot);
    if (page) {
        drop_page(&region->own_page);
        region->own_page = page;
    }
    skv_fork_unlock();
    return page != NULL;
}

/* The first question costs half a microsecond and is the end of it for a live process.  It is only
 * ever believed when it says "held", so a descriptor that became another file does no harm. */
bool skv_region_claim_dead(void *context, uint32_t slot)
{
    skv_region *region = context;
    if (slot >= SKV_PROCS || region->read_only || skv_byte_is_held(region->fd, liveness_byte(region, slot)))
        return false;
    skv_fork_lock();
    bool taken = false;
    if (!region->dead_page) {
        region->dead_page = hold_byte_locked(region, slot);
        region->dead_slot = slot;
        taken = region->dead_page != NULL;
    }
    skv_fork_unlock();
    return taken;
}

void skv_region_release_dead(void *context, uint32_t slot)
{
    skv_region *region = context;
    skv_fork_lock();
    if (region->dead_page && region->dead_slot == slot)
        drop_page(&region->dead_page);
    skv_fork_unlock();
}

/* Turns the read lock on the "attached" byte into a write lock: that fails, and changes nothing,
 * while any other description holds it, be it of another process or of another handle here. */
bool skv_region_acquire_alone(void *context)
{
    skv_region *region = context;
    if (pthread_mutex_trylock(&region->alone_mutex) != 0)
        return false;
    skv_fork_lock();
    bool alone = !region->never_alone && !region->read_only
                 && skv_fd_is(region->fd, region->dev, region->ino)
                 && skv_lock_byte(region->fd, SKV_ATTACHED_BYTE, F_WRLCK);
    skv_fork_unlock();
    if (!alone)
        pthread_mutex_unlock(&region->alone_mutex);
    return alone;
}

/* The change from write to read lock is one step in the kernel: nobody gets in between. */
void skv_region_release_alone(void *context)
{
    skv_region *region = context;
    if (skv_fd_is(region->fd, region->dev, region->ino))
        skv_lock_byte(region->fd, SKV_ATTACHED_BYTE, F_RDLCK);
    pthread_mutex_unlock(&region->alone_mutex);
}
