/* gather.c: see gather.h.
 *
 * How:  a survey of a segment of the pages notes, for each class, what is free in its pages and which are the
 *       sparsest.  A page whose blocks fit into the gaps of others can be emptied.  All pages that are to be
 *       emptied are closed first, or the blocks of one would go into the next.
 *
 *       Pages without gaps need no look at their descriptors: their kind says so.
 *
 * Concurrency: any thread, in an operation or not, with no lock held.  What the survey saw may be wrong by the time
 *       that blocks are moved: then a page stays, and the next one is tried.
 */
#include "gather.h"

#include "evacuate.h"

#define SPARSEST       4u       /* pages of each class that one survey finds                  */
#define AT_ONCE        16u      /* pages emptied after one survey                             */
#define MAX_STUCK      32u      /* pages that could not be emptied, before a call gives up    */

/* ---- Survey ------------------------------------------------------------------------------- */

typedef struct sparse_page {
    uint32_t page, used;        /* blocks, or units                                           */
} sparse_page;

typedef struct class_room {
    uint64_t free;              /* blocks or units, in all open pages of the class            */
    uint32_t pages;             /* open ones, at most half full                               */
    uint32_t gap, gap_page;     /* of units: the longest gap, and where it is                 */
    uint32_t other_gap;         /* the longest one in another page                            */
    uint32_t count;
    sparse_page sparse[SPARSEST];       /* the fewest in use first                            */
} class_room;

typedef struct survey {
    uint64_t free_pages;
    class_room rooms[SKV_FAMILIES][SKV_CLASSES];
} survey;

typedef struct stuck_pages {
    uint32_t count;
    uint32_t pages[MAX_STUCK];
} stuck_pages;

static bool is_stuck(const stuck_pages *stuck, uint32_t page)
{
    for (uint32_t i = 0; i < stuck->count; i++)
        if (stuck->pages[i] == page)
            return true;
    return false;
}

static void note_gap(class_room *room, uint32_t page, uint32_t gap)
{
    if (gap > room->gap) {
        room->other_gap = room->gap;
        room->gap = gap;
        room->gap_page = page;
    } else if (gap > room->other_gap) {
        room->other_gap = gap;
    }
}

static void note_sparse(class_room *room, sparse_page seen)
{
    uint32_t at = room->count < SPARSEST ? room->count++ : SPARSEST;
    for (; at > 0 && seen.used < room->sparse[at - 1].used; at--)
        if (at < SPARSEST)
            room->sparse[at] = room->sparse[at - 1];
    if (at < SPARSEST)
        room->sparse[at] = seen;
}

static void survey_page(const skv *store, survey *found, uint32_t page, uint64_t word)
{
    class_room *room = &found->rooms[skv_pw_family(word)][skv_pw_class(word)];
    uint32_t cls = skv_pw_class(word), used = skv_page_used(store, page, cls);
    room->free += skv_class_blocks(cls) - used;
    room->pages += used * 2 <= skv_class_blocks(cls);
    if (cls == SKV_UNIT_CLASS)
        note_gap(room, page, skv_longest_gap(skv_load(&store->pages[page].bitmap[0])));
    note_sparse(room, (sparse_page){page, used});
}

static void make_survey(const skv *store, uint32_t low, uint32_t high, const stuck_pages *stuck, survey *found)
{
    memset(found, 0, sizeof *found);
    for (uint32_t page = low; page < high; page++) {
        uint8_t kind = skv_load(&store->kinds[page]);
        found->free_pages += kind == SKV_KIND_FREE;
        if (kind < SKV_KIND_ROOM)
            continue;
        uint64_t word = skv_load(&store->pages[page].word);
        if (skv_pw_is_open(word) && !is_stuck(stuck, page))
            survey_page(store, found, page, word);
    }
}

static uint64_t block_bytes(uint32_t cls)
{
    return cls == SKV_UNIT_CLASS ? 1u << SKV_UNIT_SHIFT : skv_class_size(cls);
}

/* Blocks of units that fill more than half a page do not share one: their gaps make no page free. */
static uint64_t pages_to_gain(const class_room *room, uint32_t cls)
{
    uint64_t gain = room->free / skv_class_blocks(cls);
    return cls == SKV_UNIT_CLASS && gain > room->pages ? room->pages : gain;
}

skv_slack skv_find_slack(const skv *store, uint32_t low, uint32_t high)
{
    const stuck_pages none = {0};
    survey found;
    make_survey(store, low, high, &none, &found);
    skv_slack slack = {found.free_pages << SKV_PAGE_SHIFT, found.free_pages};
    for (uint32_t family = 0; family < SKV_FAMILIES; family++) {
        for (uint32_t cls = 0; cls < SKV_CLASSES; cls++) {
            const class_room *room = &found.rooms[family][cls];
            slack.bytes += room->free * block_bytes(cls);
            slack.pages += pages_to_gain(room, cls);
        }
    }
    return slack;
}

/* ---- Plan --------------------------------------------------------------------------------- */

typedef struct plan {
    uint32_t most, count;
    struct { uint32_t page; uint64_t cost; } steps[AT_ONCE];    /* the cheapest first         */
} plan;

