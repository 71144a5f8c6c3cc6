/* test_header.c: a header that lies is refused, also one whose checksum is right; one that was planned is taken.
 *
 * How: each field that later code relies on is set to values just beyond what it may be, and the checksum is made anew,
 *      as a hostile process would do it.
 */
#include "util.h"

#include <stddef.h>

static skv_fixed planned(uint64_t size)
{
    skv_fixed fixed;
    skv_params p = params_for(size, 0);
    REQUIRE_OK(skv_plan(&p, &fixed));
    return fixed;
}

static void seal(skv_fixed *fixed)
{
    fixed->checksum = skv_xxh3_64(fixed, offsetof(skv_fixed, checksum), 0);
}

static void refused(skv_fixed fixed, const char *what)
{
    seal(&fixed);
    skv_status status = skv_check_fixed(&fixed, UINT64_MAX);
    REQUIRE(status == SKV_CORRUPT, "%s: status %d", what, (int)status);
}

#define REFUSED(field, value)                                                                    \
    do {                                                                                         \
        skv_fixed bad = good;                                                                    \
        bad.field = (value);                                                                     \
        refused(bad, #field " = " #value);                                                       \
    } while (0)

static void test_fields(void)
{
    const skv_fixed good = planned(64 * MIB);
    REQUIRE_OK(skv_check_fixed(&good, good.size));
    REQUIRE(skv_check_fixed(&good, good.size - 1) == SKV_CORRUPT, "it is larger than what is mapped");
    REFUSED(magic, good.magic + 1);
    REFUSED(size, SKV_MIN_SIZE - 1);
    REFUSED(size, SKV_MAX_SIZE + 1);
    REFUSED(page_shift, (uint8_t)(SKV_PAGE_SHIFT + 1));
    REFUSED(bucket_bits, (uint8_t)(SKV_MIN_BUCKET_BITS - 1));
    REFUSED(bucket_bits, (uint8_t)(SKV_MAX_BUCKET_BITS + 1));
    REFUSED(bucket_bits, (uint8_t)(good.bucket_bits + 1));
    REFUSED(procs_offset, good.procs_offset + 64);
    REFUSED(buckets_offset, good.buckets_offset - 4096);
    REFUSED(buckets_offset, good.size);
    REFUSED(buckets_offset, good.buckets_offset + 1);
    REFUSED(kinds_offset, good.kinds_offset - 1);
    REFUSED(kinds_offset, good.size);
    REFUSED(pages, 0);
    REFUSED(pages, (good.size >> SKV_PAGE_SHIFT) + 1);
    REFUSED(pages, good.pages + 1);
    REFUSED(descriptors_offset, good.kinds_offset);
    REFUSED(descriptors_offset, good.size);
    REFUSED(descriptors_offset, good.descriptors_offset + 8);
    REFUSED(pages_offset, good.descriptors_offset);
    REFUSED(pages_offset, good.size);
    REFUSED(pages_offset, good.pages_offset + 4096);
    REFUSED(pages_offset, good.pages_offset + SKV_PAGE_SIZE);
}

static void test_what_was_written_elsewhere(void)
{
    skv_fixed fixed = planned(MIB);
    fixed.layout_version++;
    REQUIRE(skv_check_fixed(&fixed, fixed.size) == SKV_VERSION, "another version, whatever its checksum");
    fixed = planned(MIB);
    fixed.byte_order = ~fixed.byte_order;
    REQUIRE(skv_check_fixed(&fixed, fixed.size) == SKV_VERSION, "another byte order");
    fixed = planned(MIB);
    fixed.checksum++;
    REQUIRE(skv_check_fixed(&fixed, fixed.size) == SKV_CORRUPT, "another checksum");
}

static void refused_by_open(skv_fixed fixed)
{
    skv *store = NULL;
    static const skv_os nothing;
    fixed.magic++;
    REQUIRE(skv_open(NULL, &fixed, true, &nothing, &store) == SKV_CORRUPT && !store, "it is not opened");
}

static void test_every_size(void)
{
    skv_params p = params_for(SKV_MIN_SIZE - 1, 0);
    skv_fixed fixed;
    REQUIRE(skv_plan(&p, &fixed) == SKV_TOO_LARGE, "too small");
    p.size = SKV_MAX_SIZE + 1;
    REQUIRE(skv_plan(&p, &fixed) == SKV_TOO_LARGE, "too large");
    rng r = {1};
    for (uint32_t i = 0; i < 20000; i++) {
        uint64_t size = SKV_MIN_SIZE + rnd(&r) % (SKV_MAX_SIZE >> below(&r, 23));
        fixed = planned((size < SKV_MAX_SIZE ? size : SKV_MAX_SIZE) & ~(uint64_t)(SKV_PAGE_SIZE - 1));
        REQUIRE(skv_check_fixed(&fixed, fixed.size) == SKV_OK, "a size of %" PRIu64, fixed.size);
        uint64_t least = fixed.size < 16 * MIB ? 50 : 95;
        REQUIRE(fixed.pages << SKV_PAGE_SHIFT > fixed.size / 100 * least, "most of %" PRIu64 " is for data", fixed.size);
    }
    refused_by_open(fixed);
}

int main(int argc, char **argv)
{
    static const test tests[] = {{"fields", test_fields},
                                 {"what was written elsewhere", test_what_was_written_elsewhere},
                                 {"every size", test_every_size}};
    (void)argc;
    return run_tests(tests, COUNT(tests), argv + 1, 30);
}
