/* test_handles.c: a log whose descriptor user code closes, or gives to another file, at any moment.
 *
 * How: the disk refuses a handle that is lost until the file is opened again, or says that it stands for another
 *      file.  Nothing of that is a failed disk; what was appended is there, and nothing is written elsewhere.
 */
#include "appending.h"

static int lost = -1;                   /* its number stands for nothing                          */
static uint64_t moment_now, questions, refused_writes;

static int open_anew(void *context, const char *name, enum skv_open how)
{
    int handle = disk_open(context, name, how);
    if (handle >= 0)
        lost = -1;
    return handle;
}

static int write_unless_lost(void *context, int handle, const void *from, size_t len, uint64_t at)
{
    refused_writes += handle == lost;
    return handle == lost ? -EBADF : disk_write(context, handle, from, len, at);
}

static uint64_t identity_unless_lost(void *context, int handle)
{
    questions++;
    return handle == lost ? 0 : disk_identity(context, handle);
}

static uint64_t slow_moment(void *context)
{
    (void)context;
    return moment_now;
}

static int sync_unless_lost(void *context, int handle)
{
    refused_writes += handle == lost;
    return handle == lost ? -EBADF : disk_sync(context, handle);
}

static void with_losses(journal *j, disk *d)
{
    REQUIRE(open_journal(j, d) == 0, "the folder");
    j->wal.files.open = open_anew, j->wal.files.write = write_unless_lost, j->wal.files.sync = sync_unless_lost;
    j->wal.files.identity = identity_unless_lost, j->wal.files.moment = slow_moment;
    lost = -1;
    moment_now = 1;
    questions = refused_writes = 0;
}

static void require_frames(disk *d, uint64_t frames)
{
    journal again = {0};
    REQUIRE(open_journal(&again, d) == 0 && again.appended == frames, "%" PRIu64 " frames, not %" PRIu64, again.appended, frames);
    close_journal(&again);
}

static int refuse(void *context, int handle, const void *from, size_t len, uint64_t at)
{
    (void)context, (void)handle, (void)from, (void)len, (void)at;
    return -EBADF;
}

static int refuse_to_open(void *context, const char *name, enum skv_open how)
{
    (void)context, (void)name, (void)how;
    return -EMFILE;
}

/* Within a moment nobody asks whether the handle is still ours; a write that finds it closed opens the file anew. */
static void a_lost_handle(void)
{
    journal j = {0};
    uint64_t position;
    disk *d = disk_new();
    with_losses(&j, d);
    for (uint32_t i = 0; i < 100; i++) {
        if (i % 10 == 0)
            moment_now++;
        if (i == 55 || i == 60) {       /* in the middle of a moment, and where one begins        */
            lost = j.wal.handle;
            REQUIRE(refused_writes == (i == 60), "nothing was refused before");
        }
        REQUIRE(append_one(&j, &position) == 0, "append %u", i);
    }
    REQUIRE(refused_writes == 1 && lost == -1, "the one that was not asked about was found by its write, and opened");
    REQUIRE(questions < 25, "%" PRIu64 " questions in 10 moments", questions);
    lost = j.wal.handle;
    d->error = EIO;
    d->fail_at = d->calls + 1;
    REQUIRE(append_one(&j, &position) == -EIO && !skv_load(&j.state.failed), "the file cannot be opened: told, nothing lost");
    REQUIRE(lost == j.wal.handle && append_one(&j, &position) == 0 && lost == -1, "it is opened the next time");
    j.wal.files.write = refuse;
    REQUIRE(append_one(&j, &position) == -EBADF && !skv_load(&j.state.failed), "closed again and again: told, nothing lost");
    j.wal.files.write = write_unless_lost;
    REQUIRE(sync_all(&j) == 0 && append_one(&j, &position) == 0, "it goes on");
    lost = j.wal.synced.handle;
    REQUIRE(lost >= 0 && sync_all(&j) == 0 && lost == -1 && !skv_load(&j.state.failed), "the leader opens it as well");
    close_journal(&j);
    require_frames(d, 102);
    disk_free(d);
}

