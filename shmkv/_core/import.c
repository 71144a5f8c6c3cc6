/* import.c: loads TSV text into a store, without Python (the format: import.h).
 *
 * What: finds lines, checks them, and hands them to skv_put_many in batches.
 * How:  `loader` walks the text once.  A batch ends when it is full, at the end of the text, or
 *       at a line that stops it; only then do the counts in `*out` move, so that they never say
 *       more than what is stored.  Keys and values point into the text (or, where an escape had
 *       to be undone, into `unescaped`): nothing else is copied before the engine does.
 *
 * Concurrency: no shared state but the store's own.  No lock is held between two batches.
 */
#include "import.h"

#include <stdlib.h>
#include <string.h>

#include "atomics.h"
#include "read.h"

/* 512 lines: the fixed cost of a batch (intent, sorting, two changes of `status`) is spread
 * over enough lines, and the items (some 40 KiB) still fit the second-level cache. */
#define BATCH_LINES  512u
/* A batch may hold a quarter of the store; records are larger than their bytes, so stop early.
 * A line beyond this makes a batch of its own, and the engine says whether it is too large. */
#define BATCH_SHARE  4u
#define ITEM_OVERHEAD 64u

typedef struct loader {
    skv           *store;
    const uint8_t *text;            /* all of it                                              */
    const uint8_t *at;              /* start of the next line                                 */
    const uint8_t *end;             /* after the last LF                                      */
    const uint8_t *backslash;       /* the first one at or after `at`, or `end`               */
    uint8_t       *unescaped;       /* as long as the text (undoing only shrinks it), or NULL */
    size_t         unescaped_used;
    skv_item      *items;           /* BATCH_LINES of them                                    */
    uint32_t       count;
    uint64_t       bytes, bytes_limit;
    uint64_t       lines;           /* read for this batch, empty ones too                    */
    uint64_t       expires_ms;
} loader;

typedef struct span {
    const uint8_t *data;
    size_t         len;
} span;

/* ---- UTF-8 ----------------------------------------------------------------------------- */

/* 0x80 in each byte: set in none of eight bytes = all of them are ASCII. */
#define NOT_ASCII UINT64_C(0x8080808080808080)

static size_t ascii_prefix(span s)
{
    size_t i = 0;
    for (; i + 8 <= s.len; i += 8) {
        uint64_t word;
        memcpy(&word, s.data + i, 8);
        if (word & NOT_ASCII)
            break;
    }
    while (i < s.len && s.data[i] < 0x80)
        i++;
    return i;
}

static inline bool is_continuation(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* Length of the well-formed multi-byte sequence at `p`, or 0 (Unicode 15, table 3-7: no
 * surrogates, no overlong forms, nothing beyond U+10FFFF). */
static size_t sequence_length(const uint8_t *p, size_t room)
{
    uint8_t lead = p[0];
    if (lead >= 0xc2 && lead <= 0xdf)
        return room >= 2 && is_continuation(p[1]) ? 2 : 0;
    if (lead >= 0xe0 && lead <= 0xef) {
        if (room < 3 || !is_continuation(p[1]) || !is_continuation(p[2]))
            return 0;
        if ((lead == 0xe0 && p[1] < 0xa0) || (lead == 0xed && p[1] > 0x9f))
            return 0;
        return 3;
    }
    if (lead >= 0xf0 && lead <= 0xf4) {
        if (room < 4 || !is_continuation(p[1]) || !is_continuation(p[2]) || !is_continuation(p[3]))
            return 0;
        if ((lead == 0xf0 && p[1] < 0x90) || (lead == 0xf4 && p[1] > 0x8f))
            return 0;
        return 4;
    }
    return 0;
}

static bool is_utf8(span s)
{
    size_t i = ascii_prefix(s);
    while (i < s.len) {
        if (s.data[i] < 0x80) {
            i++;
            continue;
        }
        size_t n = sequence_length(s.data + i, s.len - i);
        if (!n)
            return false;
        i += n;
    }
    return true;
}

/* ---- One line -------------------------------------------------------------------------- */

static const uint8_t *find(const uint8_t *from, const uint8_t *stop, int byte)
{
    const uint8_t *at = from < stop ? memchr(from, byte, (size_t)(stop - from)) : NULL;
    return at ? at : stop;
}

static int unescape_byte(uint8_t letter)
{
    switch (letter) {
    case 't': return '\t';
    case 'n': return '\n';
    case 'r': return '\r';
    case '\\': return '\\';
    default: return -1;
    }
}

/* Replaces `s` by itself without escapes.  Escapes are ASCII, so UTF-8 stays UTF-8. */
static bool unescape(loader *l, span *s)
{
    uint8_t *out = l->unescaped + l->unescaped_used;
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++) {
        int byte = s->data[i];
        if (byte == '\\') {
            if (++i == s->len || (byte = unescape_byte(s->data[i])) < 0)
                return false;
        }
        out[n++] = (uint8_t)byte;
    }
    l->unescaped_used += n;
    *s = (span){ out, n };
    return true;
}

