/* test_files.c: the files of a folder (os_files.c), beside a thread that closes all descriptors and opens its own files.
 *
 * What: whatever it is in the middle of, an operation does what it was asked for to the file that was named, or says
 *       -EBADF and may be tried again; nobody else's file is written to, listed, or closed.
 * How:  this program's own openat, fcntl ... take the place of the C library's.  Before or after the n-th of them all
 *       descriptors are closed, and files of another folder get the low numbers, for n = 1, 2, ... until the operation
 *       comes to its end without that.  What lies between a question (fstat) and its use is left out: no code can
 *       close that window.
 */
#include "os_files.h"
#include "util.h"

#include <dirent.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define OTHERS   20             /* numbers from 3 on that other files get                     */
#define MOST     200u           /* moments in one operation                                   */

static uint32_t countdown;      /* moments until all is closed; 0 = never                     */
static bool     stolen;
static int      with;           /* what gets the low numbers: a descriptor below 3            */

static void steal(void)
{
    syscall(SYS_close_range, 3u, ~0u, 0u);
    for (int fd = 3; fd < 3 + OTHERS; fd++)
        syscall(SYS_dup3, with, fd, O_CLOEXEC);
    stolen = true;
}

static void moment(void)
{
    const int error = errno;
    if (countdown && --countdown == 0)
        steal();
    errno = error;
}

static int after(long returned)
{
    moment();
    return (int)returned;
}

int openat(int folder, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    int mode = flags & O_CREAT ? va_arg(args, int) : 0;
    va_end(args);
    moment();
    return after(syscall(SYS_openat, folder, name, flags, mode));
}
int fstatat(int folder, const char *name, struct stat *out, int flags)
{
    moment();
    return after(syscall(SYS_newfstatat, folder, name, out, flags));
}
int fcntl(int fd, int command, ...)
{
    va_list args;
    va_start(args, command);
    void *argument = va_arg(args, void *);
    va_end(args);
    moment();
    return after(syscall(SYS_fcntl, fd, command, argument));
}
int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    moment();
    return after(syscall(SYS_renameat, from_folder, from, to_folder, to));
}
int unlinkat(int folder, const char *name, int flags)
{
    moment();
    return after(syscall(SYS_unlinkat, folder, name, flags));
}
static ino_t synced;            /* what was synced last                                       */

int fsync(int fd)
{
    struct stat facts;
    moment();
    synced = fstat(fd, &facts) == 0 ? facts.st_ino : 0;
    return after(syscall(SYS_fsync, fd));
}

/* ---- Two folders: the log's, and one with files of the same names --------------------------------- */

static char ours[64], others[64];
static skv_files files;

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    REQUIRE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: %s", path, strerror(errno));
    close(fd);
}

static void require_file(const char *folder, const char *name, const char *text)
{
    char path[128], found[64] = "";
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDONLY);
    REQUIRE(fd >= 0 && read(fd, found, sizeof found - 1) >= 0 && strcmp(found, text) == 0, "%s holds %s", path, found);
    close(fd);
}

static void begin(void)
{
    snprintf(ours, sizeof ours, "/tmp/shmkv-test-files-%d-ours", (int)getpid());
    snprintf(others, sizeof others, "/tmp/shmkv-test-files-%d-others", (int)getpid());
    REQUIRE(mkdir(ours, 0700) == 0 && mkdir(others, 0700) == 0, "mkdir: %s", strerror(errno));
}

static void fill(void)
{
    write_file(ours, "a", "ours");
    write_file(others, "a", "others");
    write_file(others, "there", "");
}

static void end(void)
{
    char command[256];
    snprintf(command, sizeof command, "rm -r %s %s", ours, others);
    REQUIRE(system(command) == 0, "%s", command);
}

/* ---- Operations: 0, or minus an errno ---------------------------------------------------------------- */

static int open_and_write(enum skv_open how, const char *name)
{
    int handle = files.open(files.context, name, how);
    if (handle < 0)
        return handle;
    const uint64_t identity = files.identity(files.context, handle);
    if (!skv_files_own(&files, handle, identity))
        return -EBADF;
    int status = how == SKV_OPEN_READ ? 0 : files.write(files.context, handle, "done", 4, 0);
    if (!skv_files_own(&files, handle, identity))
        return -EBADF;
    files.close(files.context, handle);
    return status;
}

static int do_read(void) { return open_and_write(SKV_OPEN_READ, "a"); }
static int do_write(void) { return open_and_write(SKV_OPEN_WRITE, "a"); }
static int do_new(void)
{
    int status = open_and_write(SKV_OPEN_NEW, "new");
    if (status == -EEXIST)              /* by a try before, which was told -EBADF             */
        status = open_and_write(SKV_OPEN_WRITE, "new");
    return status;
}
static int do_sync_folder(void) { return files.sync_folder(files.context); }
static int do_rename(void)
{
    int status = files.rename(files.context, "a", "b");
    return status == -ENOENT ? 0 : status;
}
static int do_unlink(void)
{
    int status = files.unlink(files.context, "a");
    return status == -ENOENT ? 0 : status;
}

static bool saw_others;
static uint32_t seen_names;

static void see(void *to, const char *name)
{
    (void)to;
    saw_others = saw_others || strcmp(name, "there") == 0;
    seen_names++;
}

static int do_list(void)
{
    seen_names = 0;
    return files.list(files.context, see, NULL);
}

