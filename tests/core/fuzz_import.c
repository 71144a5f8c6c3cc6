/* fuzz_import.c: the loader of text (import.c) on any bytes, against a second, simpler one, driven by libFuzzer.
 *
 * What: each input is loaded into a store that is empty; what was stored, which lines were refused and why, and how
 *       far the loader came must be what the reference says.  It looks at one byte after the other and decodes UTF-8
 *       into numbers, where the loader searches, compares words and classifies sequences.
 * How:  the first byte of an input says whether malformed lines are skipped, whether there is a ttl, and whether two
 *       bytes that are never UTF-8 stand for very long stretches (keys and values beyond the limits).  The text lies
 *       in memory of exactly its length, the store in a box (fuzz_box.h), so that every look beyond ends the run.
 *
 * Concurrency: one thread.
 */
#include "fuzz_box.h"

#include "import.h"

#define STORE_SIZE (1 * MIB)
#define MOST_PAIRS 512u
#define LONG_KEY   66000u
#define LONG_VALUE 263000u      /* more than a quarter of the store                           */
#define STRETCHES  1u
#define STRETCHED  21u          /* in the first byte's upper bits; rare, because it takes milliseconds */
#define LIMIT_S    1.0

static box store_box;

/* ---- The text -------------------------------------------------------------------------------- */

typedef struct text {
    uint8_t *bytes;
    size_t   len;
} text;

/* A copy, with 0xfe and 0xff stretched if `stretch`. */
static text make_text(const uint8_t *data, size_t size, bool stretch)
{
    const size_t most = size + (stretch ? STRETCHES * LONG_VALUE : 0);
    uint8_t *bytes = malloc(most ? most : 1);
    size_t len = 0;
    uint32_t left = stretch ? STRETCHES : 0;
    INSIST_ON(bytes, "no memory");
    for (size_t i = 0; i < size; i++) {
        if (left == 0 || data[i] < 0xfe) {
            bytes[len++] = data[i];
            continue;
        }
        size_t n = data[i] == 0xfe ? LONG_KEY : LONG_VALUE;
        memset(bytes + len, 'x', n);
        len += n;
        left--;
    }
    uint8_t *exact = realloc(bytes, len ? len : 1);
    return (text){exact ? exact : bytes, len};
}

/* It is not what is tested, and must not take most of the time. */
#define QUICK __attribute__((no_sanitize("address", "undefined", "coverage")))

/* ---- The reference --------------------------------------------------------------------------- */

typedef struct pair {
    uint8_t *key, *value;
    size_t   key_len, value_len;
    uint64_t line_after, consumed;      /* counts once it is stored                             */
} pair;

typedef struct reference {
    pair     pairs[MOST_PAIRS];
    uint32_t count;
    uint64_t lines, consumed;
    struct { uint64_t line; uint32_t reason; } bad[MOST_PAIRS];
    uint32_t bad_count;
    bool     stopped;
} reference;

/* Undoes escapes; the length, or SIZE_MAX where there is a wrong one. */
QUICK static size_t plain(const uint8_t *from, size_t len, uint8_t *to)
{
    static const char letters[] = "tnr\\", stand_for[] = "\t\n\r\\";
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (from[i] != '\\') {
            to[n++] = from[i];
            continue;
        }
        const char *found = ++i < len && from[i] ? strchr(letters, from[i]) : NULL;
        if (!found)
            return SIZE_MAX;
        to[n++] = (uint8_t)stand_for[found - letters];
    }
    return n;
}

/* The number that a sequence of UTF-8 stands for, and its length; 0 = none. */
QUICK static size_t decode(const uint8_t *p, size_t room, uint32_t *number)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const size_t n = *p < 0x80 ? 1 : *p >> 5 == 6 ? 2 : *p >> 4 == 14 ? 3 : *p >> 3 == 30 ? 4 : 0;
    if (n == 0 || n > room)
        return 0;
    *number = n == 1 ? *p : *p & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        *number = *number << 6 | (p[i] & 0x3f);
    }
    return *number < least[n] || *number > 0x10ffff || *number >> 11 == 0xd800 >> 11 ? 0 : n;
}

QUICK static bool all_utf8(const uint8_t *p, size_t len)
{
    uint32_t number;
    for (size_t i = 0, n; i < len; i += n)
        if (!(n = decode(p + i, len - i, &number)))
            return false;
    return true;
}

/* One line without its end; the pair's bytes are the caller's to free. */
QUICK static enum skv_bad_line judge(const uint8_t *line, size_t len, pair *out)
{
    size_t tabs = 0, tab = 0;
    for (size_t i = len; i-- > 0;)
        if (line[i] == '\t') {
            tabs++;
            tab = i;
        }
    if (tabs != 1)
        return tabs ? SKV_LINE_MANY_TABS : SKV_LINE_NO_TAB;
    out->key = malloc(tab + 1);
    out->value = malloc(len + 1);
    INSIST_ON(out->key && out->value, "no memory");
    out->key_len = plain(line, tab, out->key);
    out->value_len = plain(line + tab + 1, len - tab - 1, out->value);
    if (out->key_len == SIZE_MAX || out->value_len == SIZE_MAX)
        return SKV_LINE_ESCAPE;
    if (out->key_len > 65535)
        return SKV_LINE_KEY_TOO_LONG;
    if (!all_utf8(out->key, out->key_len))
        return SKV_LINE_KEY_NOT_UTF8;
    if (!all_utf8(out->value, out->value_len))
        return SKV_LINE_VALUE_NOT_UTF8;
    return out->value_len > STORE_SIZE / 4 ? SKV_LINE_VALUE_TOO_LARGE : SKV_LINE_OK;
}

