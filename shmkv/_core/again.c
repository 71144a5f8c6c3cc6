/* again.c: see again.h. */
#include "again.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AT_ONCE (256u << 10)    /* bytes: small frames are written many at a time             */

typedef struct rewriting {
    skv_files files;
    int handle;
    uint64_t identity;          /* of its file: user code may close the handle                */
    uint8_t *bytes;             /* of frames that follow each other                           */
    size_t filled;
    uint64_t at;                /* their place in the file                                    */
} rewriting;

static bool is_own(const rewriting *w)
{
    return skv_files_own(&w->files, w->handle, w->identity);
}

/* What was read and checked since the last write took its time, so the question comes before it as well. */
static int write_on(rewriting *w, const uint8_t *bytes, size_t size)
{
    int status = is_own(w) ? w->files.write(w->files.context, w->handle, bytes, size, w->at) : -EBADF;
    w->at += size;
    return status;
}

static int flush(rewriting *w)
{
    int status = w->filled ? write_on(w, w->bytes, w->filled) : 0;
    w->filled = 0;
    return status;
}

static int add(rewriting *w, const uint8_t *frame, uint64_t size)
{
    int status = w->filled + size > AT_ONCE ? flush(w) : 0;
    if (status == 0 && size > AT_ONCE) {
        status = write_on(w, frame, size);
    } else if (status == 0) {
        memcpy(w->bytes + w->filled, frame, size);
        w->filled += size;
    }
    return status;
}

static int write_frames(rewriting *w, skv_reader *reader, uint64_t end)
{
    skv_frame_view view;
    int status = 0;
    while (status == 0 && skv_reader_position(reader) < end) {
        enum skv_read_result got = skv_reader_next(reader, &view);
        if (got == SKV_READ_FRAME)
            status = add(w, view.ops - SKV_FRAME_HEAD, view.size);
        else
            status = got == SKV_READ_ERROR ? reader->error : got == SKV_READ_NO_MEMORY ? -ENOMEM : -EIO;
    }
    return status ? status : flush(w);
}

/* Whatever was written, or refused, may have been another file's where the handle is not ours at the end. */
static int write_to_own(rewriting *w, skv_reader *reader, uint64_t end)
{
    w->identity = w->files.identity(w->files.context, w->handle);
    int status = write_frames(w, reader, end);
    if (!is_own(w))
        return -EBADF;
    w->files.close(w->files.context, w->handle);
    return status;
}

static int rewrite(rewriting *w, skv_reader *reader, uint64_t number, uint64_t from, uint64_t end)
{
    char name[SKV_NAME_ROOM];
    if (from < reader->segment.base)
        from = reader->segment.base;
    if (from >= end)
        return 0;
    skv_reader_go_to(reader, from);
    skv_segment_name(SKV_SEGMENT_LOG, number, name);
    w->at = reader->at;
    w->bytes = malloc(AT_ONCE);
    w->handle = w->bytes ? w->files.open(w->files.context, name, SKV_OPEN_WRITE) : -ENOMEM;
    int status = w->handle < 0 ? w->handle : write_to_own(w, reader, end);
    free(w->bytes);
    return status;
}

int skv_write_again(skv_files files, uint64_t number, uint64_t from, uint64_t end)
{
    char name[SKV_NAME_ROOM];
    skv_reader reader;
    enum skv_segment_fault fault;
    rewriting w = {.files = files};
    skv_segment_name(SKV_SEGMENT_LOG, number, name);
    int status = skv_reader_open(&reader, files, name, &fault);
    if (status == 0)
        status = fault == SKV_SEGMENT_OK ? rewrite(&w, &reader, number, from, end) : -EIO;
    skv_reader_close(&reader);
    return status;
}
