/* fuzz_log.c: recovery (recover.c, segment.c, frame.c, restore.c) of files that were changed in any way, driven by libFuzzer.
 *
 * What: files of a log and its snapshot are changed by an input and recovered into a store.  Whatever comes of it, no
 *       byte beyond a file or a frame is looked at, nothing is allocated out of proportion, and it ends soon; where no
 *       damage is told, the store is without a flaw.
 * How:  an input begins with a byte that says which files there are, and whether checksums are made to fit again, so
 *       that what is behind them is reached; then come edits of five bytes: file and kind, place, value.  Each file lies
 *       in memory of exactly its length.
 *
 * Concurrency: one thread.
 */
#include "fuzz_box.h"

#include <errno.h>

#include "little.h"
#include "restore.h"
#include "segment.h"

#define STORE_SIZE (1 * MIB)
#define FILES      4u
#define MOST_BYTES 6000u
#define LIMIT_S    1.0

typedef struct file {
    char     name[SKV_NAME_ROOM];
    uint8_t *bytes;
    size_t   size;
    bool     there;
} file;

static box store_box;
static file original[FILES], files[FILES];

/* ---- A folder in memory ------------------------------------------------------------------------ */

static int file_open(void *context, const char *name, enum skv_open how)
{
    (void)context;
    INSIST_ON(how == SKV_OPEN_READ, "recovery writes");
    for (uint32_t i = 0; i < FILES; i++)
        if (files[i].there && strcmp(files[i].name, name) == 0)
            return (int)i;
    return -ENOENT;
}

static void file_close(void *context, int handle) { (void)context, (void)handle; }

static int64_t file_size(void *context, int handle)
{
    (void)context;
    return (int64_t)files[handle].size;
}

static int64_t file_read(void *context, int handle, void *to, size_t len, uint64_t at)
{
    (void)context;
    const file *f = &files[handle];
    if (at >= f->size)
        return 0;
    size_t n = len < f->size - at ? len : f->size - (size_t)at;
    memcpy(to, f->bytes + at, n);
    return (int64_t)n;
}

/* Nobody closes it but the engine. */
static uint64_t file_identity(void *context, int handle)
{
    (void)context;
    return (uint64_t)handle + 1;
}

static int file_list(void *context, void (*each)(void *to, const char *name), void *to)
{
    (void)context;
    for (uint32_t i = 0; i < FILES; i++)
        if (files[i].there)
            each(to, files[i].name);
    return 0;
}

/* ---- The log that is changed ------------------------------------------------------------------- */

static void add_op(skv_frame *frame, enum skv_op_kind kind, uint32_t number, uint64_t expires_ms)
{
    char key[16], value[80];
    int key_len = snprintf(key, sizeof key, "key%u", number % 23);
    memset(value, (int)number, sizeof value);
    skv_op op = {.kind = kind, .type = SKV_T_BYTES, .key = (const uint8_t *)key, .key_len = (uint32_t)key_len,
                 .value = (const uint8_t *)value, .value_len = kind == SKV_OP_PUT ? number % sizeof value : 0, .expires_ms = expires_ms};
    if (kind == SKV_OP_CLEAR || kind == SKV_OP_COUNT)
        op.key_len = 0;
    INSIST_ON(skv_frame_add(frame, &op), "no memory");
}

static void append(file *f, const void *bytes, size_t size)
{
    f->bytes = realloc(f->bytes, f->size + size);
    INSIST_ON(f->bytes, "no memory");
    memcpy(f->bytes + f->size, bytes, size);
    f->size += size;
}

static void make_file(file *f, skv_segment segment, uint32_t frames)
{
    uint8_t head[SKV_SEGMENT_HEAD];
    skv_frame frame = {0};
    uint64_t salt = skv_segment_salt(&segment), sequence = segment.sequence;
    const bool is_log = segment.kind == SKV_SEGMENT_LOG;
    skv_segment_name(segment.kind, segment.number, f->name);
    skv_segment_encode(&segment, head);
    append(f, head, sizeof head);
    for (uint32_t i = 0; i < frames; i++) {
        const bool last = !is_log && i + 1 == frames;
        INSIST_ON(skv_frame_begin(&frame, is_log ? SKV_FRAME_CHANGE : last ? SKV_FRAME_END : SKV_FRAME_PART), "no memory");
        for (uint32_t n = 0; n < i % 3 + 1 && !last; n++)
            add_op(&frame, !is_log || i % 4 ? SKV_OP_PUT : SKV_OP_DELETE, i * 5 + n, i % 5 ? 0 : UINT64_C(2000000000000));
        if (last)
            add_op(&frame, SKV_OP_COUNT, 0, 5);
        if (is_log && i == 5)
            add_op(&frame, SKV_OP_CLEAR, 0, 0);
        skv_frame_seal(&frame, ++sequence, i > 3 ? 200 : 0, salt);
        append(f, frame.bytes, frame.size);
    }
    skv_frame_free(&frame);
}

static void make_log(void)
{
    skv_segment segment = {.kind = SKV_SEGMENT_LOG, .number = 1};
    make_file(&original[0], segment, 8);
    segment = (skv_segment){.kind = SKV_SEGMENT_LOG, .number = 2, .base = original[0].size - SKV_SEGMENT_HEAD, .sequence = 8};
    make_file(&original[1], segment, 9);
    segment.kind = SKV_SEGMENT_SNAPSHOT;
    make_file(&original[2], segment, 4);
    segment = (skv_segment){.kind = SKV_SEGMENT_LOG, .number = 3, .base = segment.base + original[1].size - SKV_SEGMENT_HEAD, .sequence = 17};
    make_file(&original[3], segment, 3);
}

