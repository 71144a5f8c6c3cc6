/* compact.c: audit and compaction.  O(n), on request: compact(), or a full store after a death.
 *
 * Audit: a process killed between allocation and publication leaves blocks that nothing names.  From
 *       outside they look like the blocks of an operation in flight, so:
 *       1 close a batch of pages (nobody allocates in them any more);
 *       2 grace period: every operation that may have allocated there before has ended;
 *       3 walk all slots, table words and intents, and note what they name;
 *       4 grace period: whoever took a name away before the walk has freed its block by now;
 *       5 what is still in use and was not named is a leak: free it.  (After McKenney's RCU.)
 *       Runs take part by their generation instead of a closed page.
 * Compaction: per class, the fullest pages that hold all blocks are kept, the others are closed and
 *       their blocks moved into the gaps; then runs move down; then, if no other process is attached, free
 *       pages go back to the system.
 *
 * Concurrency: one at a time (compact_lock).  Others read and write meanwhile; what they allocate goes
 *       to pages that are not closed.
 */
#include "compact.h"

#include <stdlib.h>

#include "alloc.h"
#include "evacuate.h"
#include "grow.h"
#include "intent.h"
#include "lease.h"
#include "lock.h"
#include "procs.h"
#include "repair.h"
#include "runs.h"
#include "shrink.h"
#include "spare.h"
#include "sweep.h"

#define GRACE_MS      1000u
#define BATCH_PART    8u        /* an eighth of the pages is closed at a time                 */
#define BATCH_LEAST   4u

/* ---- What is named ---------------------------------------------------------------------- */

static void note_name(const skv *store, skv_names *names, uint64_t offset)
{
    uint64_t unit = (offset - store->pages_offset) / SKV_UNIT;
    if (offset >= store->pages_offset && unit < names->units)
        names->bits[unit / 64] |= UINT64_C(1) << (unit % 64);
}

bool skv_is_named(const skv *store, const skv_names *names, uint64_t offset)
{
    uint64_t unit = (offset - store->pages_offset) / SKV_UNIT;
    return unit < names->units && (names->bits[unit / 64] >> (unit % 64) & 1);
}

/* Both the slots and the intent of a bucket count: what either names is in use. */
static void note_intent(const skv *store, skv_names *names, uint64_t txn)
{
    skv_intent head;
    note_name(store, names, txn);
    if (txn % SKV_UNIT || !skv_in_pages(store, txn, sizeof head))
        return;                 /* a removal's, in a row; or, damaged, none at all            */
    const skv_intent *intent = (const skv_intent *)(const void *)(store->base + txn);
    skv_copy_racy(&head, intent, sizeof head);
    if (!skv_in_pages(store, txn, skv_intent_size(head.count)))
        return;
    for (uint32_t i = 0; i < head.count; i++) {
        skv_intent_entry entry;
        skv_copy_racy(&entry, &intent->entries[i], sizeof entry);
        note_name(store, names, skv_slot_offset(entry.new_a));
        note_name(store, names, skv_slot_offset(entry.old_a));
    }
}

/* Not one instant, and need not be: a name that comes later belongs to a block that was allocated
 * after the pages were closed. But a slot must not be missed while its item moves between
 * tables, so a bucket whose table changed under the walk is walked again. */
static bool note_bucket(const skv *store, skv_names *names, const skv_bucket *bucket)
{
    for (uint32_t tries = 0; tries < 10000; tries++) {
        uint64_t rebuilds = skv_load_acquire(&bucket->rebuilds);
        uint64_t table = skv_load_acquire(&bucket->table), txn = skv_load_acquire(&bucket->txn);
        const skv_slot *slots = skv_slots(store, table);
        if (slots)
            note_name(store, names, skv_table_offset(table));
        for (uint64_t i = 0; slots && i < skv_table_capacity(table); i++) {
            uint64_t a = skv_load_acquire(&slots[i].a);
            if (skv_slot_is_live(a))
                note_name(store, names, skv_slot_offset(a));
        }
        if (txn)
            note_intent(store, names, txn);
        skv_fence_acquire();
        if (skv_load_acquire(&bucket->rebuilds) == rebuilds && skv_load_acquire(&bucket->table) == table
            && skv_load_acquire(&bucket->txn) == txn)
            return true;
    }
    return false;
}

