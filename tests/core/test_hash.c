/* test_hash.c: skv_xxh3_64 against the reference.
 *
 * The numbers come from the xxhash package of PyPI (4.1.0, xxHash 0.8.4), over bytes that `fill` makes:
 * every range of length with both of its ends, four seeds.  The last test uses no numbers: it
 * asks that each byte and each seed matters, and that nothing around the input does.
 */
#undef NDEBUG
#include <assert.h>
#include <stdio.h>

#include "../../shmkv/_core/hash.h"

#define SEEDS 4
#define MOST  4096u

static const uint64_t seeds[SEEDS] = {0, 1, UINT64_C(0x9e3779b97f4a7c15), UINT64_MAX};

static const struct vector {
    size_t   len;
    uint64_t hash[SEEDS];
} vectors[] = {
    {0, {0x2d06800538d394c2, 0x4dc5b0cc826f6703,
        0x602b0e2cd6662c8b, 0x4c093276ae47a555}},
    {1, {0xc44bdff4074eecdb, 0x5eaac1f7b17ef730,
        0x062b185e4e01441a, 0x77b2df5ff42aab88}},
    {2, {0x9aaf71d6a8c4da34, 0x2b4e486789a4b08c,
        0xed403fcbeab0af48, 0x2e529c79fdff6ee2}},
    {3, {0x09fa62ce4c680afd, 0x8a6257cf50615187,
        0xa90b0d9af6b1170f, 0xf564e398c4dd051b}},
    {4, {0x79957825ae360e50, 0x020a6f41ac899f5a,
        0x7235fec3250f9283, 0x46865fa271bab01f}},
    {7, {0xecce17a0daae0b52, 0xe715d5adc9f48629,
        0x7eac0d0ec7998825, 0xefb7915a3c18566f}},
    {8, {0x6f76cea09120eca3, 0xb09c43a50878b522,
        0x3732d91ce78390dd, 0x80c4091bfd412f7b}},
    {9, {0xd1a16ab7aa368dfb, 0x992c8bf16173ee20,
        0x76dc75ca1585867d, 0xcb78173ee648f10d}},
    {13, {0x5127dfa34952434f, 0xe7db0ac070e1fa23,
        0xc473d9dca7d0f807, 0x5d5f8d3dc7980b71}},
    {16, {0xd2d2438706238265, 0x2b846c5fe1092cba,
        0x9fc072e261ce4b8e, 0x6d9542d286b69cdb}},
    {17, {0xa38fa88ad2e8141f, 0x5735f4c88907d6f4,
        0x55379dd73393e7d4, 0x9a2c6ccae0397527}},
    {32, {0x9f1c65d249c19b92, 0x49fc5aa3374f051a,
        0x186473a6e96b0e0d, 0x162fd6115e645fff}},
    {33, {0x875ea29737b0fe06, 0xc8f4d55603dbfbc8,
        0xfc55863cba178b57, 0x6d9c6d9025b932aa}},
    {64, {0x5ef0b4fac22464ec, 0x5e0c94a5ff002f36,
        0x1be173149d8c7acc, 0xe14b8f959baa3334}},
    {65, {0x88ab42dbb1a3beae, 0x67bcf8a8cc411c3a,
        0xb0d5bcc7f45c7a25, 0x8cbac7795ae64ef0}},
    {96, {0xb0f25e46f717d5d1, 0x3d1c1e21d100e02c,
        0x5d92cbacfdfa4f78, 0xcd4a303232fb9889}},
    {97, {0x2d6d845d4a551eaa, 0xc254db36181384f1,
        0x82941c70888559c7, 0xd5aee14713a4fcde}},
    {128, {0xd9a7fff055b79a44, 0xae2f700647ce40c8,
        0x3aea0eaba20c3bee, 0x77d1779c7a7823c7}},
    {129, {0xf41dfd0a1c19fe9d, 0x337ccce49cb627a6,
        0x7a04a57499316b5e, 0x1ea62e39ae560c07}},
    {144, {0x2d026343b9054fc0, 0x81cfb2182675d746,
        0xf41cf282e9d975ab, 0x6451e4a39bcca066}},
    {160, {0x59e2f249fa4c567c, 0x5da279a1463f3412,
        0xc0dea90d07b6edad, 0xcdc977864016e9e3}},
    {239, {0x836f77108b529493, 0x1b2c9a403ef36026,
        0x2638bec9f0d532f5, 0x241bc8cca7a3dd79}},
    {240, {0xe23324e4c8a041ed, 0x64f0a32b70ec6d8f,
        0xd8c73e35c9462471, 0x90428e49d96c5785}},
    {241, {0x30ca188aa84358a4, 0x2d91309a7999c8c2,
        0x5b0c26b77ac1b8fe, 0xe87ccd7f723936f3}},
    {255, {0xd5f9d72ef979e8ed, 0xed0819dedf0f47bd,
        0xf8093c07df711abd, 0xc10a998bc15ae049}},
    {256, {0x35cc4f9c49d76abb, 0x526a2f82b92470e4,
        0x1c6d4bde8f24710e, 0x408866b18e098eb8}},
    {257, {0x6b4ee082b9fc1a84, 0x23fdb941b047a151,
        0xd869d387343615b2, 0x9256a417efeba5c8}},
    {512, {0x6b503be898144b3e, 0x8ff1f0616f7d2321,
        0x0a3673851f6b02c9, 0x3e18fd8498a36ef3}},
    {1023, {0xfb6928669eb5fa97, 0x0867305c7a3ada14,
        0x3cf7a1a1c719e8a4, 0xb3e94f66ff333843}},
    {1024, {0xb955f9c88883ffbc, 0xc1eb6148e1af1091,
        0xe6a3a359d9efd185, 0x34c4c9de3728ebcd}},
    {1025, {0xefb384d6ca000174, 0x57ea9fcb7865dec3,
        0xa0c0c38ab015fe5d, 0xe559a02d3962c3a4}},
    {1088, {0x26aa18aa5c33a0fa, 0x1e2eeb02de44c6ea,
        0x90aa52f564147fbe, 0xa95ca5188c98c9bd}},
    {2048, {0x8ca30ac51c527e73, 0x30117927fe3153b3,
        0x55a8bbba88d254ad, 0xb970ea5ca329a3b7}},
    {2049, {0xf106c92ac7362c7a, 0x9516ca3bbde07e65,
        0x1b75bd7e2ce7c8a9, 0xacf332a0dabcb7fb}},
    {4096, {0x8d5a39475aa2ca73, 0x9b313a18ca837989,
        0x65efbae6b96b6e05, 0x9e603acfc5797cbc}},
};

