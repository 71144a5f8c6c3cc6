/* disk.h: a folder of files in memory that can lose its power.
 *
 * What: struct skv_files over arrays of bytes.  What was written is in the cache; what was synced is safe.
 * How:  disk_cut makes a folder as it may be found after the power went: of each file, every 512-byte sector that
 *       was written since the last sync is there or not, each by itself; the size is that of the last sync or any
 *       later one; of the changes of names since the folder was synced, the first few are there, or some of them: those
 *       of one file or of one name in their order, others in any.  The n-th call can be made to fail, and a write to
 *       fail half-way.
 */
#ifndef SKV_TEST_DISK_H
#define SKV_TEST_DISK_H

#include "files.h"
#include "util.h"

#define DISK_FILES    96
#define SKV_TEST_NAME 40
#define DISK_PENDING  4096
#define SECTOR        512u

typedef struct disk_change {            /* of a file since its last sync                      */
    bool cuts;                          /* to `at` bytes; else a write                        */
    uint64_t at;
    size_t len;
    uint8_t *bytes;
} disk_change;

typedef struct disk_file {
    uint8_t *now, *safe;
    size_t now_size, safe_size;
    disk_change *pending;
    uint32_t pending_count, names;
} disk_file;

enum name_change { NAME_MADE, NAME_RENAMED, NAME_GONE };

typedef struct disk_name { char name[SKV_TEST_NAME]; int file; } disk_name;
typedef struct name_event { enum name_change what; char name[SKV_TEST_NAME], to[SKV_TEST_NAME]; int file; } name_event;

typedef struct disk {
    disk_file files[DISK_FILES];
    uint32_t file_count;
    disk_name now[DISK_FILES], safe[DISK_FILES];
    uint32_t now_count, safe_count;
    name_event events[DISK_PENDING];
    uint32_t event_count;
    uint64_t calls, syncs, moments;
    uint64_t fail_at;                   /* the call that fails; 0 = none                      */
    bool fails_on;                      /* and all after it                                   */
    int error;
    void (*after)(void *context);       /* each change                                        */
    void *context;
} disk;

/* ---- Names ------------------------------------------------------------------------------------ */

static inline int disk_find(const disk_name *names, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(names[i].name, name) == 0)
            return (int)i;
    return -1;
}

static inline void disk_set_name(disk_name *names, uint32_t *count, const char *name, int file)
{
    int at = disk_find(names, *count, name);
    if (at < 0) {
        REQUIRE(*count < DISK_FILES, "too many names");
        at = (int)(*count)++;
    }
    snprintf(names[at].name, sizeof names[at].name, "%s", name);
    names[at].file = file;
}

static inline void disk_drop_name(disk_name *names, uint32_t *count, const char *name)
{
    int at = disk_find(names, *count, name);
    if (at >= 0)
        names[at] = names[--*count];
}

static inline void disk_apply_name(const name_event *event, disk_name *names, uint32_t *count)
{
    if (event->what != NAME_MADE)
        disk_drop_name(names, count, event->name);
    if (event->what != NAME_GONE)
        disk_set_name(names, count, event->what == NAME_MADE ? event->name : event->to, event->file);
}

/* ---- Calls --------------------------------------------------------------------------------------- */

static inline bool disk_fails(disk *d)
{
    d->calls++;
    return d->fail_at && (d->calls == d->fail_at || (d->fails_on && d->calls > d->fail_at));
}

static inline void disk_changed(disk *d)
{
    if (d->after)
        d->after(d->context);
}

static inline void disk_note_name(disk *d, enum name_change what, const char *name, const char *to, int file)
{
    REQUIRE(d->event_count < DISK_PENDING, "too many changes of names");
    name_event *event = &d->events[d->event_count++];
    *event = (name_event){.what = what, .file = file};
    snprintf(event->name, sizeof event->name, "%s", name);
    snprintf(event->to, sizeof event->to, "%s", to);
    disk_apply_name(event, d->now, &d->now_count);
}

static inline int disk_open(void *context, const char *name, enum skv_open how)
{
    disk *d = context;
    if (disk_fails(d))
        return -d->error;
    int at = disk_find(d->now, d->now_count, name);
    if (how == SKV_OPEN_NEW) {
        if (at >= 0)
            return -EEXIST;
        REQUIRE(d->file_count < DISK_FILES, "too many files");
        int file = (int)d->file_count++;
        d->files[file] = (disk_file){.pending = calloc(DISK_PENDING, sizeof(disk_change))};
        disk_note_name(d, NAME_MADE, name, "", file);
        disk_changed(d);
        return file;
    }
    return at < 0 ? -ENOENT : d->now[at].file;
}

static inline void disk_close(void *context, int handle) { (void)context, (void)handle; }

static inline int64_t disk_size(void *context, int handle)
{
    disk *d = context;
    return disk_fails(d) ? -d->error : (int64_t)d->files[handle].now_size;
}