static uint32_t lose_in;                /* so many syncs; 0 = never                               */

/* Closed between the question and the sync. */
static int sync_that_loses(void *context, int handle)
{
    if (lose_in && --lose_in == 0)
        lost = handle;
    return sync_unless_lost(context, handle);
}

/* By the time it returns, the handle is another's: what it says is no success of ours, but a failure is one. */
static int sync_and_lose(void *context, int handle)
{
    int status = disk_sync(context, handle);
    lost = lose_in ? handle : lost;
    lose_in = 0;
    return status;
}

static void a_sync_whose_handle_is_lost(void)
{
    for (uint32_t fails = 0; fails < 2; fails++) {
        journal j = {0};
        uint64_t position;
        disk *d = disk_new();
        with_losses(&j, d);
        j.wal.files.sync = sync_and_lose;
        REQUIRE(append_one(&j, &position) == 0 && sync_all(&j) == 0 && append_one(&j, &position) == 0, "append");
        const uint64_t syncs = d->syncs;
        lose_in = 1;
        d->error = EIO;
        d->fail_at = fails ? d->calls + 1 : 0;
        REQUIRE(sync_all(&j) == (fails ? -EIO : 0) && (skv_load(&j.state.failed) != 0) == fails, "what the disk said counts");
        REQUIRE(d->syncs == syncs + (fails ? 1 : 2), "it is synced again if that may have been another file");
        lost = -1;
        close_journal(&j);
        disk_free(d);
    }
}

/* A part of it, and then there is neither room nor a handle. */
static int write_half(void *context, int handle, const void *from, size_t len, uint64_t at)
{
    disk_write(context, handle, from, len / 2, at);
    lost = handle;
    ((journal *)((disk *)context)->context)->wal.files.write = write_unless_lost;
    return -ENOSPC;
}

static void a_handle_that_is_lost_at_once(void)
{
    journal j = {0};
    uint64_t position;
    disk *d = disk_new();
    with_losses(&j, d);
    j.wal.files.sync = sync_that_loses;
    lose_in = 1;
    REQUIRE(append_one(&j, &position) == 0 && sync_all(&j) == 0, "synced by the second try");
    REQUIRE(!lose_in && refused_writes == 1 && !skv_load(&j.state.failed), "the first one was refused, which says nothing of the disk");
    for (uint32_t at = 1; at <= 2; at++) {      /* the old segment's sync, and that of the new one's head */
        lose_in = at;
        REQUIRE(skv_wal_rotate_locked(&j.wal) == -EBADF && !skv_load(&j.state.failed), "not now");
        lost = -1;
        REQUIRE(append_one(&j, &position) == 0, "it goes on in the segment before");
    }
    REQUIRE(skv_wal_rotate_locked(&j.wal) == 0 && append_one(&j, &position) == 0 && sync_all(&j) == 0, "it goes on");
    close_journal(&j);
    require_frames(d, 4);
    disk_free(d);
}

/* What was torn is written over by the next try; where there is none, nothing may follow it. */
static void a_torn_write_to_a_lost_handle(void)
{
    for (uint32_t opens = 0; opens < 2; opens++) {
        journal j = {0};
        uint64_t position;
        disk *d = disk_new();
        with_losses(&j, d);
        REQUIRE(append_one(&j, &position) == 0, "append");
        d->context = &j;
        j.wal.files.write = write_half;
        d->error = EMFILE;
        d->fail_at = opens ? 0 : d->calls + 2;
        REQUIRE(append_one(&j, &position) == (opens ? 0 : -EMFILE), "the file is opened %u times", opens);
        REQUIRE((skv_load(&j.state.failed) != 0) == !opens, "it has failed if the rest of the frame cannot be cut off");
        lost = -1;
        close_journal(&j);
        require_frames(d, 1 + opens);
        disk_free(d);
    }
}

static uint32_t taken;                  /* the how manieth call finds another file under its number; 0 = none */
static int other_tells;                 /* when it is read: 0, it is empty, or that it cannot be  */
static uint32_t reads, written;