bool skv_names_collect(skv *store, skv_names *names)
{
    names->units = ((uint64_t)skv_committed_pages(store) << SKV_PAGE_SHIFT) / SKV_UNIT;
    names->bits = calloc(names->units / 64 + 1, sizeof *names->bits);
    if (!names->bits)
        return false;
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++)
        note_name(store, names, skv_load_acquire(&store->procs[slot].spare));
    for (uint64_t i = 0; i < store->bucket_count; i++)
        if (!note_bucket(store, names, &store->buckets[i]))
            return false;       /* what is missing here would be freed: better no audit at all */
    return true;
}

/* ---- Audit -------------------------------------------------------------------------------- */

typedef struct suspects {
    skv *store;
    const skv_names *names;
    uint64_t *offsets;
    size_t count, room;
    bool failed;
} suspects;

static bool note_suspect(void *context, uint64_t offset, uint32_t size)
{
    suspects *found = context;
    (void)size;
    if (skv_is_named(found->store, found->names, offset))
        return true;
    if (found->count == found->room) {
        size_t room = found->room * 2 + 64;
        uint64_t *more = realloc(found->offsets, room * sizeof *more);
        if (!more) {
            found->failed = true;
            return false;
        }
        found->offsets = more;
        found->room = room;
    }
    found->offsets[found->count++] = offset;
    return true;
}

typedef struct audit_run {
    uint32_t page;
    uint64_t word, generation;
} audit_run;

typedef struct audit {
    skv *store;
    skv_wait *wait;
    uint32_t *pages;            /* closed                                                     */
    uint32_t page_count, next;
    audit_run *runs;
    uint32_t run_count;
    uint64_t freed;
} audit;

static void close_batch(audit *a, uint32_t end)
{
    uint32_t most = end / BATCH_PART < BATCH_LEAST ? BATCH_LEAST : end / BATCH_PART;
    a->page_count = a->run_count = 0;
    for (; a->next < end && a->page_count + a->run_count < most; a->next++) {
        uint64_t word = skv_load(&a->store->pages[a->next].word);
        if (skv_pw_state(word) == SKV_PAGE_RUN)
            a->runs[a->run_count++] = (audit_run){a->next, word, skv_load(&a->store->pages[a->next].generation)};
        else if (skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_page_close(a->store, a->next, a->wait))
            a->pages[a->page_count++] = a->next;
    }
}

static void reopen_batch(audit *a)
{
    for (uint32_t i = 0; i < a->page_count; i++)
        if (!skv_page_release_if_empty(a->store, a->pages[i], true, a->wait))
            skv_page_reopen(a->store, a->pages[i]);
}

static void free_leaked_blocks(audit *a, const suspects *found)
{
    for (size_t i = 0; i < found->count; i++) {
        if (!skv_block_in_use(a->store, found->offsets[i]))
            continue;           /* its operation was still in flight at the walk              */
        skv_free(a->store, found->offsets[i]);
        SKV_CRASH("audit.freed");
        a->freed++;
    }
}

static void free_leaked_runs(audit *a, const skv_names *names)
{
    for (uint32_t i = 0; i < a->run_count; i++) {
        const audit_run *run = &a->runs[i];
        uint64_t offset = skv_page_start(a->store, run->page);
        if (skv_is_named(a->store, names, offset) || skv_load(&a->store->pages[run->page].word) != run->word
            || skv_load(&a->store->pages[run->page].generation) != run->generation)
            continue;
        skv_free(a->store, offset);
        a->freed++;
    }
}

static skv_status audit_batch(audit *a)
{
    skv *store = a->store;
    skv_names names = {0};
    suspects found = {.store = store, .names = &names};
    skv_status status = SKV_TIMEOUT;
    if (skv_grace_period(store, GRACE_MS)) {
        status = skv_names_collect(store, &names) ? SKV_OK : SKV_NO_MEMORY;
        for (uint32_t i = 0; status == SKV_OK && i < a->page_count; i++) {
            uint64_t word = skv_load(&store->pages[a->pages[i]].word);
            skv_page_walk(store, a->pages[i], skv_pw_class(word), note_suspect, &found);
        }
        if (found.failed)
            status = SKV_NO_MEMORY;
        else if (status == SKV_OK && (found.count || a->run_count))
            status = skv_grace_period(store, GRACE_MS) ? SKV_OK : SKV_TIMEOUT;
    }
    if (status == SKV_OK) {
        free_leaked_blocks(a, &found);
        free_leaked_runs(a, &names);
    }
    free(found.offsets);
    free(names.bits);
    return status;
}