static inline int64_t disk_read(void *context, int handle, void *to, size_t len, uint64_t at)
{
    disk *d = context;
    const disk_file *f = &d->files[handle];
    if (disk_fails(d))
        return -d->error;
    size_t there = at < f->now_size ? f->now_size - (size_t)at : 0;
    len = len < there ? len : there;
    if (len)
        memcpy(to, f->now + at, len);
    return (int64_t)len;
}

static inline void disk_resize(uint8_t **bytes, size_t *size, size_t wanted)
{
    if (wanted > *size) {
        *bytes = realloc(*bytes, wanted);
        REQUIRE(*bytes, "no memory");
        memset(*bytes + *size, 0, wanted - *size);
    }
    *size = wanted;
}

static inline void disk_apply(uint8_t **bytes, size_t *size, uint64_t at, const uint8_t *from, size_t len)
{
    if (at + len > *size)
        disk_resize(bytes, size, (size_t)at + len);
    if (len)
        memcpy(*bytes + at, from, len);
}

static inline disk_change *disk_pending(disk_file *f)
{
    REQUIRE(f->pending_count < DISK_PENDING, "too many writes without a sync");
    return &f->pending[f->pending_count++];
}

static inline int disk_write(void *context, int handle, const void *from, size_t len, uint64_t at)
{
    disk *d = context;
    disk_file *f = &d->files[handle];
    bool fails = disk_fails(d);
    if (fails)
        len /= 2;                       /* half of it is there                                */
    disk_change *change = disk_pending(f);
    *change = (disk_change){.at = at, .len = len, .bytes = malloc(len ? len : 1)};
    memcpy(change->bytes, from, len);
    disk_apply(&f->now, &f->now_size, at, from, len);
    disk_changed(d);
    return fails ? -d->error : 0;
}

static inline int disk_truncate(void *context, int handle, uint64_t size)
{
    disk *d = context;
    disk_file *f = &d->files[handle];
    if (disk_fails(d))
        return -d->error;
    *disk_pending(f) = (disk_change){.cuts = true, .at = size};
    disk_resize(&f->now, &f->now_size, (size_t)size);
    disk_changed(d);
    return 0;
}

static inline void disk_forget_pending(disk_file *f)
{
    for (uint32_t i = 0; i < f->pending_count; i++)
        free(f->pending[i].bytes);
    f->pending_count = 0;
}

static inline void disk_make_safe(disk_file *f)
{
    for (uint32_t i = 0; i < f->pending_count; i++) {
        const disk_change *change = &f->pending[i];
        if (change->cuts)
            disk_resize(&f->safe, &f->safe_size, (size_t)change->at);
        else
            disk_apply(&f->safe, &f->safe_size, change->at, change->bytes, change->len);
    }
}

/* A sync that fails drops what it was to write, and only the cache still shows it (Rebello et al. 2020). */
static inline int disk_sync(void *context, int handle)
{
    disk *d = context;
    disk_file *f = &d->files[handle];
    bool fails = disk_fails(d);
    d->syncs++;
    if (!fails)
        disk_make_safe(f);
    disk_forget_pending(f);
    disk_changed(d);
    return fails ? -d->error : 0;
}

static inline int disk_rename(void *context, const char *from, const char *to)
{
    disk *d = context;
    if (disk_fails(d))
        return -d->error;
    int at = disk_find(d->now, d->now_count, from);
    if (at < 0)
        return -ENOENT;
    disk_note_name(d, NAME_RENAMED, from, to, d->now[at].file);
    disk_changed(d);
    return 0;
}

static inline int disk_unlink(void *context, const char *name)
{
    disk *d = context;
    if (disk_fails(d))
        return -d->error;
    if (disk_find(d->now, d->now_count, name) < 0)
        return -ENOENT;
    disk_note_name(d, NAME_GONE, name, "", d->now[disk_find(d->now, d->now_count, name)].file);
    disk_changed(d);
    return 0;
}

static inline int disk_sync_folder(void *context)
{
    disk *d = context;
    if (disk_fails(d))
        return -d->error;
    memcpy(d->safe, d->now, sizeof d->safe);
    d->safe_count = d->now_count;
    d->event_count = 0;
    disk_changed(d);
    return 0;
}

static inline int disk_list(void *context, void (*each)(void *to, const char *name), void *to)
{
    disk *d = context;
    if (disk_fails(d))
        return -d->error;
    for (uint32_t i = 0; i < d->now_count; i++)
        each(to, d->now[i].name);
    return 0;
}

static inline uint64_t disk_identity(void *context, int handle)
{
    (void)context;
    return handle < 0 ? 0 : (uint64_t)handle + 1;
}

static inline uint64_t disk_inode(void *context, int handle)
{
    return disk_identity(context, handle);
}