static bool is_taken(int handle)
{
    if (taken == 0 || --taken)
        return handle == lost;
    lost = handle;
    return true;
}

static int64_t read_unless_taken(void *context, int handle, void *to, size_t len, uint64_t at)
{
    reads++;
    return is_taken(handle) ? other_tells : disk_read(context, handle, to, len, at);
}

static int write_unless_taken(void *context, int handle, const void *from, size_t len, uint64_t at)
{
    if (is_taken(handle))
        return 0;
    written++;
    return disk_write(context, handle, from, len, at);
}

static int cut_unless_taken(void *context, int handle, uint64_t size)
{
    return is_taken(handle) ? 0 : disk_truncate(context, handle, size);
}

static bool accept_it(void *context)
{
    (void)context;
    return true;
}

/* A writer died: behind its whole frame, which is read, or its half, which is cut off. */
static void a_repair_whose_handle_is_lost(void)
{
    for (uint32_t whole = 0; whole < 2; whole++) {
        journal j = {0};
        uint64_t position;
        disk *d = disk_new();
        with_losses(&j, d);
        j.wal.files.read = read_unless_taken, j.wal.files.truncate = cut_unless_taken;
        REQUIRE(append_one(&j, &position) == 0, "append");
        const uint64_t end = skv_load(&j.state.end);
        fill_frame(&j.frame, 2);
        REQUIRE(skv_wal_write_locked(&j.wal, &j.frame, false, &position) == 0, "a frame that nobody has accepted");
        d->files[0].now_size -= whole ? 0 : 8;
        taken = 1;
        other_tells = -EISDIR;
        REQUIRE(skv_wal_repair_locked(&j.wal, whole ? accept_it : NULL, NULL) == 0 && taken == 0, "repair");
        other_tells = 0;
        REQUIRE(!skv_load(&j.state.failed) && lost == -1, "a descriptor is no disk");
        REQUIRE(skv_load(&j.state.end) == (whole ? position : end), "it counts if it is whole");
        REQUIRE(d->files[0].now_size == SKV_SEGMENT_HEAD + skv_load(&j.state.end), "nothing is behind it");
        j.wal.files.open = refuse_to_open;
        lost = j.wal.handle;
        REQUIRE(skv_wal_repair_locked(&j.wal, NULL, NULL) == -EMFILE && skv_load(&j.state.failed) == EMFILE, "what cannot be cut off poisons");
        REQUIRE(skv_wal_repair_locked(&j.wal, NULL, NULL) == -EROFS, "for good");
        lost = -1;
        close_journal(&j);
        require_frames(d, 1 + whole);
        disk_free(d);
    }
}

static int64_t bad_read(void *context, int handle, void *to, size_t len, uint64_t at)
{
    (void)context, (void)handle, (void)to, (void)len, (void)at;
    return -EIO;
}

/* A frame that may be whole, and cannot be read: nobody knows whether it counts. */
static void a_repair_that_fails(void)
{
    journal j = {0};
    uint64_t position;
    disk *d = disk_new();
    with_losses(&j, d);
    fill_frame(&j.frame, 1);
    REQUIRE(skv_wal_write_locked(&j.wal, &j.frame, false, &position) == 0, "a frame that nobody has accepted");
    j.wal.files.read = bad_read;
    REQUIRE(skv_wal_repair_locked(&j.wal, accept_it, NULL) == -EIO && skv_load(&j.state.failed) == EIO, "that poisons");
    close_journal(&j);
    require_frames(d, 1);
    disk_free(d);
}