static skv_status audit_all(skv *store, uint64_t *freed, skv_wait *wait)
{
    uint32_t end = skv_committed_pages(store), deaths = skv_load(&store->header->deaths);
    audit a = {.store = store, .wait = wait};
    a.pages = malloc((end + 1) * sizeof *a.pages);
    a.runs = malloc((end + 1) * sizeof *a.runs);
    skv_status status = a.pages && a.runs ? SKV_OK : SKV_NO_MEMORY;
    /* From the first grace period on nobody moves a spare block (spare.h): rows may be read at any time. */
    atomic_store_explicit(&store->header->auditing, 1, memory_order_seq_cst);
    while (status == SKV_OK && a.next < end) {
        close_batch(&a, end);
        SKV_CRASH("audit.closed");
        status = audit_batch(&a);
        reopen_batch(&a);
    }
    skv_store_release(&store->header->auditing, 0);
    if (status == SKV_OK)
        skv_store(&store->header->audited_deaths, deaths);
    free(a.pages);
    free(a.runs);
    *freed = a.freed;
    return status;
}

static skv_status lock_compaction(skv *store, skv_wait *wait)
{
    skv_status status = store->read_only ? SKV_READ_ONLY : skv_register(store);
    if (status == SKV_OK && !wait->block)
        status = SKV_BUSY;
    return status ? status : skv_lock(store, &store->header->compact_lock, wait, skv_repair_compaction, NULL);
}

skv_status skv_audit(skv *store, uint64_t *freed, skv_wait *wait)
{
    *freed = 0;
    skv_status status = lock_compaction(store, wait);
    if (status)
        return status;
    status = audit_all(store, freed, wait);
    skv_unlock(store, &store->header->compact_lock);
    return status;
}

/* ---- Compaction ------------------------------------------------------------------------------ */

typedef struct fill {
    uint32_t page, used;
} fill;

static int fullest_first(const void *a, const void *b)
{
    const fill *x = a, *y = b;
    return x->used != y->used ? (x->used < y->used) - (x->used > y->used) : (x->page > y->page) - (x->page < y->page);
}

/* Moves the blocks of all pages but the fullest that are needed. */
static void gather_class(skv *store, uint32_t family, uint32_t cls, fill *pages, skv_compact_report *report, skv_wait *wait)
{
    uint32_t end = skv_committed_pages(store), count = 0;
    uint64_t total = 0, blocks = skv_class_blocks(cls);
    for (uint32_t page = 0; page < end; page++) {
        uint64_t word = skv_load(&store->pages[page].word);
        if (skv_pw_state(word) != SKV_PAGE_BLOCKS || skv_pw_owner(word) || skv_pw_family(word) != family || skv_pw_class(word) != cls)
            continue;
        pages[count] = (fill){page, skv_page_used(store, page, cls)};
        total += pages[count++].used;
    }
    qsort(pages, count, sizeof *pages, fullest_first);
    uint64_t keep = (total + blocks - 1) / blocks;
    /* Units do not pack without gaps: leave a page more, and what does not fit stays. */
    keep += cls == SKV_UNIT_CLASS && keep < count;
    /* All of them first, or blocks would be moved into pages that are emptied next. */
    for (uint32_t i = (uint32_t)keep; i < count; i++)
        if (!skv_page_close(store, pages[i].page, wait))
            pages[i].page = UINT32_MAX;
    for (uint32_t i = count; i-- > keep;) {
        skv_evacuation result = {0};
        if (pages[i].page == UINT32_MAX)
            continue;
        report->pages_freed += skv_evacuate_closed_page(store, pages[i].page, SKV_INTO_GAPS, &result, wait);
        report->moved += result.moved;
    }
}

