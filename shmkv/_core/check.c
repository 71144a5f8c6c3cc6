/* check.c: skv_check: every invariant of docs/concurrency.md, walked.
 *
 * What: header, process table, pages, buckets, then the blocks that nothing names.  Each problem
 *       is reported with its invariant (I1 to I11, or "header") and a sentence.
 * How:  one thing at a time (a row, a page, a bucket).  A writer takes the thing's lock, waiting a
 *       little for it; what is found under it is true.  A read-only handle, or one that waits
 *       behind a stopped process, looks beside writers: the look counts if nothing moved, derived
 *       fields are left alone while a lock is held (I11), and a problem counts once three looks in
 *       a row found the same.  A dead holder is repaired, as any writer would, and is no problem.
 *       Leaked blocks are a number, not a problem: a kill may leave some (I1), compact() frees them.
 *
 *       No global map of records is needed to find one that two slots name (I2): its key has one
 *       bucket and one tag, so a slot elsewhere breaks I1, and two slots of one bucket lie on the
 *       same probe path, where check_buckets.c compares them.
 *
 * Concurrency: any thread, beside any writer.  Under a lock nothing is allocated and `report` is not
 *       called.  Nothing is changed but what a repair puts right.
 */
#include "check.h"
#include "intent.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "compact.h"
#include "pages.h"
#include "procs.h"
#include "repair.h"

#define MAX_REPORTS    100u         /* a broken region would name millions; all are counted   */
#define SAME_LOOKS     3u
#define MAX_LOOKS      100u
#define LOCK_NS        UINT64_C(100000000)      /* for one lock                               */
#define PATIENCE_NS    UINT64_C(2000000000)     /* for all of them: a stopped clear() has every one */
#define UNHURRIED      1000u        /* problems after which tentative ones are no longer waited for */

/* ---- Findings --------------------------------------------------------------------------- */

void skv_finding_add(skv_findings *findings, const char *invariant, const char *format, ...)
{
    if (findings->count < SKV_FINDINGS_KEPT) {
        skv_finding *one = &findings->kept[findings->count];
        va_list args;
        va_start(args, format);
        one->invariant = invariant;
        vsnprintf(one->sentence, sizeof one->sentence, format, args);
        va_end(args);
    }
    findings->count++;
}

static uint64_t kept_count(const skv_findings *findings)
{
    return findings->count < SKV_FINDINGS_KEPT ? findings->count : SKV_FINDINGS_KEPT;
}

static bool same_findings(const skv_findings *a, const skv_findings *b)
{
    if (a->count != b->count)
        return false;
    for (uint64_t i = 0; i < kept_count(a); i++)
        if (strcmp(a->kept[i].sentence, b->kept[i].sentence) != 0)
            return false;
    return true;
}

static void report_all(skv_checker *check, const skv_findings *findings)
{
    for (uint64_t i = 0; check->report && i < kept_count(findings) && check->reported < MAX_REPORTS; i++) {
        check->report(check->context, findings->kept[i].invariant, findings->kept[i].sentence);
        check->reported++;
    }
    check->result->problems += findings->count;
}

static void add_tally(skv_check_result *result, const skv_tally *tally)
{
    result->items += tally->items;
    result->tables += tally->tables;
    result->records += tally->records;
    result->blocks_used += tally->blocks_used;
    result->pages_used += tally->pages_used;
}

/* ---- Looking ------------------------------------------------------------------------------ */

static bool lock_thing(skv_checker *check, _Atomic uint32_t *lock, skv_repair repair, void *guarded)
{
    if (!check->may_lock || !lock)
        return false;
    uint64_t start = skv_monotonic_ns(), most = check->patience_ns < LOCK_NS ? check->patience_ns : LOCK_NS;
    skv_wait wait = {.block = true, .shared = true, .deadline_ns = start + most};
    skv_status status;
    do
        status = skv_lock(check->store, lock, &wait, repair, guarded);
    while (status == SKV_BUSY);
    if (status == SKV_OK)
        return true;
    uint64_t waited = skv_monotonic_ns() - start;
    check->patience_ns -= waited < check->patience_ns ? waited : check->patience_ns;
    return false;
}

/* Nobody wakes this word: it only lasts a millisecond. */
static void nap(const skv_checker *check)
{
    const skv_os *os = &check->store->os;
    _Atomic uint32_t word = 0;
    if (check->result->problems < UNHURRIED)
        os->futex_wait(os->context, &word, 0, 1);
}