/* Who takes the lead of a dead leader writes again what that one was to sync: all of it, and to this file. */
static void a_lead_whose_handle_is_lost(void)
{
    for (uint32_t of_write = 0; of_write < 2; of_write++) {
        journal j = {0};
        uint64_t position;
        disk *d = disk_new();
        with_losses(&j, d);
        j.wal.files.read = of_write ? disk_read : read_unless_taken;
        j.wal.files.write = write_unless_taken;
        for (uint32_t i = 0; i < 10; i++)
            REQUIRE(append_one(&j, &position) == 0, "append");
        for (uint32_t at = 1; at <= 2; at++) {
            taken = of_write ? 1 : at;
            written = 0;
            REQUIRE(skv_wal_repair_lead(&j.wal) == 0 && taken == 0 && written == 1, "%u writes", written);
            REQUIRE(!skv_load(&j.state.failed) && lost == -1, "a descriptor is no disk");
        }
        REQUIRE(sync_all(&j) == 0, "sync");
        close_journal(&j);
        require_frames(d, 10);
        disk_free(d);
    }
}

static int64_t size_of_another(void *context, int handle)
{
    (void)context;
    lost = handle;
    return 0;
}

/* Another file, which is empty, is not the end of a log. */
static void a_recovery_whose_handle_is_lost(void)
{
    journal j = {0};
    uint64_t position;
    disk *d = disk_new();
    with_losses(&j, d);
    for (uint32_t i = 0; i < 10; i++) {
        REQUIRE(append_one(&j, &position) == 0 && sync_all(&j) == 0, "append");
        if (i % 5 == 4)                 /* the last segment is empty                              */
            REQUIRE(skv_wal_rotate_locked(&j.wal) == 0, "rotate");
    }
    skv_files files = j.wal.files;
    files.read = read_unless_taken;
    REQUIRE(skv_wal_open_locked(&j.wal) == 0, "it is there");
    j.wal.files.size = size_of_another;
    REQUIRE(skv_wal_open_locked(&j.wal) == -EBADF, "and nobody says that it is another log's");
    lost = -1;
    close_journal(&j);
    uint32_t refused = 0;
    for (uint32_t at = 1, again = 1; again; at++) {
        seen s = {0};
        skv_recovered found;
        reads = 0;
        taken = at;
        int status = skv_recover(files, false, judge_frame, &s, &found);
        again = taken == 0;
        taken = 0;
        REQUIRE(status == (again ? -EBADF : 0), "read %u of %u: %s", at, reads, strerror(-status));
        REQUIRE(again || (found.sequence == 10 && found.cut == 0), "%" PRIu64 " frames", found.sequence);
        refused += again;
        lost = -1;
    }
    REQUIRE(refused >= 5, "heads and frames of all segments, %u", refused);
    disk_free(d);
}

/* In one and the same moment another process begins a segment. */
static void a_segment_that_others_begin(void)
{
    journal j = {0};
    uint64_t position;
    disk *d = disk_new();
    with_losses(&j, d);
    skv_wal other;
    skv_wal_init(&other, j.wal.files, skv_private_turns(), &j.state, uuid);
    for (uint32_t i = 0; i < 20; i++) {
        REQUIRE(append_one(&j, &position) == 0, "append %u", i);
        if (i % 5 == 4)
            REQUIRE(skv_wal_rotate_locked(&other) == 0, "rotate");
    }
    REQUIRE(j.wal.number + 1 == skv_load(&j.state.segment), "the last one is empty");
    skv_wal_close(&other);
    close_journal(&j);
    require_frames(d, 20);
    disk_free(d);
}

static const test tests[] = {
    {"a_lost_handle", a_lost_handle},
    {"a_handle_that_is_lost_at_once", a_handle_that_is_lost_at_once},
    {"a_sync_whose_handle_is_lost", a_sync_whose_handle_is_lost},
    {"a_torn_write_to_a_lost_handle", a_torn_write_to_a_lost_handle},
    {"a_repair_whose_handle_is_lost", a_repair_whose_handle_is_lost},
    {"a_repair_that_fails", a_repair_that_fails},
    {"a_lead_whose_handle_is_lost", a_lead_whose_handle_is_lost},
    {"a_recovery_whose_handle_is_lost", a_recovery_whose_handle_is_lost},
    {"a_segment_that_others_begin", a_segment_that_others_begin},
};

/* test_handles [NAME...] */
int main(int argc, char **argv)
{
    return run_tests(tests, COUNT(tests), argv + (argc > 1 ? 1 : argc), 120);
}