static uint32_t longest_block(const skv *store, uint32_t page)
{
    const skv_page *desc = &store->pages[page];
    uint64_t word = skv_load(&desc->bitmap[0]);
    uint32_t longest = 0;
    for (uint32_t i = 0, n; i < SKV_PAGE_UNITS; i += n) {
        n = word >> i & 1 ? skv_unit_length(desc, i) : 1;
        if ((word >> i & 1) && n > longest)
            longest = n;
    }
    return longest;
}

static bool has_gaps_for(const skv *store, const class_room *room, uint32_t cls, uint32_t page)
{
    return cls != SKV_UNIT_CLASS
           || longest_block(store, page) <= (room->gap_page == page ? room->other_gap : room->gap);
}

static void add_step(plan *plan, uint32_t page, uint64_t cost)
{
    uint32_t at = plan->count < plan->most ? plan->count++ : plan->most;
    for (; at > 0 && cost < plan->steps[at - 1].cost; at--)
        if (at < plan->most)
            plan->steps[at] = plan->steps[at - 1];
    if (at < plan->most) {
        plan->steps[at].page = page;
        plan->steps[at].cost = cost;
    }
}

/* As many of the class's sparsest pages as the gaps of its others take. */
static void plan_class(const skv *store, const class_room *room, uint32_t cls, plan *plan)
{
    uint64_t used = 0, gone = 0;
    for (uint32_t i = 0; i < room->count; i++) {
        const sparse_page *sparse = &room->sparse[i];
        used += sparse->used;
        gone += skv_class_blocks(cls) - sparse->used;
        if (gone > room->free || used > room->free - gone)
            return;
        if (has_gaps_for(store, room, cls, sparse->page))
            add_step(plan, sparse->page, sparse->used * block_bytes(cls));
    }
}

static void make_plan(const skv *store, const survey *found, plan *plan)
{
    plan->count = 0;
    for (uint32_t family = 0; family < SKV_FAMILIES; family++)
        for (uint32_t cls = 0; cls < SKV_CLASSES; cls++)
            plan_class(store, &found->rooms[family][cls], cls, plan);
}

bool skv_sparsest_page(const skv *store, uint32_t *page)
{
    const stuck_pages none = {0};
    survey found;
    plan plan = {.most = 1};
    make_survey(store, 0, skv_committed_pages(store), &none, &found);
    make_plan(store, &found, &plan);
    if (plan.count)
        *page = plan.steps[0].page;
    return plan.count;
}

/* ---- Carried out ---------------------------------------------------------------------------- */

static uint32_t carry_out(skv *store, const plan *plan, stuck_pages *stuck, skv_wait *wait)
{
    uint32_t freed = 0;
    bool closed[AT_ONCE];
    for (uint32_t i = 0; i < plan->count; i++)
        closed[i] = skv_page_close(store, plan->steps[i].page, wait);
    for (uint32_t i = 0; i < plan->count; i++) {
        skv_evacuation result = {0};
        if (closed[i] && skv_evacuate_closed_page(store, plan->steps[i].page, SKV_INTO_GAPS, &result, wait))
            freed++;
        else if (stuck->count < MAX_STUCK)
            stuck->pages[stuck->count++] = plan->steps[i].page;
    }
    return freed;
}

static uint32_t gather_segment(skv *store, uint32_t low, uint32_t high, uint32_t most, stuck_pages *stuck, skv_wait *wait)
{
    uint32_t freed = 0;
    while (freed == 0 && stuck->count < MAX_STUCK) {
        survey found;
        plan plan = {.most = most < AT_ONCE ? most : AT_ONCE};
        make_survey(store, low, high, stuck, &found);
        make_plan(store, &found, &plan);
        if (plan.count == 0)
            return 0;
        freed = carry_out(store, &plan, stuck, wait);
    }
    return freed;
}

typedef struct segment {
    uint32_t low, high;
} segment;

static segment next_segment(skv *store)
{
    uint32_t end = skv_committed_pages(store), segments = end / SKV_SEGMENT_PAGES + 1;
    uint32_t low = skv_load(&store->gather_hand) % segments * SKV_SEGMENT_PAGES;
    return (segment){low, end - low > SKV_SEGMENT_PAGES ? low + SKV_SEGMENT_PAGES : end};
}

static void leave_segment(skv *store)
{
    atomic_fetch_add_explicit(&store->gather_hand, 1, memory_order_relaxed);
}

uint32_t skv_gather(skv *store, uint32_t most, skv_wait *wait)
{
    uint32_t segments = skv_committed_pages(store) / SKV_SEGMENT_PAGES + 1;
    stuck_pages stuck = {0};
    for (uint32_t i = 0; i < segments; i++) {
        segment s = next_segment(store);
        uint32_t freed = gather_segment(store, s.low, s.high, most, &stuck, wait);
        if (freed)
            return freed;
        leave_segment(store);
    }
    return 0;
}

uint32_t skv_gather_where_worth(skv *store, uint32_t most, skv_wait *wait)
{
    stuck_pages stuck = {0};
    segment s = next_segment(store);
    uint32_t freed = 0;
    if (skv_find_slack(store, s.low, s.high).pages > (s.high - s.low) / SKV_WORTH_PART)
        freed = gather_segment(store, s.low, s.high, most, &stuck, wait);
    if (freed == 0)
        leave_segment(store);
    return freed;
}
