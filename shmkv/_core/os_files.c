/* os_files.c: the files of a folder, by its descriptor: the real skv_files.
 *
 * Relative to a descriptor, so that a folder that is renamed meanwhile stays the same one.  Where user code closed all
 * descriptors (a daemon does), it is opened anew by its path.
 */
#include "os_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "os_region.h"

#define MOST_HIGH 4096u

typedef struct folder {
    struct stat root;           /* where its path begins: another one after chroot            */
    int fd;                     /* guarded by the fork mutex, which no child inherits locked  */
    dev_t dev;
    ino_t ino;
    char path[PATH_MAX];
} folder;

static bool is_at_its_path(const folder *f)
{
    struct stat facts;
    return stat(f->path, &facts) == 0 && facts.st_dev == f->dev && facts.st_ino == f->ino;
}

/* Far above the numbers that files get: code that closes "all" descriptors may close it, but what is opened after that
 * does not take its place.  -1: no number is free. */
static int copied_up(int fd)
{
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t least = limit.rlim_cur / 2 < MOST_HIGH ? limit.rlim_cur / 2 : MOST_HIGH;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, (int)least);
    return high >= 0 ? high : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/* -1 with EBADF: since the low number was opened another thread has closed it, and maybe got it for another file. */
static int moved_up(int fd, dev_t dev, ino_t ino)
{
    const int high = copied_up(fd);
    const bool low_is_ours = skv_fd_is(fd, dev, ino), high_is_ours = skv_fd_is(high, dev, ino);
    if (high < 0 && low_is_ours)
        return fd;
    if (low_is_ours)
        close(fd);
    if (high_is_ours)
        return high;
    if (high >= 0)
        close(high);
    errno = EBADF;
    return -1;
}

/* Other threads may close it again at once: bounded. */
static int open_folder(const folder *f)
{
    for (uint32_t i = 0; i < 100; i++) {
        int fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return fd;
        int high = moved_up(fd, f->dev, f->ino);
        if (high >= 0)
            return high;
        if (!is_at_its_path(f)) {
            close(fd);
            errno = ESTALE;
            return -1;
        }
    }
    errno = EBADF;
    return -1;
}

static int folder_of(void *context)
{
    folder *f = context;
    skv_fork_lock();
    if (!skv_fd_is(f->fd, f->dev, f->ino))
        f->fd = open_folder(f);
    int fd = f->fd;
    skv_fork_unlock();
    return fd;
}

static int result(int returned)
{
    return returned < 0 ? -errno : returned;
}

/* A handle is told by its position, which nothing here uses or moves: each gets one of its own when it is opened.  To
 * ask for it takes half of what a file's inode takes (117 and 252 ns).  A child goes on counting where its parent was,
 * so that what it opens differs from what it inherited. */
#define MARKS (UINT32_C(1) << 30)       /* from this one on, below what every file system takes for a position */

static uint32_t next_mark(void)
{
    static _Atomic uint32_t next;
    uint32_t fresh = 0, none = 0;
    if (atomic_load(&next) == 0 && getrandom(&fresh, sizeof fresh, GRND_NONBLOCK) == sizeof fresh)
        atomic_compare_exchange_strong(&next, &none, fresh);
    return MARKS + atomic_fetch_add(&next, 1) % MARKS;
}

