/* test_frame.c: frames come back as they were made, and nothing else is taken for one.
 *
 * How: random operations; then every bit of a frame is turned, and every length of it is read, from memory that ends
 *      where the bytes do (a sanitizer sees a look beyond).
 */
#include "frame.h"
#include "util.h"

#define SALT UINT64_C(0x1234567890abcdef)
#define MOST 40u

static uint64_t seed = 1;

typedef struct made {
    uint32_t count;
    skv_op ops[MOST];
    uint8_t texts[MOST][300];
} made;

static skv_op random_op(rng *r, uint8_t *text)
{
    skv_op op = {.kind = (enum skv_op_kind)(1 + below(r, 4)), .type = (uint8_t)rnd(r), .bytes_key = below(r, 2),
                 .key_len = below(r, 60), .value_len = below(r, below(r, 3) ? 40 : 240), .expires_ms = below(r, 2) ? rnd(r) : 0,
                 .key = text, .value = text + 60};
    for (uint32_t i = 0; i < 300; i++)
        text[i] = (uint8_t)rnd(r);
    return op;
}

static void make(made *m, skv_frame *frame, rng *r, uint32_t count)
{
    m->count = count;
    REQUIRE(skv_frame_begin(frame, SKV_FRAME_CHANGE), "no memory");
    for (uint32_t i = 0; i < count; i++) {
        m->ops[i] = random_op(r, m->texts[i]);
        REQUIRE(skv_frame_add(frame, &m->ops[i]), "no memory");
    }
    skv_frame_seal(frame, 7 + count, 8000 + count, SALT);
}

static bool same_op(const skv_op *a, const skv_op *b)
{
    return a->kind == b->kind && a->type == b->type && a->bytes_key == b->bytes_key && a->key_len == b->key_len
           && a->value_len == b->value_len && a->expires_ms == b->expires_ms && memcmp(a->key, b->key, a->key_len) == 0
           && memcmp(a->value, b->value, a->value_len) == 0;
}

static void require_as_made(const made *m, const uint8_t *bytes, uint64_t available, uint64_t size)
{
    skv_frame_view view;
    skv_op op;
    uint64_t at = 0;
    enum skv_frame_fault fault = skv_frame_read(bytes, available, SALT, &view);
    REQUIRE(fault == SKV_FRAME_OK, "fault %d", (int)fault);
    REQUIRE(view.kind == SKV_FRAME_CHANGE && view.sequence == 7 + m->count && view.synced == 8000 + m->count, "head");
    REQUIRE(view.size == size && size % 8 == 0, "%" PRIu64 " bytes, not %" PRIu64, view.size, size);
    for (uint32_t i = 0; i < m->count; i++)
        REQUIRE(skv_frame_next(&view, &at, &op) && same_op(&op, &m->ops[i]), "operation %u of %u", i, m->count);
    REQUIRE(!skv_frame_next(&view, &at, &op) && at == view.length, "behind the last operation");
}

/* In memory of its own, so that the next byte is nobody's. */
static enum skv_frame_fault read_copy(const uint8_t *bytes, size_t len, uint64_t salt)
{
    skv_frame_view view;
    uint8_t *copy = malloc(len ? len : 1);
    REQUIRE(copy, "no memory");
    memcpy(copy, bytes, len);
    enum skv_frame_fault fault = skv_frame_read(copy, len, salt, &view);
    free(copy);
    return fault;
}

static void there_and_back(void)
{
    static made m;
    skv_frame frame = {0};
    rng r = {seed};
    for (uint32_t round = 0; round < 2000; round++) {
        make(&m, &frame, &r, below(&r, 5) ? below(&r, 4) : below(&r, MOST));
        require_as_made(&m, frame.bytes, frame.size, frame.size);
        require_as_made(&m, frame.bytes, frame.size, frame.size);
    }
    skv_frame_free(&frame);
}

/* With the numbers that its turn brings it is sealed anew. */
static void sealed_twice(void)
{
    static made m;
    skv_frame frame = {0};
    skv_frame_view view;
    rng r = {seed + 1};
    make(&m, &frame, &r, 3);
    size_t size = frame.size;
    skv_frame_seal(&frame, 99, 100, SALT);
    REQUIRE(frame.size == size, "the size stays");
    REQUIRE(skv_frame_read(frame.bytes, frame.size, SALT, &view) == SKV_FRAME_OK, "it is whole");
    REQUIRE(view.sequence == 99 && view.synced == 100, "the numbers are the later ones");
    skv_frame_free(&frame);
}