/* In a thing that never stands still nothing is known to be wrong: its last counts are as good as any. */
static void look_beside(skv_checker *check, skv_inspect inspect, uint64_t number)
{
    skv_findings before, found = {0};
    skv_tally tally;
    uint32_t same = 0;
    for (uint32_t looks = 0; looks < MAX_LOOKS && same < SAME_LOOKS; looks++) {
        before = found;
        found.count = 0;
        tally = (skv_tally){0};
        if (!inspect(check, number, SKV_LOOK_BESIDE, &found, &tally)) {
            same = 0;
            continue;
        }
        if (found.count == 0)
            break;
        same = same && same_findings(&before, &found) ? same + 1 : 1;
        nap(check);
    }
    add_tally(check->result, &tally);
    if (same == SAME_LOOKS)
        report_all(check, &found);
}

void skv_check_thing(skv_checker *check, skv_inspect inspect, uint64_t number, _Atomic uint32_t *lock, skv_repair repair, void *guarded)
{
    if (!lock_thing(check, lock, repair, guarded)) {
        look_beside(check, inspect, number);
        return;
    }
    skv_findings found;
    skv_tally tally = {0};
    found.count = 0;
    inspect(check, number, SKV_LOOK_LOCKED, &found, &tally);
    skv_unlock(check->store, lock);
    add_tally(check->result, &tally);
    report_all(check, &found);
}

/* ---- Header and process table --------------------------------------------------------------- */

void skv_check_lock_word(const skv *store, const char *name, uint32_t word, skv_findings *found)
{
    uint32_t owner = word & SKV_LOCK_OWNER_MASK;
    if (word == 0)
        return;
    if (owner == 0)
        skv_finding_add(found, "I4", "%s is locked by nobody (word 0x%08" PRIx32 ")", name, word);
    else if (skv_load_acquire(&store->procs[owner - 1].state) != SKV_PROC_USED)
        skv_finding_add(found, "I7", "%s is locked by process slot %" PRIu32 ", which is free", name, owner - 1);
}

static bool inspect_header(skv_checker *check, uint64_t number, enum skv_look look, skv_findings *found, skv_tally *tally)
{
    const skv *store = check->store;
    const skv_header *header = store->header;
    (void)number, (void)look, (void)tally;
    if (memcmp(&header->fixed, &store->fixed, sizeof store->fixed) != 0)
        skv_finding_add(found, "header", "the header's fixed part is no longer what it was at attach");
    uint32_t state = skv_load_acquire(&header->state);
    if (state != SKV_READY)
        skv_finding_add(found, "header", "the store's state is %" PRIu32 ", not ready (1)", state);
    uint64_t pages = skv_load_acquire(&header->committed_pages);
    if (pages > store->page_count)
        skv_finding_add(found, "I8", "%" PRIu64 " pages are committed, but only %" PRIu32 " fit the region", pages,
                        store->page_count);
    skv_check_lock_word(store, "the page allocator", skv_load_acquire(&header->pages_lock), found);
    skv_check_lock_word(store, "growth", skv_load_acquire(&header->grow_lock), found);
    skv_check_lock_word(store, "compaction", skv_load_acquire(&header->compact_lock), found);
    return true;
}

/* A batch that is pending or committed has an intent, and only a process has a batch (I6).  Whether
 * the intent's block is in use is not asked: of a dead process it may have been freed as a leak. */
static void inspect_batch(const skv *store, uint64_t slot, bool used, skv_findings *found)
{
    const skv_proc *proc = &store->procs[slot];
    uint64_t status = skv_load_acquire(&proc->status), intent = skv_load_acquire(&proc->intent);
    uint64_t state = status & 3;
    if (state > SKV_BATCH_COMMITTED)
        skv_finding_add(found, "I6", "process slot %" PRIu64 " has the batch status %" PRIu64, slot, state);
    else if (!used && (state != SKV_BATCH_IDLE || intent))
        skv_finding_add(found, "I6", "process slot %" PRIu64 " is free, but has a batch in flight", slot);
    else if (state != SKV_BATCH_IDLE && intent != skv_row_intent(store, (uint32_t)slot) && (intent % SKV_UNIT || !skv_in_pages(store, intent, sizeof(skv_intent))))
        skv_finding_add(found, "I6",
                        "process slot %" PRIu64 " has a batch in flight, but its intent (offset %" PRIu64
                        ") lies outside the committed pages", slot, intent);
}

static bool inspect_row(skv_checker *check, uint64_t slot, enum skv_look look, skv_findings *found, skv_tally *tally)
{
    const skv *store = check->store;
    (void)look, (void)tally;
    uint32_t state = skv_load_acquire(&store->procs[slot].state);
    if (state > SKV_PROC_USED)
        skv_finding_add(found, "I7", "process slot %" PRIu64 " has the state %" PRIu32, slot, state);
    else
        inspect_batch(store, slot, state == SKV_PROC_USED, found);
    return true;
}

