/* check.h: the inside of skv_check, for the check*.c files only. */
#ifndef SKV_CHECK_H
#define SKV_CHECK_H

#include "lock.h"

/* ---- Findings -------------------------------------------------------------------------- */

#define SKV_FINDINGS_KEPT  8u       /* sentences of one bucket, page or row; all are counted  */
#define SKV_SENTENCE_BYTES 200u

typedef struct skv_finding {
    const char *invariant;
    char sentence[SKV_SENTENCE_BYTES];
} skv_finding;

/* What one look at one thing found.  Lies on the stack, so that it can be filled under a lock. */
typedef struct skv_findings {
    uint64_t count;
    skv_finding kept[SKV_FINDINGS_KEPT];
} skv_findings;

__attribute__((format(printf, 3, 4)))
void skv_finding_add(skv_findings *findings, const char *invariant, const char *format, ...);

/* What one look at one thing counted; added to the result when that look is the last one. */
typedef struct skv_tally {
    uint64_t items, tables, records, blocks_used, pages_used;
} skv_tally;

/* ---- Looking ---------------------------------------------------------------------------- */

typedef struct skv_checker {
    skv *store;
    skv_problem report;
    void *context;
    skv_check_result *result;
    uint32_t reported;          /* problems that `report` was called for                      */
    bool     may_lock;          /* this process is registered                                 */
    uint8_t *key;               /* SKV_MAX_KEY bytes, or NULL where there was no memory       */
    uint64_t now_ms;
    uint64_t patience_ns;       /* what is left for waiting behind locks of the living        */
} skv_checker;

enum skv_look {
    SKV_LOOK_LOCKED,            /* nobody changes the thing: all that is found is true        */
    SKV_LOOK_BESIDE,            /* writers may be inside                                      */
};

/* Looks once at thing `number`.  False: it changed meanwhile, look again. */
typedef bool (*skv_inspect)(skv_checker *check, uint64_t number, enum skv_look look, skv_findings *found, skv_tally *tally);

/* Looks at a thing under `lock` (repaired with `repair` if its holder died), or, where that cannot be
 * had (or is NULL), beside writers: then only what is seen three times unchanged counts. */
void skv_check_thing(skv_checker *check, skv_inspect inspect, uint64_t number, _Atomic uint32_t *lock, skv_repair repair, void *guarded);

/* A lock word names a process slot that is in use. */
void skv_check_lock_word(const skv *store, const char *name, uint32_t word, skv_findings *found);

/* ---- Blocks ----------------------------------------------------------------------------- */

typedef struct skv_extent {
    uint32_t family;
    uint64_t bytes;             /* what the block can hold                                    */
} skv_extent;

/* The block that starts at `offset`; NULL, or why there is none that is in use. */
const char *skv_extent_at(const skv *store, uint64_t offset, skv_extent *extent);

bool skv_inspect_bucket(skv_checker *check, uint64_t number, enum skv_look look, skv_findings *found, skv_tally *tally);
bool skv_inspect_page(skv_checker *check, uint64_t number, enum skv_look look, skv_findings *found, skv_tally *tally);

#endif
