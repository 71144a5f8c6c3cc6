/* frame.c: see frame.h. */
#include "frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "little.h"

#define MAGIC          0x46766b73u      /* "skvF"                                              */
static_assert((MAGIC & 0xff) == SKV_FRAME_FIRST, "little-endian");
#define AT_VERSION     4
#define AT_KIND        5
#define AT_LENGTH      8
#define AT_SEQUENCE    16
#define AT_SYNCED      24
#define AT_CHECKSUM    32
#define LEAST_ROOM     4096u
#define ALIGNMENT      8u

/* The head without the checksum gives the seed for the rest: one pass over each, and no copy. */
static uint64_t checksum(const uint8_t *frame, uint64_t length, uint64_t salt)
{
    return skv_xxh3_64(frame + SKV_FRAME_HEAD, length, skv_xxh3_64(frame, AT_CHECKSUM, salt));
}

static uint64_t padded(uint64_t length)
{
    return (SKV_FRAME_HEAD + length + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
}

/* ---- Making ------------------------------------------------------------------------------------ */

static bool make_room(skv_frame *frame, uint64_t more)
{
    if (more <= frame->room - frame->size)
        return true;
    uint64_t room = frame->room < LEAST_ROOM ? LEAST_ROOM : frame->room;
    while (room - frame->size < more) {
        if (room > SIZE_MAX / 2)
            return false;
        room *= 2;
    }
    uint8_t *bytes = realloc(frame->bytes, room);
    if (!bytes)
        return false;
    frame->bytes = bytes;
    frame->room = room;
    return true;
}

size_t skv_frame_room(uint64_t bytes)
{
    return SKV_FRAME_HEAD + bytes + ALIGNMENT;
}

bool skv_frame_reserve(skv_frame *frame, uint64_t bytes)
{
    return bytes <= SIZE_MAX / 4 && make_room(frame, SKV_FRAME_HEAD + SKV_OP_HEAD + bytes + ALIGNMENT);
}

bool skv_frame_begin(skv_frame *frame, enum skv_frame_kind kind)
{
    frame->size = 0;
    if (!make_room(frame, SKV_FRAME_HEAD))
        return false;
    memset(frame->bytes, 0, SKV_FRAME_HEAD);
    skv_put_little(frame->bytes, MAGIC, 4);
    frame->bytes[AT_VERSION] = SKV_FRAME_VERSION;
    frame->bytes[AT_KIND] = (uint8_t)kind;
    frame->size = SKV_FRAME_HEAD;
    return true;
}

bool skv_frame_add(skv_frame *frame, const skv_op *op)
{
    /* With room for the padding, so that sealing cannot fail. */
    if (op->value_len > SIZE_MAX / 4 || !make_room(frame, SKV_OP_HEAD + op->key_len + op->value_len + ALIGNMENT))
        return false;
    uint8_t *at = frame->bytes + frame->size;
    at[0] = (uint8_t)op->kind;
    at[1] = op->type;
    at[2] = op->bytes_key ? SKV_OP_BYTES_KEY : 0;
    at[3] = 0;
    skv_put_little(at + 4, op->key_len, 4);
    skv_put_little(at + 8, op->value_len, 8);
    skv_put_little(at + 16, op->expires_ms, 8);
    at += SKV_OP_HEAD;
    if (op->key_len)
        memcpy(at, op->key, op->key_len);
    if (op->value_len)
        memcpy(at + op->key_len, op->value, op->value_len);
    frame->size += SKV_OP_HEAD + op->key_len + op->value_len;
    skv_put_little(frame->bytes + AT_LENGTH, frame->size - SKV_FRAME_HEAD, 8);
    return true;
}

void skv_frame_seal(skv_frame *frame, uint64_t sequence, uint64_t synced, uint64_t salt)
{
    uint64_t length = skv_get_little(frame->bytes + AT_LENGTH, 8), size = padded(length);
    memset(frame->bytes + SKV_FRAME_HEAD + length, 0, size - SKV_FRAME_HEAD - length);
    frame->size = size;
    skv_put_little(frame->bytes + AT_SEQUENCE, sequence, 8);
    skv_put_little(frame->bytes + AT_SYNCED, synced, 8);
    skv_put_little(frame->bytes + AT_CHECKSUM, checksum(frame->bytes, length, salt), 8);
}

void skv_frame_free(skv_frame *frame)
{
    free(frame->bytes);
    *frame = (skv_frame){0};
}

/* ---- Reading ------------------------------------------------------------------------------------- */

static bool all_zero(const uint8_t *at, uint64_t len)
{
    for (uint64_t i = 0; i < len; i++)
        if (at[i])
            return false;
    return true;
}

enum skv_frame_fault skv_frame_read(const uint8_t *at, uint64_t available, uint64_t salt, skv_frame_view *view)
{
    if (available == 0)
        return SKV_FRAME_NOTHING;
    if (available < SKV_FRAME_HEAD)
        return all_zero(at, available) ? SKV_FRAME_NOTHING : SKV_FRAME_SHORT;
    if (skv_get_little(at, 4) != MAGIC)
        return all_zero(at, SKV_FRAME_HEAD) ? SKV_FRAME_NOTHING : SKV_FRAME_DAMAGED;
    uint64_t length = skv_get_little(at + AT_LENGTH, 8);
    if (length > available - SKV_FRAME_HEAD || padded(length) > available)
        return SKV_FRAME_SHORT;
    if (skv_get_little(at + AT_CHECKSUM, 8) != checksum(at, length, salt)
        || !all_zero(at + SKV_FRAME_HEAD + length, padded(length) - SKV_FRAME_HEAD - length))
        return SKV_FRAME_DAMAGED;
    if (at[AT_VERSION] != SKV_FRAME_VERSION)
        return SKV_FRAME_FOREIGN;
    *view = (skv_frame_view){
        .kind = at[AT_KIND], .sequence = skv_get_little(at + AT_SEQUENCE, 8), .synced = skv_get_little(at + AT_SYNCED, 8),
        .size = padded(length), .ops = at + SKV_FRAME_HEAD, .length = length};
    return SKV_FRAME_OK;
}

bool skv_frame_next(const skv_frame_view *view, uint64_t *at, skv_op *op)
{
    uint64_t left = view->length - *at;
    if (left < SKV_OP_HEAD)
        return false;
    const uint8_t *head = view->ops + *at;
    uint32_t key_len = (uint32_t)skv_get_little(head + 4, 4);
    uint64_t value_len = skv_get_little(head + 8, 8);
    left -= SKV_OP_HEAD;
    if (head[0] < SKV_OP_PUT || head[0] > SKV_OP_COUNT || key_len > left || value_len > left - key_len)
        return false;
    *op = (skv_op){
        .kind = head[0], .type = head[1], .bytes_key = head[2] & SKV_OP_BYTES_KEY, .key_len = key_len,
        .value_len = value_len, .expires_ms = skv_get_little(head + 16, 8),
        .key = head + SKV_OP_HEAD, .value = head + SKV_OP_HEAD + key_len};
    *at += SKV_OP_HEAD + key_len + value_len;
    return true;
}