static inline int disk_look(void *context, int handle, const skv_expected *expected)
{
    disk *d = context;
    int at = disk_find(d->now, d->now_count, expected->name);
    bool same = at >= 0 && d->now[at].file == handle && (!expected->inode || expected->inode == disk_inode(d, handle));
    return same && d->files[handle].now_size >= expected->size ? 0 : -ESTALE;
}

/* A moment has room for a few writes. */
static inline uint64_t disk_moment(void *context)
{
    return ++((disk *)context)->moments / 4 + 1;
}

static inline skv_files files_on(disk *d)
{
    return (skv_files){.context = d, .open = disk_open, .close = disk_close, .size = disk_size, .read = disk_read,
                       .write = disk_write, .truncate = disk_truncate, .sync = disk_sync, .rename = disk_rename,
                       .unlink = disk_unlink, .sync_folder = disk_sync_folder, .list = disk_list,
                       .identity = disk_identity, .inode = disk_inode, .look = disk_look, .moment = disk_moment};
}

/* ---- Cutting the power -------------------------------------------------------------------------------- */

static inline void disk_free(disk *d)
{
    for (uint32_t i = 0; i < d->file_count; i++) {
        disk_forget_pending(&d->files[i]);
        free(d->files[i].pending);
        free(d->files[i].now);
        free(d->files[i].safe);
    }
    free(d);
}

/* How likely a sector is there, of 16: all, none, or some; each of them is where other faults hide. */
static inline void disk_cut_file(const disk_file *from, disk_file *to, rng *r)
{
    static const uint32_t chances[] = {0, 1, 4, 8, 12, 15, 16};
    uint32_t chance = chances[below(r, COUNT(chances))], kept = below(r, 3) ? from->pending_count : below(r, from->pending_count + 1);
    *to = (disk_file){.pending = calloc(DISK_PENDING, sizeof(disk_change))};
    disk_apply(&to->now, &to->now_size, 0, from->safe, from->safe_size);
    for (uint32_t i = 0; i < kept; i++) {
        const disk_change *change = &from->pending[i];
        if (change->cuts) {
            if (below(r, 16) < chance && change->at < to->now_size)
                disk_resize(&to->now, &to->now_size, (size_t)change->at);
            continue;
        }
        for (uint64_t at = change->at, next; at < change->at + change->len; at = next) {
            next = (at / SECTOR + 1) * SECTOR;
            if (next > change->at + change->len)
                next = change->at + change->len;
            if (below(r, 16) < chance)
                disk_apply(&to->now, &to->now_size, at, change->bytes + (at - change->at), (size_t)(next - at));
        }
        if (below(r, 16) < chance && change->at + change->len > to->now_size)
            disk_resize(&to->now, &to->now_size, (size_t)(change->at + change->len));       /* the size without the data */
    }
    disk_apply(&to->safe, &to->safe_size, 0, to->now, to->now_size);
}

static inline bool disk_hangs_on(const name_event *event, const name_event *earlier)
{
    const char *const names[] = {event->name, event->to};
    bool hangs = event->file == earlier->file;
    for (size_t i = 0; i < COUNT(names) && !hangs; i++)
        hangs = names[i][0] && (strcmp(names[i], earlier->name) == 0 || strcmp(names[i], earlier->to) == 0);
    return hangs;
}

/* A change that is lost takes with it what hangs on it. */
static inline void disk_lose_some_names(const disk *d, disk *left, rng *r)
{
    bool *lost = calloc(d->event_count + 1, sizeof *lost);
    REQUIRE(lost, "no memory");
    for (uint32_t i = 0; i < d->event_count; i++) {
        lost[i] = below(r, 3) == 0;
        for (uint32_t earlier = 0; earlier < i && !lost[i]; earlier++)
            lost[i] = lost[earlier] && disk_hangs_on(&d->events[i], &d->events[earlier]);
        if (!lost[i])
            disk_apply_name(&d->events[i], left->now, &left->now_count);
    }
    free(lost);
}

static inline void disk_lose_last_names(const disk *d, disk *left, rng *r)
{
    uint32_t kept = below(r, d->event_count + 1);
    for (uint32_t i = 0; i < kept; i++)
        disk_apply_name(&d->events[i], left->now, &left->now_count);
}

static inline disk *disk_cut(const disk *d, rng *r)
{
    disk *left = calloc(1, sizeof *left);
    REQUIRE(left, "no memory");
    left->file_count = d->file_count;
    for (uint32_t i = 0; i < d->file_count; i++)
        disk_cut_file(&d->files[i], &left->files[i], r);
    memcpy(left->now, d->safe, sizeof left->now);
    left->now_count = d->safe_count;
    (below(r, 2) ? disk_lose_some_names : disk_lose_last_names)(d, left, r);
    memcpy(left->safe, left->now, sizeof left->safe);
    left->safe_count = left->now_count;
    return left;
}

static inline disk *disk_new(void)
{
    disk *d = calloc(1, sizeof *d);
    REQUIRE(d, "no memory");
    return d;
}

#endif
