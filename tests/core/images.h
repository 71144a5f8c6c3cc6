/* images.h: a copy of a region as a death leaves it, whether the region has changed since, and a number for its state.
 *
 * Concurrency: the region stands still while it is looked at: its only writer is stopped or dead.
 */
#ifndef SKV_TEST_IMAGES_H
#define SKV_TEST_IMAGES_H

#include <sys/stat.h>

#include "every_instruction.h"

static uint64_t committed_in(const uint8_t *region)
{
    uint64_t pages = skv_load(&((const skv_header *)(const void *)region)->committed_pages);
    return pages < sh->fixed.pages ? pages : sh->fixed.pages;
}

static extent measure(int fd, const uint8_t *region)
{
    struct stat st;
    REQUIRE(fstat(fd, &st) == 0, "fstat: %s", strerror(errno));
    extent is = {.object_size = (uint64_t)st.st_size};
    if (is.object_size < sh->fixed.size)
        return is;              /* nothing can be read yet                                    */
    is.head_len = sh->fixed.descriptors_offset + committed_in(region) * sizeof(skv_page);
    is.pages_len = committed_in(region) << SKV_PAGE_SHIFT;
    REQUIRE(is.head_len + is.pages_len <= IMAGE_ROOM, "a region of this size does not fit");
    return is;
}

static void take_image(int fd, const uint8_t *region, image *out)
{
    out->extent = measure(fd, region);
    memcpy(out->bytes, region, out->extent.head_len);
    memcpy(out->bytes + out->extent.head_len, region + sh->fixed.pages_offset, out->extent.pages_len);
}

/* Where the chunk of the region at `offset` lies in an image; NULL = beyond what is committed. */
static const uint8_t *in_image(const image *from, uint64_t offset)
{
    const extent *e = &from->extent;
    if (offset + CHUNK <= e->head_len)
        return from->bytes + offset;
    if (offset < sh->fixed.pages_offset || offset + CHUNK > sh->fixed.pages_offset + e->pages_len)
        return NULL;
    return from->bytes + e->head_len + (offset - sh->fixed.pages_offset);
}

/* Of the last part of the head only a part may be committed. */
static bool tail_differs(const uint8_t *region, const image *from)
{
    uint64_t at = from->extent.head_len / CHUNK * CHUNK;
    return memcmp(from->bytes + at, region + at, from->extent.head_len - at) != 0;
}

static bool differs(int fd, const uint8_t *region, const image *from)
{
    extent is = measure(fd, region);
    if (memcmp(&is, &from->extent, sizeof is) != 0 || tail_differs(region, from))
        return true;
    for (uint32_t i = 0; i < sh->hot_count; i++) {
        uint64_t offset = (uint64_t)sh->hot[i] * CHUNK;
        const uint8_t *was = in_image(from, offset);
        if (was && memcmp(was, region + offset, CHUNK) != 0)
            return true;
    }
    return false;
}

/* Header, rows in use, buckets, kinds, descriptors: always.  Data: what is not as it was before the operation. */
static bool is_hot(const uint8_t *region, const image *before, uint64_t offset)
{
    if (offset < sh->fixed.pages_offset)
        return offset < sh->fixed.procs_offset + CHUNK || offset >= sh->fixed.buckets_offset;
    const uint8_t *was = in_image(before, offset);
    return !was || memcmp(was, region + offset, CHUNK) != 0;
}

static void note_hot(const uint8_t *region, const image *before)
{
    uint64_t end = sh->fixed.pages_offset + (committed_in(region) << SKV_PAGE_SHIFT);
    for (uint64_t offset = 0; offset < end; offset += CHUNK) {
        if (!is_hot(region, before, offset))
            continue;
        REQUIRE(sh->hot_count < CHUNKS, "more than %u chunks", CHUNKS);
        sh->hot[sh->hot_count++] = (uint32_t)(offset / CHUNK);
    }
}

static bool is_zero(const uint8_t *bytes, uint64_t len)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

static void write_part(int fd, const uint8_t *bytes, uint64_t len, uint64_t offset)
{
    REQUIRE(pwrite(fd, bytes, len, (off_t)offset) == (ssize_t)len, "pwrite: %s", strerror(errno));
}

/* An object without a name: nothing is left of it, whatever dies. */
static int new_object(void)
{
    int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0, "/dev/shm: %s", strerror(errno));
    return fd;
}

/* What is committed is memory, everything else is a hole. */
static int object_from(const image *from)
{
    int fd = new_object();
    REQUIRE(ftruncate(fd, (off_t)from->extent.object_size) == 0, "ftruncate: %s", strerror(errno));
    write_part(fd, from->bytes, from->extent.head_len, 0);
    write_part(fd, from->bytes + from->extent.head_len, from->extent.pages_len, sh->fixed.pages_offset);
    return fd;
}

/* To look at, without being attached.  Beyond the object's size it must not be touched. */
static const uint8_t *look_into(int fd)
{
    void *region = mmap(NULL, sh->fixed.size, PROT_READ, MAP_SHARED, fd, 0);
    REQUIRE(region != MAP_FAILED, "mmap: %s", strerror(errno));
    return region;
}

static void forget_thread(_Atomic uint32_t *lock)
{
    skv_store(lock, skv_load(lock) & ~(SKV_LOCK_TAG_MASK << SKV_LOCK_TAG_SHIFT));
}

/* Takes out what is not the same for two processes that die at the same instruction. */
static void forget_process(uint8_t *chunk, uint64_t offset)
{
    if (offset == 0) {
        skv_header *header = (skv_header *)(void *)chunk;
        forget_thread(&header->pages_lock);
        forget_thread(&header->grow_lock);
        forget_thread(&header->compact_lock);
    } else if (offset == sh->fixed.procs_offset) {
        for (skv_proc *proc = (skv_proc *)(void *)chunk; proc < (skv_proc *)(void *)chunk + ROWS; proc++) {
            skv_store(&proc->pid, 0);
            skv_store(&proc->start_time, 0);
        }
    } else if (offset >= sh->fixed.buckets_offset && offset < sh->fixed.kinds_offset) {
        skv_bucket *bucket = (skv_bucket *)(void *)chunk;
        for (uint64_t i = 0; i < CHUNK / sizeof *bucket && offset + i * sizeof *bucket < sh->fixed.kinds_offset; i++)
            forget_thread(&bucket[i].lock);
    }
}

static uint64_t state_of_part(const uint8_t *region, uint64_t offset, uint64_t len)
{
    _Alignas(64) uint8_t chunk[CHUNK];
    uint64_t sum = 0;
    for (uint64_t at = offset, n; at < offset + len; at += n) {
        n = offset + len - at < CHUNK ? offset + len - at : CHUNK;
        if (is_zero(region + at, n))
            continue;
        memcpy(chunk, region + at, n);
        forget_process(chunk, at);
        sum += skv_xxh3_64(chunk, n, at);
    }
    return sum;
}

/* A number for the state of the region, the same for all processes that die there. */
static uint64_t state_of(int fd, const uint8_t *region)
{
    extent is = measure(fd, region);
    return mix64(is.object_size) + mix64(is.head_len + 1) + state_of_part(region, 0, is.head_len)
           + state_of_part(region, sh->fixed.pages_offset, is.pages_len);
}

#endif
