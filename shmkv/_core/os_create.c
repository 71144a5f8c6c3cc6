/* os_create.c: from an empty object to a ready store, and how others wait for that.
 *
 * What: skv_region_create, skv_region_peek.
 * How:  the creator holds a lock on the creation byte from before the first change until after
 *       `state` says ready.  A kill in between releases the lock, and the next one begins anew: nothing
 *       that is not ready is ever used, and all of it is emptied first.
 *
 * Concurrency: any process and thread.  While the creation byte is held, so is the fork mutex: a
 * child that inherited the lock would keep everybody waiting after its parent's death.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os_region.h"

#define CREATOR_MS 10000u       /* how long another creator may take: 2^43 bytes take 5 s     */
#define NEWBORN_MS 50u          /* between an object's birth and its creator's lock           */

/* ---- Reading a header ---------------------------------------------------------------- */

/* Not ready yet, ready, or something else: a foreign object is never waited for or written to. */
static skv_status judge(uint64_t magic, uint32_t state)
{
    if (magic != 0 && magic != SKV_MAGIC)
        return SKV_CORRUPT;
    if (state == SKV_CREATING)
        return SKV_MISSING;
    return state == SKV_READY && magic == SKV_MAGIC ? SKV_OK : SKV_CORRUPT;
}

/* The state first: a creator may finish at any moment, and what is read after it said "ready" is
 * whole.  One pread of all would copy the parts in any order, and a size from before may be that of
 * an object which was still empty.  What lies behind the end of the object counts as zero. */
skv_status skv_read_header(int fd, skv_fixed *fixed)
{
    struct stat st;
    uint32_t state = SKV_CREATING;
    memset(fixed, 0, sizeof *fixed);
    if (pread(fd, &state, sizeof state, offsetof(skv_header, state)) < 0)
        return SKV_OS_ERROR;
    SKV_CRASH("header.state_read");
    if (pread(fd, fixed, sizeof *fixed, 0) < 0)
        return SKV_OS_ERROR;
    SKV_CRASH("header.read");
    if (fstat(fd, &st) < 0)
        return SKV_OS_ERROR;
    skv_status status = judge(fixed->magic, state);
    return status ? status : skv_check_fixed(fixed, (uint64_t)st.st_size);
}

skv_status skv_region_peek(int fd, uint32_t timeout_ms, skv_fixed *fixed)
{
    uint64_t start = skv_os_monotonic_ns() / 1000000;
    for (;;) {
        /* The lock first: if nobody held it and the header is still not ready after, nobody will
         * make it ready, unless the object was born a moment ago. */
        bool creator = skv_byte_is_held(fd, SKV_CREATION_BYTE);
        skv_status status = skv_read_header(fd, fixed);
        if (status != SKV_MISSING)
            return status;
        uint64_t waited = skv_os_monotonic_ns() / 1000000 - start;
        if (!creator && (waited >= NEWBORN_MS || waited >= timeout_ms))
            return SKV_MISSING;
        if (waited >= timeout_ms)
            return SKV_BUSY;
        skv_nap_ms(1);
    }
}

/* ---- Creating ------------------------------------------------------------------------ */

/* What a dead creator left, perhaps with other parameters, goes: skv_format expects zeros. */
static skv_status size_object(int fd, uint64_t size, bool fixed_size)
{
    struct stat st;
    if (!fixed_size && (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)size) < 0))
        return errno == ENOSPC ? SKV_NO_SPACE : SKV_OS_ERROR;
    SKV_CRASH("create.sized");
    if (fstat(fd, &st) < 0)
        return SKV_OS_ERROR;
    if ((uint64_t)st.st_size < size)
        return SKV_CORRUPT;
    if (fixed_size && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)size) < 0)
        return SKV_OS_ERROR;
    return SKV_OK;
}

static skv_status write_layout(int fd, const skv_fixed *fixed, uint64_t len)
{
    uint8_t *base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return SKV_OS_ERROR;
    skv_status status = skv_populate(base, len);
    if (status == SKV_OS_ERROR && errno == EINVAL)      /* a kernel before 5.14               */
        status = SKV_OK, memset(base, 0, len);
    SKV_CRASH("create.committed");
    if (status == SKV_OK)
        skv_format(base, fixed);
    SKV_CRASH("create.ready");
    munmap(base, len);
    return status;
}

static void give_back(int fd, uint64_t size, bool fixed_size)
{
    int saved = errno;
    if (fixed_size)
        (void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)size);
    else
        (void)!ftruncate(fd, 0);
    errno = saved;
}

static skv_status create_locked(int fd, const skv_params *params, bool fixed_size, bool *created)
{
    skv_fixed fixed;
    SKV_CRASH("create.locked");
    skv_status status = skv_read_header(fd, &fixed);
    if (status != SKV_MISSING)
        return status;
    status = skv_plan(params, &fixed);
    if (status)
        return status;
    uint64_t len = skv_fixed_areas_size(&fixed);
    status = size_object(fd, params->size, fixed_size);
    if (status == SKV_OK)
        status = skv_allocate(fd, 0, len);
    if (status == SKV_OK)
        status = write_layout(fd, &fixed, len);
    if (status)
        give_back(fd, params->size, fixed_size);
    *created = status == SKV_OK;
    return status;
}

/* One try.  SKV_BUSY: another creator has the byte. */
static skv_status try_create(int fd, const skv_params *params, bool fixed_size, bool *created)
{
    skv_fork_lock();
    skv_status status = SKV_OS_ERROR;
    int own = skv_reopen_fd(fd, O_RDWR);
    if (own >= 0 && skv_lock_byte(own, SKV_CREATION_BYTE, F_WRLCK))
        status = create_locked(own, params, fixed_size, created);
    else if (own >= 0 && (errno == EAGAIN || errno == EACCES))
        status = SKV_BUSY;
    skv_close_fd(own);
    skv_fork_unlock();
    return status;
}

skv_status skv_region_create(int fd, const skv_params *params, bool fixed_size, bool *created)
{
    uint64_t deadline = skv_os_monotonic_ns() / 1000000 + CREATOR_MS;
    *created = false;
    for (;;) {
        skv_status status = try_create(fd, params, fixed_size, created);
        if (status != SKV_BUSY || skv_os_monotonic_ns() / 1000000 >= deadline)
            return status;
        skv_nap_ms(1);
    }
}
