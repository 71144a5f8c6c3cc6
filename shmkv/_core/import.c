/* import.c: loads TSV text into a store, without Python (the format: import.h).
 *
 * What: finds lines, checks them, and puts the pairs that they hold.
 * How:  `loader` walks the text once, a group of lines at a time: the cache misses of a group
 *       are in flight together (skv_prefetch_many), then its pairs are put one by one, in order
 *       (skv_put_each).
 *       The counts in `*out` move with each put, so that they always tell what is stored.
 *       Keys and values point into the text, or, where an escape had to be undone, into
 *       `unescaped`: nothing else is copied before the engine does.
 *
 *       Not skv_put_many: a process has one batch in flight, so that the threads of an import
 *       would take turns; and whoever loads a file has no use for "512 lines or none".
 *
 * Concurrency: no shared state but the store's own.  No lock is held between two puts.
 */
#include "import.h"

#include <stdlib.h>
#include <string.h>

#include "atomics.h"
#include "read.h"

/* As many as read.c has in flight for get_many: more, and the first are out of the cache again. */
#define GROUP_LINES 32u

typedef struct parsed {
    skv_item       item;
    const uint8_t *start, *after;   /* of its line, and of the line behind it                 */
    uint64_t       lines;           /* of the group up to it, empty ones and itself included  */
} parsed;

typedef struct loader {
    skv           *store;
    const uint8_t *text;            /* all of it                                              */
    const uint8_t *at;              /* start of the next line                                 */
    const uint8_t *end;             /* after the last LF                                      */
    const uint8_t *backslash;       /* the first one at or after `at`, or `end`               */
    uint8_t       *unescaped;       /* as long as the text (undoing only shrinks it), or NULL */
    size_t         unescaped_used;
    uint64_t       first_line;
    uint64_t       ttl_ms, expires_ms;
    bool           skip;            /* malformed lines                                        */
    parsed         group[GROUP_LINES];
    uint32_t       count;           /* pairs in `group`                                       */
    uint64_t       lines;           /* read for this group, empty ones too                    */
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

/* ---- A group of lines ------------------------------------------------------------------ */

static void advance(loader *l, const uint8_t *next_line)
{
    l->at = next_line;
    if (skv_unlikely(l->backslash < next_line))
        l->backslash = find(next_line, l->end, '\\');
}

/* Reads lines until the group is full, the text ends, or the line at `l->at` is malformed. */
static enum skv_bad_line read_group(loader *l)
{
    l->count = 0;
    l->lines = 0;
    l->unescaped_used = 0;
    l->expires_ms = l->ttl_ms ? skv_now_ms(l->store) + l->ttl_ms : 0;
    while (l->at < l->end && l->lines < GROUP_LINES) {
        const uint8_t *newline = find(l->at, l->end, '\n');
        const uint8_t *stop = newline > l->at && newline[-1] == '\r' ? newline - 1 : newline;
        if (stop > l->at) {
            enum skv_bad_line bad = parse_line(l, stop, &l->group[l->count].item);
            if (skv_unlikely(bad))
                return bad;
            l->group[l->count].start = l->at;
            l->group[l->count].after = newline + 1;
            l->group[l->count].lines = l->lines + 1;
            l->count++;
        }
        l->lines++;
        advance(l, newline + 1);
    }
    return SKV_LINE_OK;
}

/* ---- Counts that tell what is stored --------------------------------------------------- */

/* A malformed line, the next one by `out->lines`: noted, and passed over or stopped at. */
static void refuse(const loader *l, enum skv_bad_line reason, const uint8_t *after, skv_load_result *out)
{
    out->bad[out->bad_count].line = l->first_line + out->lines;
    out->bad[out->bad_count].reason = (uint32_t)reason;
    out->bad_count++;
    if (l->skip) {
        out->lines++;
        out->consumed = (uint64_t)(after - l->text);
    } else {
        out->stopped = true;
    }
}

static bool must_end(const skv_load_result *out)
{
    return out->stopped || out->bad_count == SKV_BAD_LINES;
}

/* Puts pairs of the group from the n-th on, up to one that fails; the count tells what is stored. */
static skv_status store_from(loader *l, uint32_t n, uint64_t lines_before, skv_wait *wait, skv_load_result *out)
{
    skv_item *items[GROUP_LINES];
    skv_key keys[GROUP_LINES];
    uint32_t count = l->count - n, done;
    for (uint32_t i = 0; i < count; i++) {
        items[i] = &l->group[n + i].item;
        keys[i] = items[i]->key;
    }
    skv_prefetch_many(l->store, keys, count);
    skv_status status = skv_put_each(l->store, items, count, wait, &done);
    if (done) {
        const parsed *last = &l->group[n + done - 1];
        out->stored += done;
        out->lines = lines_before + last->lines;
        out->consumed = (uint64_t)(last->after - l->text);
    }
    return status;
}

/* Puts the pairs of the group.  A value too large for this store makes its line malformed. */
static skv_status store_group(loader *l, skv_wait *wait, skv_load_result *out)
{
    const uint64_t lines_before = out->lines, stored_before = out->stored;
    uint32_t refused = 0;
    while (out->stored - stored_before + refused < l->count && !must_end(out)) {
        uint32_t next = (uint32_t)(out->stored - stored_before) + refused;
        skv_status status = store_from(l, next, lines_before, wait, out);
        if (status && status != SKV_TOO_LARGE)
            return status;
        if (status) {
            const parsed *p = &l->group[(uint32_t)(out->stored - stored_before) + refused++];
            out->lines = lines_before + p->lines - 1;
            out->consumed = (uint64_t)(p->start - l->text);
            refuse(l, SKV_LINE_VALUE_TOO_LARGE, p->after, out);
        }
    }
    if (!must_end(out)) {           /* empty lines behind the last pair                       */
        out->lines = lines_before + l->lines;
        out->consumed = (uint64_t)(l->at - l->text);
    }
    return SKV_OK;
}

/* Reads and stores one group, and deals with the malformed line that ended it. */
static skv_status load_group(loader *l, skv_wait *wait, skv_load_result *out)
{
    enum skv_bad_line bad = read_group(l);
    skv_status status = store_group(l, wait, out);
    if (status || !bad || must_end(out))
        return status;
    const uint8_t *after = find(l->at, l->end, '\n') + 1;
    refuse(l, bad, after, out);
    advance(l, after);
    return SKV_OK;
}

skv_status skv_load_tsv(skv *store, const uint8_t *text, size_t len, int on_bad, uint64_t first_line,
                        uint64_t ttl_ms, skv_wait *wait, skv_load_result *out)
{
    memset(out, 0, sizeof *out);
    while (len && text[len - 1] != '\n')
        len--;
    loader l;
    l.store = store;
    l.text = l.at = text;
    l.end = text + len;
    l.backslash = find(text, l.end, '\\');
    l.unescaped = l.backslash < l.end ? malloc(len) : NULL;
    l.first_line = first_line;
    l.ttl_ms = ttl_ms;
    l.skip = on_bad != 0;
    skv_status status = l.unescaped || l.backslash == l.end ? SKV_OK : SKV_NO_MEMORY;
    while (!status && l.at < l.end && !must_end(out))
        status = load_group(&l, wait, out);
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