static void every_bit(void)
{
    static made m;
    skv_frame frame = {0};
    rng r = {seed + 2};
    for (uint32_t count = 0; count < 4; count++) {
        make(&m, &frame, &r, count);
        for (size_t bit = 0; bit < frame.size * 8; bit++) {
            frame.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            enum skv_frame_fault fault = read_copy(frame.bytes, frame.size, SALT);
            REQUIRE(fault == SKV_FRAME_DAMAGED || fault == SKV_FRAME_SHORT, "bit %zu of %u operations: fault %d", bit, count,
                    (int)fault);
            frame.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    skv_frame_free(&frame);
}

static void every_length(void)
{
    static made m;
    skv_frame frame = {0};
    rng r = {seed + 3};
    make(&m, &frame, &r, 3);
    REQUIRE(read_copy(frame.bytes, 0, SALT) == SKV_FRAME_NOTHING, "no bytes");
    for (size_t len = 1; len < frame.size; len++)
        REQUIRE(read_copy(frame.bytes, len, SALT) == SKV_FRAME_SHORT, "%zu bytes", len);
    REQUIRE(read_copy(frame.bytes, frame.size, SALT) == SKV_FRAME_OK, "all of it");
    skv_frame_free(&frame);
}

static void of_another_log(void)
{
    static made m;
    skv_frame frame = {0};
    rng r = {seed + 4};
    make(&m, &frame, &r, 3);
    REQUIRE(read_copy(frame.bytes, frame.size, SALT + 1) == SKV_FRAME_DAMAGED, "another salt");
    skv_frame_free(&frame);
}

static void zeroes_are_the_end(void)
{
    uint8_t zeroes[100] = {0};
    for (size_t len = 0; len <= sizeof zeroes; len++)
        REQUIRE(read_copy(zeroes, len, SALT) == SKV_FRAME_NOTHING, "%zu zeroes", len);
}

static void require_unfit(const skv_frame *frame, uint64_t length)
{
    uint8_t *copy = malloc(frame->size);
    skv_frame_view view;
    skv_op op;
    uint64_t at = 0;
    REQUIRE(copy, "no memory");
    memcpy(copy, frame->bytes, frame->size);
    REQUIRE(skv_frame_read(copy, frame->size, SALT, &view) == SKV_FRAME_OK, "the checksum is right");
    REQUIRE(!skv_frame_next(&view, &at, &op) && at == 0, "length %" PRIu64, length);
    free(copy);
}

/* Its maker is hostile: the checksum is right, and one of the two lengths inside is too much. */
static void lengths_that_do_not_fit(void)
{
    static const uint64_t more[] = {1, 100, UINT32_MAX / 2, UINT64_MAX / 2, UINT64_MAX - 1000};
    static made m;
    skv_frame frame = {0};
    rng r = {seed + 5};
    for (size_t i = 0; i < COUNT(more); i++) {
        make(&m, &frame, &r, 1);
        uint64_t value_len = m.ops[0].value_len + more[i];
        memcpy(frame.bytes + SKV_FRAME_HEAD + 8, &value_len, sizeof value_len);
        skv_frame_seal(&frame, 1, 0, SALT);
        require_unfit(&frame, value_len);
        make(&m, &frame, &r, 1);
        uint32_t key_len = m.ops[0].key_len + (uint32_t)(more[i] < UINT32_MAX ? more[i] : UINT32_MAX - 1000);
        memcpy(frame.bytes + SKV_FRAME_HEAD + 4, &key_len, sizeof key_len);
        skv_frame_seal(&frame, 1, 0, SALT);
        require_unfit(&frame, key_len);
    }
    skv_frame_free(&frame);
}

static const test tests[] = {
    {"there_and_back", there_and_back},
    {"sealed_twice", sealed_twice},
    {"every_bit", every_bit},
    {"every_length", every_length},
    {"of_another_log", of_another_log},
    {"zeroes_are_the_end", zeroes_are_the_end},
    {"lengths_that_do_not_fit", lengths_that_do_not_fit},
};

/* test_frame SEED [NAME...] */
int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10);
    return run_tests(tests, COUNT(tests), argv + (argc > 1 ? 2 : 1), 60);
}