static void free_pair(pair *p)
{
    free(p->key);
    free(p->value);
    *p = (pair){0};
}

QUICK static void refer(const text *t, bool skip, reference *out)
{
    size_t start = 0;
    for (size_t i = 0; i < t->len; i++) {
        if (t->bytes[i] != '\n')
            continue;
        size_t len = i - start - (i > start && t->bytes[i - 1] == '\r');
        pair *p = &out->pairs[out->count];
        enum skv_bad_line bad = len ? judge(t->bytes + start, len, p) : SKV_LINE_OK;
        if (bad) {
            free_pair(p);
            out->bad[out->bad_count].line = out->lines + 1;
            out->bad[out->bad_count++].reason = (uint32_t)bad;
            if (!skip) {
                out->stopped = true;
                return;
            }
        }
        out->lines++;
        out->consumed = start = i + 1;
        if (len && !bad) {
            p->line_after = out->lines;
            p->consumed = out->consumed;
            out->count++;
        }
    }
}

/* ---- The loader ------------------------------------------------------------------------------ */

typedef struct loaded {
    uint64_t stored, lines, consumed;
    uint32_t bad_count;
    bool     stopped;
    skv_status status;
} loaded;

/* Calls again as long as there is more, as import.h says; compares the malformed lines on the way. */
static void load(skv *store, const text *t, bool skip, uint64_t ttl_ms, const reference *want, loaded *got)
{
    for (uint32_t calls = 0; calls < MOST_PAIRS; calls++) {
        skv_load_result out;
        skv_wait wait = {.block = true, .shared = true};
        got->status = skv_load_tsv(store, t->bytes + got->consumed, t->len - got->consumed, skip, got->lines + 1,
                                   ttl_ms, &wait, &out);
        for (uint32_t i = 0; i < out.bad_count; i++, got->bad_count++)
            INSIST_ON(got->bad_count < want->bad_count && out.bad[i].line == want->bad[got->bad_count].line
                      && out.bad[i].reason == want->bad[got->bad_count].reason
                      && *skv_bad_line_words(out.bad[i].reason),
                      "line %llu was refused for reason %u", (unsigned long long)out.bad[i].line, out.bad[i].reason);
        got->stored += out.stored;
        got->lines += out.lines;
        got->consumed += out.consumed;
        got->stopped = out.stopped;
        if (got->status || out.stopped || out.bad_count < SKV_BAD_LINES)
            return;
    }
    INSIST_ON(false, "the loader does not come to an end");
}

static void compare_pair(skv *store, const reference *want, uint32_t n, uint64_t stored)
{
    const pair *p = &want->pairs[n];
    for (uint32_t later = n + 1; later < stored; later++)
        if (want->pairs[later].key_len == p->key_len && memcmp(want->pairs[later].key, p->key, p->key_len) == 0)
            return;             /* of two lines with one key the later wins                     */
    skv_key key = skv_hash_key(store, p->key, (uint32_t)p->key_len, false);
    skv_view view;
    skv_find(store, &key, &view);
    INSIST_ON(view.record && view.type == SKV_T_STR, "pair %u is missing", n);
    INSIST_ON(view.value_len == p->value_len && memcmp(view.value, p->value, p->value_len) == 0,
              "pair %u has another value", n);
}

static void compare(skv *store, const reference *want, const loaded *got)
{
    const bool full = got->status == SKV_FULL;
    INSIST_ON(got->status == SKV_OK || full, "status %d", (int)got->status);
    INSIST_ON(full ? got->stored < want->count : got->stored == want->count, "%llu pairs were stored, not %u",
              (unsigned long long)got->stored, want->count);
    for (uint32_t i = 0; i < got->stored; i++)
        compare_pair(store, want, i, got->stored);
    if (full)
        return;
    INSIST_ON(got->bad_count == want->bad_count && got->stopped == want->stopped, "%u lines were refused, not %u",
              got->bad_count, want->bad_count);
    INSIST_ON(got->lines == want->lines && got->consumed == want->consumed, "%llu lines, %llu bytes, not %llu, %llu",
              (unsigned long long)got->lines, (unsigned long long)got->consumed, (unsigned long long)want->lines,
              (unsigned long long)want->consumed);
}

/* ---- One execution --------------------------------------------------------------------------- */

static double longest_s;
static uint64_t executions, with_pairs;

static void report(void)
{
    fprintf(stderr, "fuzz: executions=%llu opened=%llu longest_ms=%.1f\n", (unsigned long long)executions,
            (unsigned long long)with_pairs, longest_s * 1e3);
}

static void load_and_compare(const text *t, uint32_t flags)
{
    static reference want;
    loaded got = {0};
    skv_wait wait = {.block = true, .shared = true};
    want.count = want.bad_count = 0;
    want.lines = want.consumed = 0;
    want.stopped = false;
    refer(t, flags & 1, &want);
    load(store_box.store, t, flags & 1, flags & 2 ? 60000 : 0, &want, &got);
    compare(store_box.store, &want, &got);
    INSIST_ON(skv_clear(store_box.store, &wait) == SKV_OK, "the store cannot be cleared");
    with_pairs += want.count > 0;
    for (uint32_t i = 0; i < want.count; i++)
        free_pair(&want.pairs[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > MOST_PAIRS)
        return 0;
    double start = cpu_seconds();
    text t = make_text(data + 1, size - 1, data[0] >> 2 == STRETCHED);
    load_and_compare(&t, data[0]);
    free(t.bytes);
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
    atexit(report);
    return 0;
}