static void fill(uint8_t *data)
{
    for (unsigned i = 0; i < MOST; i++)
        data[i] = (uint8_t)(i * i * 7 + i * 31 + (i >> 8) * 13);
}

static void test_vectors(void)
{
    static uint8_t data[MOST + 8];
    for (size_t shift = 0; shift < 8; shift++) {        /* every alignment                    */
        fill(data + shift);
        for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
            for (size_t s = 0; s < SEEDS; s++)
                assert(skv_xxh3_64(data + shift, vectors[i].len, seeds[s]) == vectors[i].hash[s]);
    }
}

static void test_only_input_matters(void)
{
    uint8_t data[402] = {0};
    for (size_t len = 1; len <= 400; len++) {
        uint64_t plain = skv_xxh3_64(data + 1, len, 5);
        data[0] = data[len + 1] = 1;
        assert(skv_xxh3_64(data + 1, len, 5) == plain);
        data[0] = data[len + 1] = 0;
        assert(skv_xxh3_64(data + 1, len, 6) != plain);
        for (size_t i = 1; i <= len; i++) {
            data[i] = 0x10;
            assert(skv_xxh3_64(data + 1, len, 5) != plain);
            data[i] = 0;
        }
    }
}

int main(void)
{
    test_vectors();
    test_only_input_matters();
    puts("ok");
    return 0;
}
