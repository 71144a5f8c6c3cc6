/* failures.h: the n-th call of a function of libc or the kernel fails, for programs linked with --wrap.
 *
 * What: a countdown for one kind of call.  At zero the call fails, or, for `FAIL_ROOM`, something happens first.
 * How:  each function is wrapped by the linker (see WRAPPED in tests/campaigns/resources.py), and so are the calls of
 *       the program itself; so the countdown is set just before an operation and taken away just after it.
 *
 * Concurrency: one thread; a forked child has its own countdown.
 */
#ifndef SKV_FAILURES_H
#define SKV_FAILURES_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum failing {
    FAIL_NOTHING, FAIL_MALLOC, FAIL_FALLOCATE, FAIL_MMAP, FAIL_OPEN, FAIL_MADVISE, FAIL_FCNTL, FAIL_FUTEX,
    FAIL_FTRUNCATE, FAIL_FSTAT, FAIL_PREAD, FAILINGS
};

static const char *const failing_names[FAILINGS] = {
    "nothing", "malloc", "fallocate", "mmap", "open", "madvise", "fcntl", "futex", "ftruncate", "fstat", "pread"};
static const int failing_errno[FAILINGS] = {
    0, ENOMEM, ENOSPC, ENOMEM, EMFILE, ENOMEM, ENOLCK, EFAULT, ENOSPC, EIO, EIO};

static struct {
    enum failing kind;
    uint32_t left;              /* calls until the one that fails                               */
    bool     for_good;          /* and so do all after it                                       */
    uint32_t fired;
} countdown;

static inline void arm(enum failing kind, uint32_t nth, bool for_good)
{
    countdown.left = nth;
    countdown.for_good = for_good;
    countdown.fired = 0;
    countdown.kind = kind;
}

/* How many calls failed. */
static inline uint32_t disarm(void)
{
    countdown.kind = FAIL_NOTHING;
    return countdown.fired;
}

static inline bool fails(enum failing kind)
{
    if (countdown.kind != kind || (countdown.left > 1 && countdown.left--))
        return false;
    if (countdown.fired && !countdown.for_good)
        return false;
    countdown.fired++;
    errno = failing_errno[kind];
    return true;
}

/* Memory of the process's own is memory, whichever call it comes from; what maps a region is not. */
static inline enum failing kind_of_mapping(int prot, int flags)
{
    return (prot & PROT_WRITE) && (flags & MAP_PRIVATE) ? FAIL_MALLOC : FAIL_MMAP;
}

#define WRAP(kind, result, failure, name, parameters, arguments)                                 \
    result __real_##name parameters;                                                             \
    result __wrap_##name parameters;                                                             \
    result __wrap_##name parameters { return fails(kind) ? failure : __real_##name arguments; }

WRAP(FAIL_MALLOC, void *, NULL, malloc, (size_t n), (n))
WRAP(FAIL_MALLOC, void *, NULL, calloc, (size_t n, size_t size), (n, size))
WRAP(FAIL_MALLOC, void *, NULL, realloc, (void *p, size_t n), (p, n))
WRAP(FAIL_MALLOC, void *, NULL, aligned_alloc, (size_t alignment, size_t n), (alignment, n))
WRAP(FAIL_FALLOCATE, int, -1, fallocate, (int fd, int mode, off_t offset, off_t len), (fd, mode, offset, len))
WRAP(kind_of_mapping(prot, flags), void *, MAP_FAILED, mmap,
     (void *at, size_t n, int prot, int flags, int fd, off_t offset), (at, n, prot, flags, fd, offset))
WRAP(FAIL_MADVISE, int, -1, madvise, (void *at, size_t n, int advice), (at, n, advice))
WRAP(FAIL_FTRUNCATE, int, -1, ftruncate, (int fd, off_t size), (fd, size))
WRAP(FAIL_FSTAT, int, -1, fstat, (int fd, struct stat *st), (fd, st))
WRAP(FAIL_PREAD, ssize_t, -1, pread, (int fd, void *to, size_t n, off_t offset), (fd, to, n, offset))

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return fails(FAIL_OPEN) ? -1 : __real_open(path, flags, mode);
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list args;
    va_start(args, command);
    void *argument = va_arg(args, void *);
    va_end(args);
    return fails(FAIL_FCNTL) ? -1 : __real_fcntl(fd, command, argument);
}

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    return number == SYS_futex && fails(FAIL_FUTEX) ? -1 : __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#endif