/* Splits and checks the line [l->at, stop) into `item`; `stop` is its LF, or the CR before it. */
static enum skv_bad_line parse_line(loader *l, const uint8_t *stop, skv_item *item)
{
    const uint8_t *tab = find(l->at, stop, '\t');
    if (tab == stop)
        return SKV_LINE_NO_TAB;
    if (find(tab + 1, stop, '\t') != stop)
        return SKV_LINE_MANY_TABS;
    span key = { l->at, (size_t)(tab - l->at) };
    span value = { tab + 1, (size_t)(stop - tab - 1) };
    if (skv_unlikely(l->backslash < stop) && (!unescape(l, &key) || !unescape(l, &value)))
        return SKV_LINE_ESCAPE;
    if (key.len > SKV_MAX_KEY)
        return SKV_LINE_KEY_TOO_LONG;
    if (value.len > SKV_MAX_VALUE)
        return SKV_LINE_VALUE_TOO_LARGE;
    if (!is_utf8(key))
        return SKV_LINE_KEY_NOT_UTF8;
    if (!is_utf8(value))
        return SKV_LINE_VALUE_NOT_UTF8;
    *item = (skv_item){
        .key = skv_hash_key(l->store, key.data, (uint32_t)key.len, false),
        .value = value.data,
        .value_len = value.len,
        .type = SKV_T_STR,
        .expires_ms = l->expires_ms,
    };
    return SKV_LINE_OK;
}

/* ---- A batch of lines ------------------------------------------------------------------ */

static inline uint64_t item_bytes(const skv_item *item)
{
    return item->key.len + item->value_len + ITEM_OVERHEAD;
}

static void advance(loader *l, const uint8_t *next_line)
{
    l->at = next_line;
    if (skv_unlikely(l->backslash < next_line))
        l->backslash = find(next_line, l->end, '\\');
}

/* Reads lines until the batch is full, the text ends, or the line at `l->at` is malformed.
 * A line beyond `bytes_limit` makes a batch alone, without even an empty line beside it. */
static enum skv_bad_line read_batch(loader *l)
{
    l->count = 0;
    l->bytes = l->lines = 0;
    l->unescaped_used = 0;
    while (l->at < l->end && l->lines < BATCH_LINES && l->bytes <= l->bytes_limit) {
        const uint8_t *newline = find(l->at, l->end, '\n');
        const uint8_t *stop = newline > l->at && newline[-1] == '\r' ? newline - 1 : newline;
        if (stop > l->at) {
            skv_item *item = &l->items[l->count];
            enum skv_bad_line bad = parse_line(l, stop, item);
            if (skv_unlikely(bad))
                return bad;
            if (l->lines && l->bytes + item_bytes(item) > l->bytes_limit)
                break;              /* it opens the next batch                                */
            l->bytes += item_bytes(item);
            l->count++;
        }
        l->lines++;
        advance(l, newline + 1);
    }
    return SKV_LINE_OK;
}

