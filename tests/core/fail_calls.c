/* fail_calls.c: a library to be preloaded: the n-th call that the extension module makes fails.
 *
 * What: malloc, fallocate, mmap, open and so on, for whoever calls from between two addresses; all others get the
 *       real one.
 * How:  the address that a call returns to tells who called.  The interpreter's own allocations, which come from
 *       elsewhere, never fail, nor do those of libc itself.
 *
 * Concurrency: set and read by one thread; the countdown is for one thread's calls.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum failing { FAIL_NOTHING, FAIL_MALLOC, FAIL_FALLOCATE, FAIL_MMAP, FAIL_OPEN, FAIL_MADVISE, FAIL_FCNTL, FAIL_FUTEX };

static const int failing_errno[] = {0, ENOMEM, ENOSPC, ENOMEM, EMFILE, ENOMEM, ENOLCK, EFAULT};

static uintptr_t low, high;     /* of the extension's code                                      */
static int kind;
static uint32_t left, fired;
static bool for_good;

void fail_set_range(uintptr_t from, uintptr_t to);
void fail_arm(int what, uint32_t nth, bool all_after);
uint32_t fail_disarm(void);

void fail_set_range(uintptr_t from, uintptr_t to)
{
    low = from;
    high = to;
}

void fail_arm(int what, uint32_t nth, bool all_after)
{
    left = nth;
    fired = 0;
    for_good = all_after;
    kind = what;
}

uint32_t fail_disarm(void)
{
    kind = FAIL_NOTHING;
    return fired;
}

static bool fails(int what, const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    if (kind != what || at < low || at >= high || (left > 1 && left--) || (fired && !for_good))
        return false;
    fired++;
    errno = failing_errno[what];
    return true;
}

#define FAILS(what) fails(what, __builtin_return_address(0))

/* ---- Memory: glibc's own names, because dlsym itself allocates ------------------------------- */

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);

void *malloc(size_t n) { return FAILS(FAIL_MALLOC) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return FAILS(FAIL_MALLOC) ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return FAILS(FAIL_MALLOC) ? NULL : __libc_realloc(p, n); }
void *aligned_alloc(size_t alignment, size_t n) { return FAILS(FAIL_MALLOC) ? NULL : __libc_memalign(alignment, n); }

/* ---- The kernel ------------------------------------------------------------------------------ */

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    return FAILS(FAIL_FALLOCATE) ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

/* Memory of the process's own is memory, whichever call it comes from; what maps a region is not. */
static int kind_of_mapping(int prot, int flags)
{
    return (prot & PROT_WRITE) && (flags & MAP_PRIVATE) ? FAIL_MALLOC : FAIL_MMAP;
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    return FAILS(kind_of_mapping(prot, flags)) ? MAP_FAILED : (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}

int madvise(void *at, size_t n, int advice)
{
    return FAILS(FAIL_MADVISE) ? -1 : (int)syscall(SYS_madvise, at, n, advice);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return FAILS(FAIL_OPEN) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int fcntl(int fd, int command, ...)
{
    static int (*next)(int, int, ...);
    va_list args;
    va_start(args, command);
    void *argument = va_arg(args, void *);
    va_end(args);
    if (FAILS(FAIL_FCNTL))
        return -1;
    if (!next) {
        void *found = real("fcntl");
        memcpy(&next, &found, sizeof next);
    }
    return next(fd, command, argument);
}
