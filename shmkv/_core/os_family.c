/* os_family.c: liveness bytes of processes that may not open the region's object any more.
 *
 * What: after setuid, in a chroot or a sandbox, or without a free descriptor, a process has `fd` of its
 *       region, and no way to a new description.  Its own byte, and the one of a dead process during a
 *       takeover, are then locked on the description of `fd`.
 * How:  a process that was forked there shares this description with its parent, and the kernel sees no
 *       conflict between the two.  So processes that come from one another, a family, have a file without
 *       a name (memfd), which whoever has inherited it may open again, whatever user it is, and in it a
 *       byte for each slot.  Who has both locks, first that of the family, has the slot's liveness byte:
 *       the family's lock excludes relatives, that of the object all others.
 *       The family's file is made before the first fork, or at the first need; its description is never
 *       shared: a child gets one of its own from its parent, before the fork, and without one it has no
 *       family and does not register while it shares the description of `fd`.
 *
 *       Killed while it has both: the family's lock goes with the process.  That of the object stays while
 *       a relative shares the description of `fd`: others take the process for a living one until a
 *       relative, who is not deceived, needs what it held.
 *
 * Concurrency: under the fork mutex, so that no child is born with one of the two locks.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os_region.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u              /* Linux 6.3; some systems refuse a memfd without it   */
#endif

static bool has_family(const skv_region *region)
{
    return region->family_fd >= 0 && skv_fd_is(region->family_fd, region->family_dev, region->family_ino);
}

/* What was taken before there was a family is told to it. */
static void note_hold(const skv_region *region, const skv_hold *hold)
{
    if (hold->page && hold->by_family)
        skv_lock_byte(region->family_fd, skv_liveness_byte(region, hold->slot), F_WRLCK);
}

/* Only where nobody shares the description yet, who would not know of it. */
static void found_family(skv_region *region)
{
    struct stat st;
    if (region->family_fd >= 0 || region->fd_is_shared || region->read_only)
        return;
    int fd = memfd_create("shmkv-family", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("shmkv-family", MFD_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        skv_close_fd(fd);
        return;
    }
    region->family_fd = fd;
    region->family_dev = st.st_dev;
    region->family_ino = st.st_ino;
    note_hold(region, &region->own);
    note_hold(region, &region->dead);
}

static bool lock_both(const skv_region *region, uint32_t slot)
{
    const bool family = has_family(region);
    const uint64_t byte = skv_liveness_byte(region, slot);
    if (family && !skv_lock_byte(region->family_fd, byte, F_WRLCK))
        return false;
    if (skv_lock_byte(region->fd, byte, F_WRLCK))
        return true;
    if (family)
        skv_lock_byte(region->family_fd, byte, F_UNLCK);
    return false;
}

/* One description cannot tell two threads apart. */
static bool has_it_already(const skv_region *region, uint32_t slot)
{
    return (region->own.page && region->own.slot == slot) || (region->dead.page && region->dead.slot == slot);
}

bool skv_family_hold_locked(skv_region *region, uint32_t slot, skv_hold *hold)
{
    found_family(region);
    if (has_it_already(region, slot) || !skv_fd_is(region->fd, region->dev, region->ino))
        return false;
    if ((region->fd_is_shared && !has_family(region)) || !lock_both(region, slot))
        return false;
    void *page = skv_keep_by_mapping(has_family(region) ? region->family_fd : region->fd);
    if (!page) {
        skv_family_let_go_locked(region, slot);
        return false;
    }
    *hold = (skv_hold){.page = page, .slot = slot, .by_family = true};
    return true;
}

/* The family's last: between the two only others may come. */
void skv_family_let_go_locked(skv_region *region, uint32_t slot)
{
    if (skv_fd_is(region->fd, region->dev, region->ino))
        skv_lock_byte(region->fd, skv_liveness_byte(region, slot), F_UNLCK);
    if (has_family(region))
        skv_lock_byte(region->family_fd, skv_liveness_byte(region, slot), F_UNLCK);
}

bool skv_family_lives(const skv_region *region, uint32_t slot)
{
    return has_family(region) && skv_byte_is_held(region->family_fd, skv_liveness_byte(region, slot));
}

/* ---- Fork -------------------------------------------------------------------------------- */

void skv_family_before_fork(skv_region *region)
{
    region->child_family_fd = -1;
    found_family(region);
    if (has_family(region))
        region->child_family_fd = skv_reopen_fd(region->family_fd, O_RDWR);
}

/* The parent's description is closed in the child in any case: it holds the parent's locks. */
void skv_family_after_fork(skv_region *region, bool in_child)
{
    if (in_child) {
        if (has_family(region))
            skv_close_fd(region->family_fd);
        region->family_fd = region->child_family_fd;
    } else {
        skv_close_fd(region->child_family_fd);
    }
    region->child_family_fd = -1;
}

void skv_family_close(skv_region *region)
{
    if (has_family(region))
        skv_close_fd(region->family_fd);
    region->family_fd = -1;
}
