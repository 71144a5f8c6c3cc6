/* import.h: loads TSV text into a store, without Python.
 *
 * What: whole lines `key TAB value LF` become str items.
 * How:  the text is split in place; only a line with a backslash is copied.  The format, the
 *       same that PostgreSQL's COPY writes for two text columns without NULL:
 *
 *           key TAB value LF        both UTF-8, either may be empty
 *           \t \n \r \\             stand for TAB, LF, CR, backslash; any other use of a
 *                                   backslash is malformed (PostgreSQL would drop it, and
 *                                   so lose a byte of `C:\dir` without a word)
 *           CR LF                   ends a line like LF (a value that ends in CR ends in \r)
 *           an empty line           is passed over (it counts as a line)
 *           a second TAB            is malformed: the file has other columns than these
 *
 * Concurrency: any number of threads may load into one store, each its own text.  Each pair
 * is a put of its own.  Of two lines with one key in one text the later wins; between texts
 * that are loaded at once it is open which.
 */
#ifndef SKV_IMPORT_H
#define SKV_IMPORT_H

#include "store.h"

#define SKV_BAD_LINES 64u       /* noted by one call; it returns when they are full           */

enum skv_bad_line {
    SKV_LINE_OK = 0,
    SKV_LINE_NO_TAB,
    SKV_LINE_MANY_TABS,
    SKV_LINE_ESCAPE,
    SKV_LINE_KEY_TOO_LONG,
    SKV_LINE_KEY_NOT_UTF8,
    SKV_LINE_VALUE_NOT_UTF8,
    SKV_LINE_VALUE_TOO_LARGE,
};

typedef struct skv_load_result {
    uint64_t stored;            /* pairs                                                      */
    uint64_t lines;             /* lines consumed: malformed and empty ones too               */
    uint64_t consumed;          /* bytes; always the end of a line                            */
    uint32_t bad_count;         /* entries of `bad`                                           */
    struct {
        uint64_t line;          /* the text's first line is `first_line`                      */
        uint32_t reason;        /* enum skv_bad_line                                          */
    } bad[SKV_BAD_LINES];
    bool stopped;               /* at a malformed line (the last of `bad`), not consumed      */
} skv_load_result;

/* Stores the whole lines of `text`; what follows the last LF is not looked at.
 *
 * `on_bad`: 0 = at the first malformed line store what came before it and stop (SKV_OK, `stopped`);
 * 1 = skip and note it.  `ttl_ms` 0 = no expiry.  `*out` is filled in every case, and tells what has
 * been stored: after SKV_BUSY (nothing is held) or SKV_OK with `consumed` short of the last LF
 * (`bad` is full) call again with the rest, `text + consumed` and `first_line + lines`. */
skv_status skv_load_tsv(skv *store, const uint8_t *text, size_t len, int on_bad, uint64_t first_line,
                        uint64_t ttl_ms, skv_wait *wait, skv_load_result *out);

/* The reason in words, for messages; never NULL. */
const char *skv_bad_line_words(uint32_t reason);

#endif
