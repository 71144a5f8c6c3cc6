/* os_files.c: the files of a folder, by its descriptor: the real skv_files.
 *
 * Relative to a descriptor, so that a folder that is renamed meanwhile stays the same one.
 */
#include "os_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os_region.h"

static int folder_of(void *context)
{
    return (int)(intptr_t)context;
}

static int result(int returned)
{
    return returned < 0 ? -errno : returned;
}

static int file_open(void *context, const char *name, enum skv_open how)
{
    static const int flags[] = {
        [SKV_OPEN_READ] = O_RDONLY, [SKV_OPEN_WRITE] = O_RDWR, [SKV_OPEN_NEW] = O_RDWR | O_CREAT | O_EXCL};
    return result(openat(folder_of(context), name, flags[how] | O_CLOEXEC | O_NOFOLLOW, 0600));
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
            return -errno;
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
    return result(renameat(folder_of(context), from, folder_of(context), to));
}

static int file_unlink(void *context, const char *name)
{
    return result(unlinkat(folder_of(context), name, 0));
}

static int sync_folder(void *context)
{
    return result(fsync(folder_of(context)));
}

static int list_folder(void *context, void (*each)(void *to, const char *name), void *to)
{
    /* A description of its own: that of the caller keeps its position. */
    int fd = openat(folder_of(context), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return -error;
    }
    const struct dirent *entry;
    errno = 0;
    while ((entry = readdir(folder)) != NULL) {
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            each(to, entry->d_name);
        errno = 0;
    }
    int error = errno;
    closedir(folder);
    return -error;
}

skv_files skv_os_files(int folder)
{
    return (skv_files){
        .context = (void *)(intptr_t)folder, .open = file_open, .close = file_close, .size = file_size,
        .read = file_read, .write = file_write, .truncate = file_truncate, .sync = file_sync, .rename = file_rename,
        .unlink = file_unlink, .sync_folder = sync_folder, .list = list_folder};
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

skv_turns skv_private_turns(void)
{
    return (skv_turns){.try_lead = private_lead, .end_lead = private_end, .wait = private_wait, .wake_all = skv_os_futex_wake_all};
}