static bool is_dead(skv *store, uint32_t slot)
{
    if (slot == skv_load(&store->slot) || skv_load_acquire(&store->procs[slot].state) != SKV_PROC_USED
        || !store->os.claim_dead(store->os.context, slot))
        return false;
    store->os.release_dead(store->os.context, slot);
    return true;
}

static void check_rows(skv_checker *check)
{
    skv *store = check->store;
    if (check->may_lock) {      /* locks without a walk of their own: repaired here if need be */
        skv_lock_repair_if_dead(store, &store->header->pages_lock, skv_repair_pages, NULL);
        skv_lock_repair_if_dead(store, &store->header->grow_lock, NULL, NULL);
        skv_lock_repair_if_dead(store, &store->header->compact_lock, skv_repair_compaction, NULL);
    }
    skv_check_thing(check, inspect_header, 0, NULL, NULL, NULL);
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++) {
        skv_check_thing(check, inspect_row, slot, NULL, NULL, NULL);
        check->result->dead_slots += is_dead(store, slot);
    }
}

/* ---- Leaks ---------------------------------------------------------------------------------- */

/* Blocks in use, a bit for each by its first 16 bytes; then those are taken out that a slot, a table
 * word or an intent names, in two walks, because an item may move during one of them. */
typedef struct leaks {
    skv *store;
    skv_names unnamed;
    uint64_t count;
} leaks;

static uint64_t unit_of(const skv *store, uint64_t offset)
{
    return (offset - store->pages_offset) / SKV_UNIT;
}

static bool note_block(void *context, uint64_t offset, uint32_t size)
{
    leaks *all = context;
    uint64_t unit = unit_of(all->store, offset);
    (void)size;
    if (unit < all->unnamed.units)
        all->unnamed.bits[unit / 64] |= UINT64_C(1) << (unit % 64);
    return true;
}

static bool count_unnamed(void *context, uint64_t offset, uint32_t size)
{
    leaks *all = context;
    (void)size;
    all->count += skv_is_named(all->store, &all->unnamed, offset);
    return true;
}

static void visit_blocks(skv *store, skv_block_visit visit, void *context)
{
    for (uint32_t page = 0; page < skv_committed_pages(store); page++) {
        uint64_t word = skv_load_acquire(&store->pages[page].word);
        if (skv_pw_state(word) == SKV_PAGE_RUN)
            visit(context, skv_page_start(store, page), 0);
        else if (skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_class(word) < SKV_CLASSES)
            skv_page_walk(store, page, skv_pw_class(word), visit, context);
    }
}

static bool take_named_out(skv *store, skv_names *unnamed)
{
    skv_names named = {0};
    if (!skv_names_collect(store, &named))
        return false;
    uint64_t units = named.units < unnamed->units ? named.units : unnamed->units;
    for (uint64_t i = 0; i < units / 64 + 1; i++)
        unnamed->bits[i] &= ~named.bits[i];
    free(named.bits);
    return true;
}

/* Without memory for the maps the number stays 0. */
static void count_leaks(skv_checker *check)
{
    skv *store = check->store;
    leaks all = {.store = store};
    all.unnamed.units = ((uint64_t)skv_committed_pages(store) << SKV_PAGE_SHIFT) / SKV_UNIT;
    all.unnamed.bits = calloc(all.unnamed.units / 64 + 1, sizeof *all.unnamed.bits);
    if (!all.unnamed.bits)
        return;
    visit_blocks(store, note_block, &all);
    if (take_named_out(store, &all.unnamed) && take_named_out(store, &all.unnamed))
        visit_blocks(store, count_unnamed, &all);
    check->result->blocks_leaked = all.count;
    free(all.unnamed.bits);
}

/* ---- All of it -------------------------------------------------------------------------------- */

uint64_t skv_check(skv *store, skv_problem report, void *context, skv_check_result *result)
{
    *result = (skv_check_result){0};
    skv_checker check = {.store = store, .report = report, .context = context, .result = result,
                         .may_lock = !store->read_only && skv_register(store) == SKV_OK,
                         .key = malloc(SKV_MAX_KEY), .now_ms = skv_now_ms(store), .patience_ns = PATIENCE_NS};
    check_rows(&check);
    for (uint32_t page = 0; page < skv_committed_pages(store); page++)
        skv_check_thing(&check, skv_inspect_page, page, &store->header->pages_lock, skv_repair_pages, NULL);
    for (uint64_t i = 0; i < store->bucket_count; i++) {
        skv_bucket *bucket = &store->buckets[i];
        skv_check_thing(&check, skv_inspect_bucket, i, &bucket->lock, skv_repair_bucket, bucket);
    }
    count_leaks(&check);
    free(check.key);
    return result->problems;
}