static void done_written(void) { require_file(ours, "a", "done"); }
static void done_new(void) { require_file(ours, "new", "done"); }
static void done_renamed(void) { require_file(ours, "b", "ours"); }
static void done_unlinked(void)
{
    struct stat facts;
    REQUIRE(lstat(ours, &facts) == 0, "the folder is there");
    char path[128];
    snprintf(path, sizeof path, "%s/a", ours);
    REQUIRE(lstat(path, &facts) < 0 && errno == ENOENT, "the file is gone");
}
static void done_listed(void) { REQUIRE(seen_names >= 1 && !saw_others, "%u names", seen_names); }
static void done_synced(void)
{
    struct stat facts;
    REQUIRE(stat(ours, &facts) == 0 && synced == facts.st_ino, "that is another folder");
}
static void done_nothing(void) { require_file(ours, "a", "ours"); }

static const struct operation {
    const char *name;
    int (*run)(void);
    void (*check)(void);
} operations[] = {
    {"read", do_read, done_nothing},       {"write", do_write, done_written},   {"new", do_new, done_new},
    {"rename", do_rename, done_renamed},   {"unlink", do_unlink, done_unlinked}, {"list", do_list, done_listed},
    {"sync_folder", do_sync_folder, done_synced},
};

/* ---- The tests ------------------------------------------------------------------------------------------- */

static void require_others(const char *name, uint32_t at, const struct stat *stolen_with)
{
    struct stat facts;
    for (int fd = 3; stolen && fd < 3 + OTHERS; fd++)
        REQUIRE(fstat(fd, &facts) == 0 && facts.st_ino == stolen_with->st_ino, "%s, moment %u: %d was closed", name, at, fd);
    REQUIRE(fstat(with, &facts) == 0 && facts.st_size == stolen_with->st_size, "%s, moment %u: it was written to", name, at);
    syscall(SYS_close_range, 3u, ~0u, 0u);
    require_file(others, "a", "others");
    require_file(others, "there", "");
}

/* True: the operation had that many moments. */
static bool once(const struct operation *op, uint32_t at, const char *what, bool is_folder)
{
    struct stat facts;
    char path[128];
    snprintf(path, sizeof path, "%s%s", others, what);
    with = 0;
    fill();
    int fd = open(path, is_folder ? O_RDONLY | O_DIRECTORY : O_RDWR);
    REQUIRE(fd >= 0 && dup2(fd, with) == with && fstat(with, &facts) == 0, "%s: %s", path, strerror(errno));
    close(fd);
    int folder = open(ours, O_RDONLY | O_DIRECTORY);
    REQUIRE(folder >= 0 && skv_os_files(folder, &files) == 0, "%s", ours);
    close(folder);
    stolen = saw_others = false;
    countdown = at;
    int status = op->run();
    countdown = 0;
    const bool hit = stolen;
    REQUIRE(status == 0 || (hit && status == -EBADF), "%s, moment %u: %s", op->name, at, strerror(-status));
    REQUIRE(!saw_others, "%s, moment %u: another folder was listed", op->name, at);
    for (uint32_t i = 0; status && i < 3; i++)
        status = op->run();
    REQUIRE(status == 0, "%s, moment %u, again: %s", op->name, at, strerror(-status));
    op->check();
    files.done(files.context);
    require_others(op->name, at, &facts);
    snprintf(path, sizeof path, "rm -rf %s/*", ours);
    REQUIRE(system(path) == 0, "%s", path);
    return hit;
}

static void at_each_moment(const char *what, bool is_folder)
{
    begin();
    for (size_t i = 0; i < COUNT(operations); i++) {
        uint32_t at = 1;
        while (once(&operations[i], at, what, is_folder))
            REQUIRE(++at < MOST, "%s never ends", operations[i].name);
        REQUIRE(at > 2, "%s was not met", operations[i].name);
    }
    end();
}

static void files_take_the_numbers(void) { at_each_moment("/a", false); }
static void folders_take_the_numbers(void) { at_each_moment("", true); }

/* The folder is neither open nor where it was. */
static void a_folder_that_is_elsewhere(void)
{
    char elsewhere[96];
    begin();
    fill();
    int folder = open(ours, O_RDONLY | O_DIRECTORY);
    REQUIRE(folder >= 0 && skv_os_files(folder, &files) == 0, "%s", ours);
    snprintf(elsewhere, sizeof elsewhere, "%s-elsewhere", ours);
    REQUIRE(rename(ours, elsewhere) == 0, "rename");
    syscall(SYS_close_range, 3u, ~0u, 0u);
    REQUIRE(do_read() == -ENOENT, "it is not there");
    REQUIRE(mkdir(ours, 0700) == 0, "mkdir");
    write_file(ours, "a", "theirs");
    REQUIRE(do_write() == -ESTALE, "another one is there");
    require_file(ours, "a", "theirs");
    char command[256];
    snprintf(command, sizeof command, "rm -r %s", ours);
    REQUIRE(system(command) == 0 && rename(elsewhere, ours) == 0, "back");
    REQUIRE(do_write() == 0, "it is there again");
    done_written();
    files.done(files.context);
    end();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        {"files_take_the_numbers", files_take_the_numbers},
        {"folders_take_the_numbers", folders_take_the_numbers},
        {"a_folder_that_is_elsewhere", a_folder_that_is_elsewhere},
    };
    (void)argc;
    return run_tests(tests, COUNT(tests), argv + 1, 60);
}
