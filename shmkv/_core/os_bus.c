/* os_bus.c: a region whose file was made shorter is damaged; it does not end the processes that have it mapped.
 *
 * What: a touch of a mapped page behind the end of its file is SIGBUS, and any process that may write to the object
 *       can shorten it.  Here such a region turns into zeroes for this process, and is told by its header.
 * How:  a handler of SIGBUS, installed with the first mapping.  If the address lies in a region, zeroed memory of this
 *       process's own is mapped over all of it, and the instruction is made again.  Then nothing of the region can be
 *       taken for an item: every counter is 0, so that what was being read does not validate; the state is not
 *       "ready", which is asked wherever a read finds nothing, and at the end of each write.  A hit pays nothing.
 *       Any other SIGBUS goes to the handler that was there before, or is what it always was.
 *
 *       faulthandler that was enabled later gets it first; it prints its traceback, puts this handler back and raises
 *       the signal again.  That one tells no address: it is let go if a region has been cut off, and the instruction
 *       faults once more, into this handler.
 *
 * Concurrency: the handler runs in any thread at any instruction, so it takes no lock: places in the list are never
 *       freed, and a place is given back before its memory is unmapped.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os_region.h"

typedef struct watched {
    _Atomic uintptr_t base;     /* 0 = a free place                                           */
    _Atomic uint64_t  size;
    _Atomic int       fd;
    _Atomic int       protection;
    struct watched   *next;     /* immutable                                                  */
} watched;

static watched *_Atomic all;
static pthread_mutex_t watch_mutex = PTHREAD_MUTEX_INITIALIZER; /* of those who take places     */
static struct sigaction before; /* immutable while ours is installed                          */

static bool turn_into_zeroes(watched *place, uintptr_t base)
{
    void *at = mmap((void *)base, atomic_load(&place->size), atomic_load(&place->protection),
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    return at != MAP_FAILED;
}

static bool mend(uintptr_t address)
{
    for (watched *place = atomic_load(&all); place; place = place->next) {
        uintptr_t base = atomic_load(&place->base);
        if (base && address >= base && address - base < atomic_load(&place->size))
            return turn_into_zeroes(place, base);
    }
    return false;
}

static bool one_is_cut(void)
{
    struct stat st;
    for (watched *place = atomic_load(&all); place; place = place->next)
        if (atomic_load(&place->base) && fstat(atomic_load(&place->fd), &st) == 0
            && (uint64_t)st.st_size < atomic_load(&place->size))
            return true;
    return false;
}

static void pass_on(int number, siginfo_t *info, void *context)
{
    const bool was_sent = info->si_code <= 0;
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    } else if (before.sa_handler == SIG_DFL || !was_sent) {
        signal(number, SIG_DFL);
        if (was_sent)
            raise(number);      /* when this returns; a fault is made again by itself         */
    }
}

static void on_bus(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    bool done = info->si_code == BUS_ADRERR ? mend((uintptr_t)info->si_addr)
                                            : info->si_code == SI_TKILL && info->si_pid == getpid() && one_is_cut();
    if (!done)
        pass_on(number, info, context);
    errno = saved;
}

/* Again where somebody has taken it away; not over a handler that came later, which hands on to this one. */
static void install_locked(void)
{
    static bool installed;
    struct sigaction now, ours = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    sigemptyset(&ours.sa_mask);
    if (sigaction(SIGBUS, NULL, &now) < 0 || (installed && ((now.sa_flags & SA_SIGINFO) || now.sa_handler != SIG_DFL)))
        return;
    before = now;
    installed = sigaction(SIGBUS, &ours, NULL) == 0 || installed;
}

static watched *free_place_locked(void)
{
    for (watched *place = atomic_load(&all); place; place = place->next)
        if (!atomic_load(&place->base))
            return place;
    watched *place = calloc(1, sizeof *place);
    if (!place)
        return NULL;
    place->next = atomic_load(&all);
    atomic_store(&all, place);
    return place;
}

/* Without memory for a place the region is as it would be without all this. */
void skv_bus_watch(const skv_region *region)
{
    pthread_mutex_lock(&watch_mutex);
    install_locked();
    watched *place = free_place_locked();
    if (place) {
        atomic_store(&place->size, region->size);
        atomic_store(&place->fd, region->fd);
        atomic_store(&place->protection, region->read_only ? PROT_READ : PROT_READ | PROT_WRITE);
        atomic_store(&place->base, (uintptr_t)region->base);
    }
    pthread_mutex_unlock(&watch_mutex);
}

void skv_bus_forget(const skv_region *region)
{
    for (watched *place = atomic_load(&all); place; place = place->next)
        if (atomic_load(&place->base) == (uintptr_t)region->base)
            atomic_store(&place->base, 0);
}