static void gather_blocks(skv *store, skv_compact_report *report, skv_wait *wait)
{
    fill *pages = malloc((skv_committed_pages(store) + 1u) * sizeof *pages);
    if (!pages)
        return;
    for (uint32_t family = 0; family < SKV_FAMILIES; family++)
        for (uint32_t cls = 0; cls < SKV_CLASSES; cls++) {
            gather_class(store, family, cls, pages, report, wait);
            skv_leases_return(store);           /* the page that was being filled              */
        }
    free(pages);
}

/* From the top down, each run into the lowest gap that takes it. */
static void lower_runs(skv *store, skv_compact_report *report, skv_wait *wait)
{
    for (uint32_t page = skv_committed_pages(store); page-- > 0;) {
        uint64_t word = skv_load(&store->pages[page].word);
        if (skv_pw_state(word) != SKV_PAGE_RUN || skv_pw_family(word) != SKV_RECORDS)
            continue;
        uint64_t size = (uint64_t)skv_pw_run(word) << SKV_PAGE_SHIFT;
        if (!skv_gap_below(store, page, skv_pw_run(word)))
            continue;
        if (skv_move_block(store, SKV_RECORDS, skv_page_start(store, page), size, SKV_INTO_GAPS, wait) == SKV_MOVED)
            report->moved++;
    }
}

/* Where growth had no time for huge pages.  Ranges in which memory was given back stay as they are: a
 * huge page would take it again. */
static void gather_huge_pages(skv *store)
{
    const uint32_t pages = (uint32_t)(SKV_HUGE_PAGE >> SKV_PAGE_SHIFT), end = skv_committed_pages(store);
    uint64_t first = (store->pages_offset + SKV_HUGE_PAGE - 1) & ~(SKV_HUGE_PAGE - 1);
    if (store->size < SKV_HUGE_FROM || !store->os.gather)
        return;
    for (uint32_t page = skv_page_of(store, first); page + pages <= end; page += pages) {
        uint32_t punched = 0;
        for (uint32_t i = 0; i < pages; i++)
            punched += skv_pw_state(skv_load(&store->pages[page + i].word)) == SKV_PAGE_PUNCHED;
        if (!punched)
            store->os.gather(store->os.context, skv_page_start(store, page), SKV_HUGE_PAGE);
    }
}

/* Whoever attaches later meets no name that leads into such a page. */
static void give_back(skv *store, skv_compact_report *report, skv_wait *wait)
{
    if (!store->os.acquire_alone(store->os.context))
        return;
    report->bytes_to_return = (uint64_t)skv_mark_free_pages(store, wait) << SKV_PAGE_SHIFT;
    store->os.release_alone(store->os.context);
}

static void free_spares(skv *store)
{
    uint32_t busy = skv_busy_enter(store, true);
    skv_spares_free(store);
    skv_busy_exit(store, busy);
}

static skv_status compact_locked(skv *store, skv_compact_report *report, skv_wait *wait)
{
    skv_reclaim_dead(store, &report->slots_reclaimed);
    skv_status status = skv_sweep_expired(store, store->bucket_count, &report->expired, wait);
    if (status)
        return status;
    skv_leases_return(store);
    status = audit_all(store, &report->leaks, wait);
    /* A stopped process inside an operation makes the audit wait in vain; the rest needs none. */
    if (status && status != SKV_TIMEOUT)
        return status;
    skv_shrink_tables(store, 0, store->bucket_count, NULL, wait);
    skv_leases_return(store);
    free_spares(store);
    gather_blocks(store, report, wait);
    lower_runs(store, report, wait);
    give_back(store, report, wait);
    gather_huge_pages(store);
    return SKV_OK;
}

skv_status skv_compact(skv *store, skv_compact_report *report, skv_wait *wait)
{
    *report = (skv_compact_report){0};
    skv_status status = lock_compaction(store, wait);
    if (status)
        return status;
    status = compact_locked(store, report, wait);
    skv_unlock(store, &store->header->compact_lock);
    return status;
}

skv_status skv_return_memory(skv *store, skv_wait *wait)
{
    skv_status status = store->read_only ? SKV_READ_ONLY : skv_register(store);
    if (status)
        return status;
    return skv_punch_marked_pages(store, wait) ? SKV_OK : SKV_BUSY;
}
