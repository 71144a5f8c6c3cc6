/* segment.c: see segment.h.
 *
 * Where a frame is not whole, what comes behind it decides.  A power cut loses what was not synced, in any order of
 * 512-byte sectors: then a later frame may be whole, but none says that the place was synced before it was made.
 * One that says so convicts the disk: what was acknowledged is gone.  The very last frames of a log have no
 * witness: damage there looks like a cut, and is treated as one.
 */
#include "segment.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "little.h"

#define MAGIC        UINT64_C(0x0a676f6c6d68730d)       /* "\rshmlog\n" read little-endian       */
#define AT_CHECKSUM  56
#define SALT_SEED    1u
#define CHUNK        (256u * 1024)
#define STEP         8u         /* frames begin at multiples of it                            */

/* ---- Head and name ------------------------------------------------------------------------- */

static const char *ending(enum skv_segment_kind kind)
{
    return kind == SKV_SEGMENT_LOG ? "log" : "snapshot";
}

void skv_segment_name(enum skv_segment_kind kind, uint64_t number, char name[SKV_NAME_ROOM])
{
    snprintf(name, SKV_NAME_ROOM, "%020" PRIu64 ".%s", number, ending(kind));
}

bool skv_segment_named(const char *name, enum skv_segment_kind *kind, uint64_t *number)
{
    char again[SKV_NAME_ROOM];
    if (strspn(name, "0123456789") != 20)
        return false;
    *number = strtoull(name, NULL, 10);
    for (uint32_t k = SKV_SEGMENT_LOG; k <= SKV_SEGMENT_SNAPSHOT; k++) {
        *kind = (enum skv_segment_kind)k;
        skv_segment_name(*kind, *number, again);
        if (strcmp(name, again) == 0)
            return true;
    }
    return false;
}

void skv_segment_encode(const skv_segment *segment, uint8_t head[SKV_SEGMENT_HEAD])
{
    skv_put_little(head, MAGIC, 8);
    skv_put_little(head + 8, SKV_SEGMENT_VERSION, 4);
    skv_put_little(head + 12, segment->kind, 4);
    memcpy(head + 16, segment->uuid, sizeof segment->uuid);
    skv_put_little(head + 32, segment->number, 8);
    skv_put_little(head + 40, segment->base, 8);
    skv_put_little(head + 48, segment->sequence, 8);
    skv_put_little(head + AT_CHECKSUM, skv_xxh3_64(head, AT_CHECKSUM, 0), 8);
}

uint64_t skv_segment_salt(const skv_segment *segment)
{
    uint8_t head[SKV_SEGMENT_HEAD];
    skv_segment_encode(segment, head);
    return skv_xxh3_64(head, AT_CHECKSUM, SALT_SEED);
}

/* A head is on stable storage before the first frame follows: one that is not whole belongs to a file without any. */
enum skv_segment_fault skv_segment_decode(const uint8_t *head, size_t len, skv_segment *segment)
{
    if (len < SKV_SEGMENT_HEAD)
        return SKV_SEGMENT_SHORT;
    if (skv_get_little(head + AT_CHECKSUM, 8) != skv_xxh3_64(head, AT_CHECKSUM, 0) || skv_get_little(head, 8) != MAGIC)
        return SKV_SEGMENT_DAMAGED;
    if (skv_get_little(head + 8, 4) != SKV_SEGMENT_VERSION)
        return SKV_SEGMENT_FOREIGN;
    *segment = (skv_segment){.kind = (enum skv_segment_kind)skv_get_little(head + 12, 4), .number = skv_get_little(head + 32, 8),
                             .base = skv_get_little(head + 40, 8), .sequence = skv_get_little(head + 48, 8)};
    memcpy(segment->uuid, head + 16, sizeof segment->uuid);
    return segment->kind == SKV_SEGMENT_LOG || segment->kind == SKV_SEGMENT_SNAPSHOT ? SKV_SEGMENT_OK : SKV_SEGMENT_DAMAGED;
}

/* ---- Reading --------------------------------------------------------------------------------- */

static bool is_own(const skv_reader *reader)
{
    return skv_files_own(&reader->files, reader->handle, reader->identity);
}

/* What was read of another file must not count as the end, or the damage, of this one. */
static int64_t read_own(const skv_reader *reader, void *to, size_t len, uint64_t at)
{
    int64_t got = reader->files.read(reader->files.context, reader->handle, to, len, at);
    return is_own(reader) ? got : -EBADF;
}

int skv_reader_open(skv_reader *reader, skv_files files, const char *name, enum skv_segment_fault *fault)
{
    uint8_t head[SKV_SEGMENT_HEAD];
    *reader = (skv_reader){.files = files, .handle = files.open(files.context, name, SKV_OPEN_READ)};
    if (reader->handle < 0)
        return reader->handle;
    reader->identity = files.identity(files.context, reader->handle);
    int64_t size = files.size(files.context, reader->handle);
    int64_t got = size < 0 ? size : read_own(reader, head, sizeof head, 0);
    if (got < 0)
        return (int)got;
    *fault = skv_segment_decode(head, (size_t)got, &reader->segment);
    reader->file_size = (uint64_t)size;
    reader->at = reader->bytes_at = SKV_SEGMENT_HEAD;
    reader->sequence = reader->segment.sequence;
    if (*fault == SKV_SEGMENT_OK)
        reader->salt = skv_segment_salt(&reader->segment);
    return 0;
}

uint64_t skv_reader_position(const skv_reader *reader)
{
    return reader->segment.base + reader->at - SKV_SEGMENT_HEAD;
}

