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

uint64_t skv_liveness_byte(const skv_region *region, uint32_t slot)
{
    return region->procs_offset + slot * (uint64_t)sizeof(skv_proc);
}

void *skv_keep_by_mapping(int fd)
{
    void *page = mmap(NULL, LOCK_PAGE, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return NULL;
    if (madvise(page, LOCK_PAGE, MADV_DONTFORK) == 0)
        return page;
    munmap(page, LOCK_PAGE);
    return NULL;
}

/* With a description that is new, and nobody else's. */
static bool hold_anew_locked(const skv_region *region, int fd, uint32_t slot, skv_hold *hold)
{
    void *page = skv_lock_byte(fd, skv_liveness_byte(region, slot), F_WRLCK) ? skv_keep_by_mapping(fd) : NULL;
    if (page)
        *hold = (skv_hold){.page = page, .slot = slot};
    return page != NULL;
}

/* Takes a liveness byte and keeps it with a page that is never touched; false if somebody else has it, or on any
 * doubt.  Where the object may not be opened any more, or the lock that is met may be one of our own family, the
 * family tells.  errno is that of the first way. */
static bool hold_byte_locked(skv_region *region, uint32_t slot, skv_hold *hold)
{
    int fd = skv_region_reopen_locked(region);
    bool held = fd >= 0 && hold_anew_locked(region, fd, slot, hold);
    int error = errno;
    skv_close_fd(fd);
    if (!held && (fd < 0 || region->fd_is_shared))
        held = skv_family_hold_locked(region, slot, hold);
    errno = error;
    return held;
}

static void drop(skv_region *region, skv_hold *hold)
{
    if (!hold->page)
        return;
    if (hold->by_family)
        skv_family_let_go_locked(region, hold->slot);
    munmap(hold->page, LOCK_PAGE);
    hold->page = NULL;
}

void skv_region_let_go(skv_region *region)
{
    skv_fork_lock();
    drop(region, &region->own);
    drop(region, &region->dead);
    skv_family_close(region);
    skv_fork_unlock();
}

/* ---- For the engine (struct skv_os) --------------------------------------------------- */

/* Without a descriptor of the object nobody is known to be dead.  Our own byte is asked for by nobody. */
bool skv_region_lives(void *context, uint32_t slot)
{
    skv_region *region = context;
    int fd = skv_region_usable_fd(region);
    return fd < 0 || skv_byte_is_held(fd, skv_liveness_byte(region, slot)) || skv_family_lives(region, slot);
}

/* A byte that was taken before, for a slot that turned out to be in use, is given back. */
bool skv_region_claim_own(void *context, uint32_t slot)
{
    skv_region *region = context;
    if (slot >= SKV_PROCS || region->read_only)
        return false;
    skv_hold hold;
    skv_fork_lock();
    bool held = hold_byte_locked(region, slot, &hold);
    if (held) {
        drop(region, &region->own);
        region->own = hold;
    }
    skv_fork_unlock();
    return held;
}

/* The first question costs half a microsecond and is the end of it for a live process.  It is only
 * ever believed when it says "held", so a descriptor that became another file does no harm. */
bool skv_region_claim_dead(void *context, uint32_t slot)
{
    skv_region *region = context;
    if (slot >= SKV_PROCS || region->read_only || skv_byte_is_held(region->fd, skv_liveness_byte(region, slot)))
        return false;
    skv_fork_lock();
    bool taken = !region->dead.page && hold_byte_locked(region, slot, &region->dead);
    skv_fork_unlock();
    return taken;
}

void skv_region_release_dead(void *context, uint32_t slot)
{
    skv_region *region = context;
    skv_fork_lock();
    if (region->dead.page && region->dead.slot == slot)
        drop(region, &region->dead);
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
