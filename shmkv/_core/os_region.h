/* os_region.h: the inside of a skv_region, for the os_*.c files only.
 *
 * A byte of the object stands for each fact that other processes ask about, and an open-file-
 * description lock on it is the answer; the content at these offsets does not matter:
 *
 *     offset 0                          somebody creates the layout          write lock
 *     offset 1                          attached, read-only handles too      read lock; write: alone
 *     procs_offset + slot * 320         the process of this slot lives       write lock
 *
 * Which description holds what, and what keeps it open:
 *     region->fd      the "attached" lock.  The region's own mapping keeps it open, so that it
 *                     survives user code that closes every descriptor.
 *     a page          one liveness byte.  A description that is opened, locked, mapped for one page
 *                     (MADV_DONTFORK), and whose descriptor is closed at once: there is nothing
 *                     left that user code could close or a forked child could inherit.
 *     family_fd       the same bytes of a nameless file (memfd), each on a description of the process's
 *                     own: see os_family.c, for processes that may not open the object any more.
 *
 * Concurrency: lock rank registry, alone_mutex, fork mutex.  pthread_atfork takes all of them
 * before a fork, so that no child is born in the middle of what they guard.
 */
#ifndef SKV_OS_REGION_H
#define SKV_OS_REGION_H

#include <pthread.h>
#include <sys/types.h>

#include "os.h"

#define SKV_CREATION_BYTE 0
#define SKV_ATTACHED_BYTE 1

/* A liveness byte that this process has. */
typedef struct skv_hold {
    void       *page;           /* keeps its lock; NULL = there is none                       */
    uint32_t    slot;
    bool        by_family;      /* the lock is on `fd`, and on the family's file              */
} skv_hold;

struct skv_region {
    skv_region *next;           /* guarded by the registry mutex, as is refs                  */
    uint32_t    refs;
    bool        reserved;       /* its items are being moved: nobody attaches; guarded by the registry mutex */
    bool        read_only;
    dev_t       dev;            /* immutable, as are ino to store                             */
    ino_t       ino;
    uint8_t    *base;
    uint64_t    size;
    uint64_t    procs_offset;
    skv        *store;
    char        name[256];      /* the object's path at attach, "" if unknown                 */
    pthread_mutex_t alone_mutex; /* held from acquire_alone to release_alone                  */
    int         fd;             /* guarded by the fork mutex, as are all that follow          */
    bool        never_alone;    /* a description of ours may be shared or beyond reach        */
    bool        fd_is_shared;   /* a forked process may have the description of `fd` as well  */
    int         child_fd;       /* between prepare and fork only: the child's description     */
    int         family_fd;      /* a description of the family's file; -1 = none yet          */
    int         child_family_fd; /* as child_fd                                               */
    dev_t       family_dev;     /* valid once there is a family_fd                            */
    ino_t       family_ino;
    skv_hold    own;            /* this process's liveness byte                               */
    skv_hold    dead;           /* that of a dead process during a takeover                   */
};

/* os.c: nobody else has it, in this process or in another one, and nobody gets it until it is unreserved. */
bool skv_region_reserve(skv_region *region);
void skv_region_unreserve(skv_region *region);

/* os.c: held while a descriptor is open that carries a lock no child may inherit. */
void skv_fork_lock(void);
void skv_fork_unlock(void);

/* os_liveness.c.  _locked: the caller holds the fork mutex. */
bool skv_fd_is(int fd, dev_t dev, ino_t ino);
void skv_close_fd(int fd);                              /* keeps errno; -1 is allowed         */
int skv_reopen_fd(int fd, int flags);                   /* a new description, or -1           */
bool skv_lock_byte(int fd, uint64_t offset, short type); /* F_RDLCK, F_WRLCK, F_UNLCK; no wait */
void *skv_keep_by_mapping(int fd);                      /* a page that keeps its description, or NULL */
uint64_t skv_liveness_byte(const skv_region *region, uint32_t slot);
bool skv_byte_is_held(int fd, uint64_t offset);         /* write-locked or read-locked by another */
int skv_region_reopen_locked(const skv_region *region);
int skv_region_usable_fd(skv_region *region);           /* region->fd, reopened if need be    */
void skv_region_let_go(skv_region *region);             /* own and dead pages                 */
bool skv_region_lives(void *context, uint32_t slot);
bool skv_region_claim_own(void *context, uint32_t slot);
bool skv_region_claim_dead(void *context, uint32_t slot);
void skv_region_release_dead(void *context, uint32_t slot);
bool skv_region_acquire_alone(void *context);
void skv_region_release_alone(void *context);

/* os_family.c: liveness bytes without a new description of the object.  All with the fork mutex. */
bool skv_family_hold_locked(skv_region *region, uint32_t slot, skv_hold *hold);
void skv_family_let_go_locked(skv_region *region, uint32_t slot);
bool skv_family_lives(const skv_region *region, uint32_t slot);
void skv_family_before_fork(skv_region *region);
void skv_family_after_fork(skv_region *region, bool in_child);
void skv_family_close(skv_region *region);

/* os_memory.c.  `at` is where the object's byte `offset` is mapped. */
skv_status skv_allocate(int fd, uint64_t offset, uint64_t len);
skv_status skv_populate(uint8_t *at, uint64_t len);
skv_status skv_region_commit(void *context, uint64_t offset, uint64_t len);
void skv_region_punch(void *context, uint64_t offset, uint64_t len);

/* os_bus.c: from the mapping until just before it is unmapped; the registry mutex is held, so no fork is in between. */
void skv_bus_watch(const skv_region *region);
void skv_bus_forget(const skv_region *region);

/* os_create.c: SKV_OK, SKV_MISSING (not ready), SKV_CORRUPT, SKV_VERSION, SKV_OS_ERROR. */
skv_status skv_read_header(int fd, skv_fixed *fixed);

/* os_facts.c */
uint64_t skv_os_now_ms(void *context);
void skv_region_gather(void *context, uint64_t offset, uint64_t len);
void skv_os_identify(void *context, uint32_t *pid, uint64_t *start_time, uint64_t *pid_namespace);
void skv_os_futex_wait(void *context, _Atomic uint32_t *word, uint32_t expected, uint32_t timeout_ms);
void skv_os_futex_wake(void *context, _Atomic uint32_t *word);
void skv_os_futex_wake_all(void *context, _Atomic uint32_t *word);
void skv_os_pause(void *context);
void skv_nap_ms(uint32_t ms);

#endif