/* ---- Changing it ---------------------------------------------------------------------------------- */

static void resize(file *f, size_t size)
{
    uint8_t *bytes = calloc(size ? size : 1, 1);
    INSIST_ON(bytes, "no memory");
    memcpy(bytes, f->bytes, size < f->size ? size : f->size);
    free(f->bytes);
    f->bytes = realloc(bytes, size ? size : 1);
    f->size = size;
}

static void edit(const uint8_t *how)
{
    static const uint64_t words[] = {0, 1, 40, 64, 0xffff, UINT32_MAX, UINT64_C(1) << 40, UINT64_MAX - 64};
    file *f = &files[how[0] % FILES];
    size_t at = f->size ? (how[1] | (size_t)how[2] << 8) % f->size : 0, left = f->size - at;
    switch (how[0] / FILES % 8) {
    case 0: case 1:
        if (left)
            f->bytes[at] = how[3];
        break;
    case 2:
        if (left)
            f->bytes[at] ^= (uint8_t)(1u << how[3] % 8);
        break;
    case 3:
        at = at / 8 * 8;
        if (f->size - at >= 8)
            skv_put_little(f->bytes + at, words[how[3] % 8] + how[4], 8);
        break;
    case 4:
        resize(f, at);
        break;
    case 5:
        resize(f, f->size + how[3] * 8u < MOST_BYTES ? f->size + how[3] * 8u : f->size);
        break;
    case 6: {                   /* a piece of another place                                   */
        size_t from = f->size ? (how[3] * 24u) % f->size : 0, n = how[4];
        n = n < left ? n : left;
        n = n < f->size - from ? n : f->size - from;
        if (n)
            memmove(f->bytes + at, f->bytes + from, n);
        break;
    }
    default:
        skv_segment_name(how[3] & 1 ? SKV_SEGMENT_LOG : SKV_SEGMENT_SNAPSHOT, how[4] % 5, f->name);
    }
}

/* Checksums fit what they cover, as far as the lengths lead. */
static void seal_again(file *f)
{
    skv_segment segment;
    if (f->size < SKV_SEGMENT_HEAD)
        return;
    skv_put_little(f->bytes + 56, skv_xxh3_64(f->bytes, 56, 0), 8);
    if (skv_segment_decode(f->bytes, SKV_SEGMENT_HEAD, &segment) != SKV_SEGMENT_OK)
        return;
    uint64_t salt = skv_segment_salt(&segment);
    for (size_t at = SKV_SEGMENT_HEAD; f->size - at >= SKV_FRAME_HEAD;) {
        uint64_t length = skv_get_little(f->bytes + at + 8, 8);
        if (length > f->size - at - SKV_FRAME_HEAD)
            return;
        uint64_t size = (SKV_FRAME_HEAD + length + 7) & ~UINT64_C(7);
        skv_put_little(f->bytes + at + 32, skv_xxh3_64(f->bytes + at + SKV_FRAME_HEAD, length, skv_xxh3_64(f->bytes + at, 32, salt)), 8);
        if (size > f->size - at)
            return;
        at += size;
    }
}

/* ---- One execution ---------------------------------------------------------------------------------- */

static double longest_s;
static uint64_t executions, recovered;

static void report(void)
{
    fprintf(stderr, "fuzz: executions=%llu opened=%llu longest_ms=%.1f\n", (unsigned long long)executions,
            (unsigned long long)recovered, longest_s * 1e3);
}

static void print_flaw(void *context, const char *invariant, const char *sentence)
{
    (void)context;
    fprintf(stderr, "%s: %s\n", invariant, sentence);
}

static void recover(void)
{
    static _Atomic uint64_t bytes;
    const skv_files folder = {.open = file_open, .close = file_close, .size = file_size, .read = file_read, .list = file_list,
                              .identity = file_identity};
    skv_restored out = {.bytes = &bytes};
    skv_wait wait = {.block = true, .shared = true};
    int status = skv_restore(store_box.store, folder, &out);
    INSIST_ON(status <= 0 || (status == 1 && out.status), "status %d", status);
    INSIST_ON(memchr(out.found.name, 0, sizeof out.found.name), "the name of a damaged file has no end");
    if (status == 0 && !out.found.damage) {
        skv_check_result result;
        INSIST_ON(skv_check(store_box.store, print_flaw, NULL, &result) == 0, "the store has flaws");
        recovered++;
    }
    INSIST_ON(skv_clear(store_box.store, &wait) == SKV_OK, "the store cannot be cleared");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    double start = cpu_seconds();
    for (uint32_t i = 0; i < FILES; i++) {
        files[i] = (file){.there = !(data[0] >> i & 1)};
        memcpy(files[i].name, original[i].name, sizeof files[i].name);
        append(&files[i], original[i].bytes, original[i].size);
    }
    for (size_t at = 1; size - at >= 5; at += 5)
        edit(data + at);
    for (uint32_t i = 0; i < FILES && data[0] >> 4 & 1; i++)
        seal_again(&files[i]);
    recover();
    for (uint32_t i = 0; i < FILES; i++)
        free(files[i].bytes);
    double took = cpu_seconds() - start;
    executions++;
    longest_s = took > longest_s ? took : longest_s;
    INSIST_ON(took < LIMIT_S, "an execution took %.2f s", took);
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    box_map(&store_box, STORE_SIZE, MAP_PRIVATE, -1);
    box_format(&store_box, 0);
    skv_set_wall_clock(store_box.store, UINT64_C(1800000000000));
    make_log();
    atexit(report);
    return 0;
}
