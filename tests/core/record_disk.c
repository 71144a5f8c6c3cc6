/* record_disk.c: a library to be preloaded: what a process does to the files of one folder, in order.
 *
 * What: each file that is made, written, cut, synced, renamed or removed, and each sync of the folder, becomes an event
 *       in a file; the process adds marks of its own.  tests/outage/ makes disks of them that have lost their power.
 * How:  the call and its event are made under one lock, so that the events are in the order of the calls.  Files are
 *       told by their inodes; who reads the events knows that a number may come back.
 *
 * Concurrency: any thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { MADE = 1, WRITTEN, CUT, SYNCED, RENAMED, REMOVED, FOLDER_SYNCED, MARK };

typedef struct event {
    uint8_t kind, name_len, to_len, unused;
    uint32_t len;
    uint64_t file, at;
} event;

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static struct stat folder;

void record_begin(const char *folder_path, const char *trace_path);
void record_mark(uint64_t number);

/* ---- Events -------------------------------------------------------------------------------------- */

static void note(enum kind kind, uint64_t file, uint64_t at, const char *name, const char *to, const void *bytes, size_t len)
{
    event e = {.kind = (uint8_t)kind, .name_len = (uint8_t)strlen(name), .to_len = (uint8_t)strlen(to),
               .len = (uint32_t)len, .file = file, .at = at};
    const struct iovec parts[] = {{&e, sizeof e}, {(void *)name, e.name_len}, {(void *)to, e.to_len}, {(void *)bytes, len}};
    size_t whole = sizeof e + e.name_len + e.to_len + len;
    if (syscall(SYS_writev, trace, parts, 4) != (long)whole)
        abort();                        /* a record with a hole would acquit the guilty            */
}

void record_begin(const char *folder_path, const char *trace_path)
{
    if (stat(folder_path, &folder) < 0)
        abort();
    trace = (int)syscall(SYS_openat, AT_FDCWD, trace_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (trace < 0)
        abort();
}

void record_mark(uint64_t number)
{
    pthread_mutex_lock(&turn);
    note(MARK, 0, number, "", "", NULL, 0);
    pthread_mutex_unlock(&turn);
}

/* ---- Whose ----------------------------------------------------------------------------------------- */

static bool is_folder(int fd)
{
    struct stat facts;
    return trace >= 0 && fstat(fd, &facts) == 0 && facts.st_dev == folder.st_dev && facts.st_ino == folder.st_ino;
}

/* Any file of its file system; those outside of the folder have no event that made them, and are passed over. */
static bool is_file(int fd, struct stat *facts)
{
    int error = errno;
    bool is = trace >= 0 && fd != trace && fstat(fd, facts) == 0 && facts->st_dev == folder.st_dev && S_ISREG(facts->st_mode);
    errno = error;
    return is;
}

static int done(int result, int error)
{
    pthread_mutex_unlock(&turn);
    errno = error;
    return result;
}

/* ---- Calls ------------------------------------------------------------------------------------------- */

static int open_at(int at, const char *name, int flags, mode_t mode)
{
    struct stat before, after;
    if (!(flags & (O_CREAT | O_TRUNC)) || !is_folder(at))
        return (int)syscall(SYS_openat, at, name, flags, mode);
    pthread_mutex_lock(&turn);
    bool was = syscall(SYS_newfstatat, at, name, &before, 0) == 0;
    int fd = (int)syscall(SYS_openat, at, name, flags, mode), error = errno;
    if (fd >= 0 && is_file(fd, &after)) {
        if (!was)
            note(MADE, after.st_ino, 0, name, "", NULL, 0);
        else if (flags & O_TRUNC)
            note(CUT, after.st_ino, 0, "", "", NULL, 0);
    }
    return done(fd, error);
}

#define OPENAT(name)                                                                                                       \
    int name(int at, const char *path, int flags, ...)                                                                     \
    {                                                                                                                      \
        va_list args;                                                                                                      \
        va_start(args, flags);                                                                                             \
        mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;                                                          \
        va_end(args);                                                                                                      \
        return open_at(at, path, flags, mode);                                                                             \
    }
OPENAT(openat)
OPENAT(openat64)

static ssize_t write_at(int fd, const void *from, size_t len, int64_t at, bool moves)
{
    struct stat facts;
    if (!is_file(fd, &facts))
        return moves ? syscall(SYS_write, fd, from, len) : syscall(SYS_pwrite64, fd, from, len, at);
    pthread_mutex_lock(&turn);
    if (moves)
        at = lseek(fd, 0, SEEK_CUR);
    ssize_t n = moves ? syscall(SYS_write, fd, from, len) : syscall(SYS_pwrite64, fd, from, len, at);
    int error = errno;
    if (n > 0)
        note(WRITTEN, facts.st_ino, (uint64_t)at, "", "", from, (size_t)n);
    done(0, error);
    return n;
}

ssize_t write(int fd, const void *from, size_t len) { return write_at(fd, from, len, 0, true); }
ssize_t pwrite(int fd, const void *from, size_t len, off_t at) { return write_at(fd, from, len, at, false); }
ssize_t pwrite64(int fd, const void *from, size_t len, off_t at) { return write_at(fd, from, len, at, false); }

int ftruncate(int fd, off_t size)
{
    struct stat facts;
    if (!is_file(fd, &facts))
        return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&turn);
    int result = (int)syscall(SYS_ftruncate, fd, size), error = errno;
    if (result == 0)
        note(CUT, facts.st_ino, (uint64_t)size, "", "", NULL, 0);
    return done(result, error);
}

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

static int sync_with(long call, int fd)
{
    struct stat facts;
    bool whole = is_folder(fd), file = !whole && is_file(fd, &facts);
    if (!whole && !file)
        return (int)syscall(call, fd);
    pthread_mutex_lock(&turn);
    int result = (int)syscall(call, fd), error = errno;
    if (result == 0)
        note(whole ? FOLDER_SYNCED : SYNCED, whole ? 0 : facts.st_ino, 0, "", "", NULL, 0);
    return done(result, error);
}

int fdatasync(int fd) { return sync_with(SYS_fdatasync, fd); }
int fsync(int fd) { return sync_with(SYS_fsync, fd); }

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    if (!is_folder(from_at))
        return (int)syscall(SYS_renameat2, from_at, from, to_at, to, 0);
    pthread_mutex_lock(&turn);
    int result = (int)syscall(SYS_renameat2, from_at, from, to_at, to, 0), error = errno;
    if (result == 0)
        note(RENAMED, 0, 0, from, to, NULL, 0);
    return done(result, error);
}

int unlinkat(int at, const char *name, int flags)
{
    if (!is_folder(at))
        return (int)syscall(SYS_unlinkat, at, name, flags);
    pthread_mutex_lock(&turn);
    int result = (int)syscall(SYS_unlinkat, at, name, flags), error = errno;
    if (result == 0)
        note(REMOVED, 0, 0, name, "", NULL, 0);
    return done(result, error);
}