void skv_reader_close(skv_reader *reader)
{
    if (is_own(reader))
        reader->files.close(reader->files.context, reader->handle);
    free(reader->bytes);
    reader->bytes = NULL;
    reader->handle = -1;
}

/* Bytes of the file from `at` on that are in memory. */
static uint64_t available(const skv_reader *reader, uint64_t at)
{
    const uint64_t end = reader->bytes_at + reader->filled;
    return at < end ? end - at : 0;
}

static bool at_end_of_file(const skv_reader *reader)
{
    return reader->bytes_at + reader->filled >= reader->file_size;
}

/* Reads on behind what is in memory, of which everything before `from` may go.  FRAME: there is more now. */
static enum skv_read_result read_more(skv_reader *reader, uint64_t from)
{
    size_t kept = (size_t)available(reader, from);
    size_t more = kept > CHUNK ? kept : CHUNK;
    uint64_t left = reader->file_size - from - kept;
    if (more > left)
        more = (size_t)left;
    if (reader->room < kept + more) {
        uint8_t *bytes = malloc(kept + more);
        if (!bytes)
            return SKV_READ_NO_MEMORY;
        if (kept)
            memcpy(bytes, reader->bytes + (from - reader->bytes_at), kept);
        free(reader->bytes);
        reader->bytes = bytes;
        reader->room = kept + more;
    } else if (kept) {
        memmove(reader->bytes, reader->bytes + (from - reader->bytes_at), kept);
    }
    reader->bytes_at = from;
    reader->filled = kept;
    int64_t got = read_own(reader, reader->bytes + kept, more, from + kept);
    if (got < 0) {
        reader->error = (int)got;
        return SKV_READ_ERROR;
    }
    reader->filled += (size_t)got;
    if ((size_t)got < more)
        reader->file_size = reader->bytes_at + reader->filled;      /* it has become shorter      */
    return SKV_READ_FRAME;
}

/* The frame at `at`, as much of the file as it takes. */
static enum skv_read_result frame_at(skv_reader *reader, uint64_t at, skv_frame_view *view, enum skv_frame_fault *fault)
{
    for (;;) {
        const uint8_t *bytes = reader->filled ? reader->bytes + (at - reader->bytes_at) : NULL;     /* nothing was read yet */
        *fault = skv_frame_read(bytes, available(reader, at), reader->salt, view);
        const bool wants_more = *fault == SKV_FRAME_SHORT || (*fault == SKV_FRAME_NOTHING && available(reader, at) < SKV_FRAME_HEAD);
        if (!wants_more || at_end_of_file(reader))
            return SKV_READ_FRAME;
        enum skv_read_result more = read_more(reader, at);
        if (more != SKV_READ_FRAME)
            return more;
    }
}

/* Is there a frame behind the damaged place that was made when the place was on stable storage already? */
static enum skv_read_result judge_damage(skv_reader *reader)
{
    const uint64_t position = skv_reader_position(reader);
    if (reader->synced > position)
        return SKV_READ_ROTTEN;
    for (uint64_t at = reader->at + STEP; at + SKV_FRAME_HEAD <= reader->file_size; at += STEP) {
        skv_frame_view view;
        enum skv_frame_fault fault;
        enum skv_read_result result = SKV_READ_FRAME;
        if (available(reader, at) < SKV_FRAME_HEAD)
            result = read_more(reader, at);
        if (result == SKV_READ_FRAME && available(reader, at) < SKV_FRAME_HEAD)
            break;
        /* Most places are none: the first byte tells. */
        if (result == SKV_READ_FRAME && reader->bytes[at - reader->bytes_at] != SKV_FRAME_FIRST)
            continue;
        if (result == SKV_READ_FRAME)
            result = frame_at(reader, at, &view, &fault);
        if (result != SKV_READ_FRAME)
            return result;
        if (fault == SKV_FRAME_OK && view.sequence > reader->sequence && view.synced > position)
            return SKV_READ_ROTTEN;
    }
    return SKV_READ_TORN;
}

static enum skv_read_result read_next(skv_reader *reader, skv_frame_view *view)
{
    enum skv_frame_fault fault;
    enum skv_read_result result = frame_at(reader, reader->at, view, &fault);
    if (result != SKV_READ_FRAME)
        return result;
    if (fault == SKV_FRAME_FOREIGN)
        return SKV_READ_FOREIGN;
    if (fault == SKV_FRAME_OK && view->sequence == reader->sequence + 1) {
        reader->at += view->size;
        reader->sequence = view->sequence;
        if (view->synced > reader->synced)
            reader->synced = view->synced;
        return SKV_READ_FRAME;
    }
    if (fault == SKV_FRAME_NOTHING && available(reader, reader->at) == 0)
        return reader->synced > skv_reader_position(reader) ? SKV_READ_ROTTEN : SKV_READ_END;
    return judge_damage(reader);
}

enum skv_read_result skv_reader_next(skv_reader *reader, skv_frame_view *view)
{
    if (reader->ended == SKV_READ_FRAME)
        reader->ended = read_next(reader, view);
    return reader->ended;
}

/* What is no frame there is seen when it is read. */
void skv_reader_go_to(skv_reader *reader, uint64_t position)
{
    skv_frame_view view;
    enum skv_frame_fault fault;
    reader->at = reader->bytes_at = SKV_SEGMENT_HEAD + position - reader->segment.base;
    reader->filled = 0;
    if (reader->at < reader->file_size && frame_at(reader, reader->at, &view, &fault) == SKV_READ_FRAME && fault == SKV_FRAME_OK)
        reader->sequence = view.sequence - 1;
}