static int marked(int fd)
{
    if (fd < 0 || lseek(fd, next_mark(), SEEK_SET) >= 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* Of this process, whatever the store: another one's new file may have the number of a handle that was closed.  Counted
 * when it has its number, so that a question of before does not count any more. */
static _Atomic uint32_t opened;

static int file_open(void *context, const char *name, enum skv_open how)
{
    static const int flags[] = {
        [SKV_OPEN_READ] = O_RDONLY, [SKV_OPEN_WRITE] = O_RDWR, [SKV_OPEN_NEW] = O_RDWR | O_CREAT | O_EXCL};
    struct stat facts;
    int folder = folder_of(context);
    if (folder < 0)
        return -errno;
    int low = openat(folder, name, flags[how] | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (low < 0)
        return -errno;
    if (fstatat(folder, name, &facts, AT_SYMLINK_NOFOLLOW) < 0) {
        int error = errno;
        if (error != EBADF)             /* else all are closed, and the number may be another's   */
            close(low);
        return -error;
    }
    int handle = moved_up(low, facts.st_dev, facts.st_ino);
    atomic_fetch_add(&opened, 1);
    return result(marked(handle));
}

/* An error of close would be that of an earlier write, which sync has told. */
static void file_close(void *context, int handle)
{
    (void)context;
    close(handle);
}

static int64_t file_size(void *context, int handle)
{
    (void)context;
    struct stat facts;
    return fstat(handle, &facts) < 0 ? -errno : (int64_t)facts.st_size;
}

static int64_t file_read(void *context, int handle, void *to, size_t len, uint64_t at)
{
    (void)context;
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(handle, (uint8_t *)to + done, len - done, (off_t)(at + done));
        if (n == 0)
            break;
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return (int64_t)done;
}

static int file_write(void *context, int handle, const void *from, size_t len, uint64_t at)
{
    (void)context;
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(handle, (const uint8_t *)from + done, len - done, (off_t)(at + done));
        if (n == 0)
            return -EIO;
        if (n < 0 && errno != EINTR)
            return errno == EBADF && done > 0 ? -EIO : -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int file_truncate(void *context, int handle, uint64_t size)
{
    (void)context;
    int done;
    do
        done = ftruncate(handle, (off_t)size);
    while (done < 0 && errno == EINTR);
    return result(done);
}

/* Never again after an error: the kernel has marked the pages clean, and would say that all is well (Rebello et al.,
 * Can Applications Recover from fsync Failures?, 2020). */
static int file_sync(void *context, int handle)
{
    (void)context;
    int done;
    do
        done = fdatasync(handle);
    while (done < 0 && errno == EINTR);
    return result(done);
}

static int file_rename(void *context, const char *from, const char *to)
{
    int folder = folder_of(context);
    return folder < 0 ? -errno : result(renameat(folder, from, folder, to));
}

static int file_unlink(void *context, const char *name)
{
    int folder = folder_of(context);
    return folder < 0 ? -errno : result(unlinkat(folder, name, 0));
}

static int sync_folder(void *context)
{
    int folder = folder_of(context);
    return folder < 0 ? -errno : result(fsync(folder));
}

/* A description of its own: that of the caller keeps its position.  NULL with errno set. */
static DIR *open_list(folder *f)
{
    int shared = folder_of(f), low = shared < 0 ? -1 : openat(shared, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = low < 0 ? -1 : moved_up(low, f->dev, f->ino);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    int error = errno;
    if (!list && skv_fd_is(fd, f->dev, f->ino))
        close(fd);
    errno = error;
    return list;
}

static int list_folder(void *context, void (*each)(void *to, const char *name), void *to)
{
    folder *f = context;
    DIR *list = open_list(f);
    if (!list)
        return -errno;
    const struct dirent *entry;
    errno = 0;
    while ((entry = readdir(list)) != NULL) {
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            each(to, entry->d_name);
        errno = 0;
    }
    int error = errno;
    if (!skv_fd_is(dirfd(list), f->dev, f->ino))
        return -EBADF;                  /* and what has its number by now stays open: a few kilobytes are lost */
    closedir(list);
    return -error;
}

static uint64_t file_identity(void *context, int handle)
{
    (void)context;
    off_t mark = handle < 0 ? -1 : lseek(handle, 0, SEEK_CUR);
    return mark < 0 ? 0 : (uint64_t)mark;
}

static uint64_t file_inode(void *context, int handle)
{
    (void)context;
    struct stat facts;
    return fstat(handle, &facts) < 0 ? 0 : facts.st_ino;
}

/* Who has changed its root, or may not search a directory of the path any more, does not see what is there. */
static bool sees_paths(const folder *f)
{
    struct stat root;
    return f->path[0] && stat("/", &root) == 0 && root.st_dev == f->root.st_dev && root.st_ino == f->root.st_ino;
}

static int file_look(void *context, int handle, const skv_expected *expected)
{
    const folder *f = context;
    char path[PATH_MAX + NAME_MAX];
    struct stat facts, named;
    if (fstat(handle, &facts) < 0)
        return errno == EBADF ? -EBADF : 0;
    if (facts.st_nlink == 0 || (uint64_t)facts.st_size < expected->size || (expected->inode && facts.st_ino != expected->inode))
        return -ESTALE;
    snprintf(path, sizeof path, "%s/%s", f->path, expected->name);
    bool missing = stat(path, &named) < 0, same = !missing && named.st_dev == facts.st_dev && named.st_ino == facts.st_ino;
    return same || (missing && errno != ENOENT && errno != ENOTDIR) || !sees_paths(f) ? 0 : -ESTALE;
}

/* Another one with each tick of the clock (1 to 10 ms), and with each file that is opened. */
static uint64_t file_moment(void *context)
{
    struct timespec now = {0};
    (void)context;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    uint64_t ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    return (ms + 1) << 24 | (atomic_load(&opened) & 0xffffff);
}

static void folder_done(void *context)
{
    folder *f = context;
    if (skv_fd_is(f->fd, f->dev, f->ino))
        close(f->fd);
    free(f);
}

int skv_os_files(int given, skv_files *out)
{
    char link[64];
    struct stat facts;
    folder *f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    f->fd = copied_up(given);
    if (f->fd < 0 || fstat(f->fd, &facts) < 0) {
        int error = errno;
        free(f);
        return -error;
    }
    f->dev = facts.st_dev;
    f->ino = facts.st_ino;
    snprintf(link, sizeof link, "/proc/self/fd/%d", f->fd);
    ssize_t n = readlink(link, f->path, sizeof f->path - 1);
    f->path[n > 0 && n < (ssize_t)sizeof f->path - 1 ? n : 0] = 0;      /* a longer one cannot be used */
    if (stat("/", &f->root) < 0)
        f->path[0] = 0;
    *out = (skv_files){
        .context = f, .open = file_open, .close = file_close, .size = file_size, .read = file_read, .write = file_write,
        .truncate = file_truncate, .sync = file_sync, .rename = file_rename, .unlink = file_unlink, .sync_folder = sync_folder,
        .list = list_folder, .identity = file_identity, .inode = file_inode, .look = file_look, .moment = file_moment, .done = folder_done};
    return 0;
}

/* ---- Turns ----------------------------------------------------------------------------------------- */

#define WAIT_MS 20u

static bool private_lead(void *context, _Atomic uint32_t *lock)
{
    uint32_t nobody = 0;
    (void)context;
    return atomic_compare_exchange_strong_explicit(lock, &nobody, 1, memory_order_acquire, memory_order_relaxed);
}

static void private_end(void *context, _Atomic uint32_t *lock)
{
    (void)context;
    atomic_store_explicit(lock, 0, memory_order_release);
}

static void private_wait(void *context, _Atomic uint32_t *word, uint32_t seen, _Atomic uint32_t *lock)
{
    (void)lock;                 /* its holder cannot die alone                                */
    skv_os_futex_wait(context, word, seen, WAIT_MS);
}

static bool private_free_dead(void *context, _Atomic uint32_t *lock)
{
    (void)context, (void)lock;
    return false;
}

skv_turns skv_private_turns(void)
{
    return (skv_turns){.try_lead = private_lead, .end_lead = private_end, .wait = private_wait, .free_dead = private_free_dead, .wake_all = skv_os_futex_wake_all,
                       .pause = skv_os_pause};
}
