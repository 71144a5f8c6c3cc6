/* durable.h: a durable store in a folder of its own, whose processes can be killed at each crash point and whose files fail.
 *
 * How: a deed is done once to see which crash points it passes (note_point), and then again in a child that dies at the
 *      n-th of them (die_there).  What is on disk is read into another store, as if the memory were lost.
 */
#ifndef SKV_TEST_DURABLE_H
#define SKV_TEST_DURABLE_H

#include <dirent.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "checkpoint.h"
#include "os_files.h"
#include "restore.h"
#include "util.h"

#define SIZE      (2 * MIB)
#define POINTS    400u

static const uint8_t uuid[16] = "a durable store.";
static char folder[512];
static int folder_fd = -1;
static box b;
static uint16_t flags = SKV_FLAG_DURABLE;   /* of the store                                         */

/* ---- Folder and store ----------------------------------------------------------------------------- */

static inline void empty_folder(void)
{
    DIR *all = opendir(folder);
    const struct dirent *entry;
    while (all && (entry = readdir(all)))
        if (entry->d_name[0] != '.')
            unlinkat(folder_fd, entry->d_name, 0);
    if (all)
        closedir(all);
}

static inline void need_folder(void)
{
    if (folder_fd < 0) {
        const char *base = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/shmkv-durable-XXXXXX", base ? base : "/tmp");
        REQUIRE(mkdtemp(folder), "mkdtemp in %s: %s", folder, strerror(errno));
        folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    empty_folder();
}

static inline void remove_folder(void)
{
    if (folder_fd >= 0) {
        empty_folder();
        rmdir(folder);
    }
}

static inline void fill_from(box *to, skv_files files, skv_restored *out)
{
    static _Atomic uint64_t bytes;
    *out = (skv_restored){.bytes = &bytes};
    REQUIRE(skv_restore(to->store, files, out) == 0, "status %d", (int)out->status);
    REQUIRE(!out->found.damage, "damage %d in %s at %" PRIu64, (int)out->found.damage, out->found.name, out->found.offset);
}

static inline void fill_from_disk(box *to, skv_restored *out)
{
    skv_files files;
    REQUIRE(skv_os_files(folder_fd, &files) == 0, "the folder");
    fill_from(to, files, out);
    files.done(files.context);
}

static inline void open_store(void)
{
    skv_restored out;
    skv_files files;
    make_box(&b, SIZE, flags);
    fill_from_disk(&b, &out);
    REQUIRE(skv_os_files(folder_fd, &files) == 0, "the folder");
    REQUIRE(skv_journal_open(b.store, files, uuid, &out.found, 0) == 0, "the journal");
}

/* ---- Points ------------------------------------------------------------------------------------------------ */

typedef struct passed {
    char name[POINTS][32];
    uint32_t count;
} passed;

static passed *seen;                /* shared with children                                       */
static struct { char name[32]; uint32_t times; } killed[POINTS];
static uint32_t die_at;             /* the n-th point that is passed                              */
static uint32_t points;

static const char *only = "";       /* points whose names begin so                                */

static inline void note_point(const char *name)
{
    if (strncmp(name, only, strlen(only)) == 0 && seen->count < POINTS)
        snprintf(seen->name[seen->count++], sizeof seen->name[0], "%s", name);
}

static inline void die_there(const char *name)
{
    if (strncmp(name, only, strlen(only)) == 0 && ++points == die_at)
        kill(getpid(), SIGKILL);
}

static inline void note_killed(const char *name)
{
    uint32_t i = 0;
    while (i < POINTS - 1 && killed[i].times && strcmp(killed[i].name, name))
        i++;
    snprintf(killed[i].name, sizeof killed[i].name, "%s", name);
    killed[i].times++;
}

static inline void share_points(void)
{
    if (!seen)
        seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(seen != MAP_FAILED, "no memory");
    seen->count = 0;
}

static inline void print_killed(void)
{
    for (uint32_t i = 0; i < POINTS && killed[i].times; i++)
        printf("killed %s %u\n", killed[i].name, killed[i].times);
}

/* ---- Failing files ------------------------------------------------------------------------------------------ */

static skv_files real;
static int error_now;
static uint64_t calls, fail_from, fail_count;   /* calls fail_from ... fail_from + fail_count - 1 fail */

static inline bool fails(void)
{
    calls++;
    return calls >= fail_from && calls - fail_from < fail_count;
}

static inline int bad_open(void *c, const char *name, enum skv_open how) { return fails() ? error_now : real.open(c, name, how); }
static inline int bad_truncate(void *c, int h, uint64_t size) { return fails() ? error_now : real.truncate(c, h, size); }
static inline int bad_sync(void *c, int h) { return fails() ? error_now : real.sync(c, h); }
static inline int bad_rename(void *c, const char *from, const char *to) { return fails() ? error_now : real.rename(c, from, to); }
static inline int bad_unlink(void *c, const char *name) { return fails() ? error_now : real.unlink(c, name); }
static inline int bad_sync_folder(void *c) { return fails() ? error_now : real.sync_folder(c); }

static inline int bad_write(void *c, int h, const void *from, size_t len, uint64_t at)
{
    if (!fails())
        return real.write(c, h, from, len, at);
    real.write(c, h, from, len / 2, at);        /* half of it is there                               */
    return error_now;
}

static inline void fail_files(int error, uint64_t from, uint64_t count_of)
{
    skv_files bad;
    if (!real.open)
        real = b.store->journal->files;
    bad = b.store->journal->files;
    bad.open = bad_open, bad.truncate = bad_truncate, bad.sync = bad_sync, bad.rename = bad_rename, bad.unlink = bad_unlink;
    bad.sync_folder = bad_sync_folder, bad.write = bad_write;
    b.store->journal->files = b.store->journal->wal.files = bad;
    error_now = error;
    calls = 0;
    fail_from = from;
    fail_count = count_of;
}

#endif