/* ---- Counts that tell what is stored --------------------------------------------------- */

static void consume(const loader *l, uint64_t lines, uint64_t stored, skv_load_result *out)
{
    out->lines += lines;
    out->stored += stored;
    out->consumed = (uint64_t)(l->at - l->text);
}

static void note_bad(enum skv_bad_line reason, uint64_t first_line, skv_load_result *out)
{
    out->bad[out->bad_count].line = first_line + out->lines;
    out->bad[out->bad_count].reason = (uint32_t)reason;
    out->bad_count++;
}

/* Stores the batch.  SKV_OK with *bad set: it was one line, too large for this store. */
static skv_status store_batch(loader *l, skv_wait *wait, enum skv_bad_line *bad, skv_load_result *out)
{
    skv_status status = l->count ? skv_put_many(l->store, l->items, l->count, wait) : SKV_OK;
    if (status == SKV_TOO_LARGE && l->lines == 1) {
        *bad = SKV_LINE_VALUE_TOO_LARGE;
        return SKV_OK;
    }
    if (!status)
        consume(l, l->lines, l->count, out);
    return status;
}

/* Reads and stores one batch, and deals with the malformed line that ended it. */
static skv_status load_batch(loader *l, int on_bad, uint64_t first_line, skv_wait *wait, skv_load_result *out)
{
    enum skv_bad_line bad_after = read_batch(l), bad_itself = SKV_LINE_OK;
    skv_status status = store_batch(l, wait, &bad_itself, out);
    if (status)
        return status;
    enum skv_bad_line bad = bad_itself ? bad_itself : bad_after;
    if (!bad)
        return SKV_OK;
    note_bad(bad, first_line, out);
    out->stopped = on_bad == 0;
    if (out->stopped)
        return SKV_OK;
    if (!bad_itself)
        advance(l, find(l->at, l->end, '\n') + 1);
    consume(l, 1, 0, out);
    return SKV_OK;
}

skv_status skv_load_tsv(skv *store, const uint8_t *text, size_t len, int on_bad, uint64_t first_line,
                        uint64_t ttl_ms, skv_wait *wait, skv_load_result *out)
{
    memset(out, 0, sizeof *out);
    while (len && text[len - 1] != '\n')
        len--;
    loader l = { .store = store, .text = text, .at = text, .end = text + len };
    l.backslash = find(text, l.end, '\\');
    l.bytes_limit = skv_max_value(store) / BATCH_SHARE;
    l.items = malloc(BATCH_LINES * sizeof(skv_item));
    l.unescaped = l.backslash < l.end ? malloc(len) : NULL;
    skv_status status = l.items && (l.unescaped || l.backslash == l.end) ? SKV_OK : SKV_NO_MEMORY;
    while (!status && l.at < l.end && !out->stopped && out->bad_count < SKV_BAD_LINES) {
        l.expires_ms = ttl_ms ? skv_now_ms(store) + ttl_ms : 0;
        status = load_batch(&l, on_bad, first_line, wait, out);
    }
    free(l.items);
    free(l.unescaped);
    return status;
}

const char *skv_bad_line_words(uint32_t reason)
{
    switch ((enum skv_bad_line)reason) {
    case SKV_LINE_OK: return "nothing is wrong with it";
    case SKV_LINE_NO_TAB: return "no TAB between key and value";
    case SKV_LINE_MANY_TABS: return "more than one TAB (inside a value write \\t)";
    case SKV_LINE_ESCAPE: return "a backslash that starts none of \\t \\n \\r \\\\";
    case SKV_LINE_KEY_TOO_LONG: return "the key is longer than 65,535 bytes";
    case SKV_LINE_KEY_NOT_UTF8: return "the key is not valid UTF-8";
    case SKV_LINE_VALUE_NOT_UTF8: return "the value is not valid UTF-8";
    case SKV_LINE_VALUE_TOO_LARGE: return "the value is too large for this store";
    }
    return "malformed";
}
