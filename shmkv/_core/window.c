/* window.c: see window.h.
 *
 * How:  the window whose pages hold the fewest bytes is closed as a whole: nobody allocates in its pages, and those of
 *       them that are free are hidden.  Then its runs move into gaps outside, and its blocks into gaps of their class
 *       or free pages outside; if there is none, gathering makes one (gather.c), and for a run another, smaller window is
 *       emptied first.  What is hardest to place goes first, so that a window that cannot be emptied costs little.
 *       Then the next best window without the page that stayed is tried.
 *
 *       Killed in between: closed pages are taken from the dead process slot, and kinds derived again (pages.c).
 *
 * Concurrency: any thread, with no lock held.  Others may take a page of the window between the moment when it is empty
 *       and the one when it is hidden, or all of it before the caller does: the caller tries again.
 */
#include "window.h"

#include "evacuate.h"
#include "gather.h"
#include "lease.h"

#define IMPOSSIBLE     UINT64_MAX
#define VISIT_COST     512u     /* bytes: what emptying one more page costs beside its blocks */
#define SLIVER_COST    (SKV_PAGE_SIZE / 8)      /* for each page of a window between whose ends and the next runs others lie */
#define MAX_DEPTH      3u       /* windows inside which others are emptied                    */
#define MAX_TRIES      8u       /* windows that may turn out to be impossible                 */
#define MAX_GATHERED   4u       /* free pages that one page's blocks may need                 */

typedef struct avoided {
    uint32_t count;
    uint32_t pages[MAX_TRIES];
} avoided;

typedef struct window {
    skv *store;
    skv_wait *wait;
    uint32_t start, pages, depth;
    uint32_t closed;            /* pages of it that are closed or hidden, from `start` on     */
} window;

/* ---- Choosing --------------------------------------------------------------------------------- */

/* The head of the run that `page` lies in. */
static uint32_t head_of(const skv *store, uint32_t page)
{
    uint64_t word = skv_load(&store->pages[page].word);
    uint32_t distance = skv_pw_state(word) == SKV_PAGE_TAIL ? skv_pw_run(word) : 0;
    return distance <= page ? page - distance : page;
}

/* A run of the window's length needs as much room elsewhere as it would leave. */
static uint64_t run_cost(const skv *store, uint32_t page, uint32_t pages)
{
    uint64_t word = skv_load(&store->pages[head_of(store, page)].word);
    return skv_pw_state(word) == SKV_PAGE_RUN && skv_pw_run(word) < pages ? SKV_PAGE_SIZE + VISIT_COST : IMPOSSIBLE;
}

static uint64_t blocks_cost(const skv *store, uint32_t page, uint64_t word)
{
    if (skv_load(&store->kinds[page]) == SKV_KIND_FULL)
        return SKV_PAGE_SIZE + VISIT_COST;
    return skv_page_used_bytes(store, page, skv_pw_class(word)) + VISIT_COST;
}

static uint64_t page_cost(const skv *store, uint32_t page, uint32_t pages, const avoided *avoid)
{
    for (uint32_t i = 0; i < avoid->count; i++)
        if (avoid->pages[i] == page)
            return IMPOSSIBLE;
    uint64_t word = skv_load(&store->pages[page].word);
    switch (skv_pw_state(word)) {
    case SKV_PAGE_FREE:         /* hidden: it is in another window                            */
        return skv_load(&store->kinds[page]) == SKV_KIND_TAKEN ? IMPOSSIBLE : 0;
    case SKV_PAGE_RUN:
    case SKV_PAGE_TAIL:
        return run_cost(store, page, pages);
    default:
        return skv_pw_is_open(word) ? blocks_cost(store, page, word) : IMPOSSIBLE;
    }
}

typedef struct sum {
    uint64_t cost;
    uint32_t impossible;
} sum;

static void add_page(sum *sum, uint64_t cost)
{
    if (cost == IMPOSSIBLE)
        sum->impossible++;
    else
        sum->cost += cost;
}

/* Its cost may have changed since it was added. */
static void drop_page(sum *sum, uint64_t cost)
{
    if (cost == IMPOSSIBLE)
        sum->impossible -= sum->impossible > 0;
    else
        sum->cost -= cost < sum->cost ? cost : sum->cost;
}

static bool is_run(const skv *store, uint32_t page)
{
    uint32_t state = skv_pw_state(skv_load(&store->pages[page].word));
    return state == SKV_PAGE_RUN || state == SKV_PAGE_TAIL;
}

/* Runs that begin here and there leave gaps between them that no other run of their length can use, and that nothing but
 * such a run could be moved out of the way of: better side by side, from the ends of the store on. */
static uint64_t sliver_cost(const skv *store, uint32_t start, uint32_t pages)
{
    uint32_t end = start + pages;
    bool joins = start == 0 || end >= skv_committed_pages(store) || is_run(store, start - 1) || is_run(store, end);
    return joins ? 0 : (uint64_t)pages * SLIVER_COST;
}

/* Start of the cheapest window of `pages` pages in low <= page < high, or `high`. */
static uint32_t cheapest_window(const skv *store, uint32_t pages, uint32_t low, uint32_t high, const avoided *avoid)
{
    sum sum = {0};
    uint64_t least = IMPOSSIBLE;
    uint32_t best = high;
    for (uint32_t page = low; page < high; page++) {
        add_page(&sum, page_cost(store, page, pages, avoid));
        if (page - low >= pages)
            drop_page(&sum, page_cost(store, page - pages, pages, avoid));
        if (page - low + 1 < pages || sum.impossible || sum.cost >= least)
            continue;
        uint32_t start = page + 1 - pages;
        uint64_t cost = sum.cost + sliver_cost(store, start, pages);
        best = cost < least ? start : best;
        least = cost < least ? cost : least;
    }
    return best;
}

/* ---- Emptying one ------------------------------------------------------------------------------- */

static bool empty_some_window(skv *store, uint32_t pages, uint32_t depth, skv_wait *wait);

static bool is_mine(const skv *store, uint32_t page)
{
    uint64_t word = skv_load(&store->pages[page].word);
    return skv_pw_state(word) == SKV_PAGE_BLOCKS && skv_pw_evacuating(word) && skv_pw_owner(word) == skv_load(&store->slot) + 1;
}

/* Runs need not be closed: nobody allocates in them. */
static bool close_window(window *w)
{
    for (; w->closed < w->pages; w->closed++) {
        uint32_t page = w->start + w->closed;
        skv_page_hide(w->store, page);
        if (skv_pw_state(skv_load(&w->store->pages[page].word)) == SKV_PAGE_BLOCKS && !skv_page_close(w->store, page, w->wait))
            return false;
    }
    SKV_CRASH("window.closed");
    return true;
}

static void open_window(const window *w)
{
    for (uint32_t page = w->start; page < w->start + w->closed; page++) {
        if (is_mine(w->store, page))
            skv_page_reopen(w->store, page);
        else
            skv_page_refresh_kind(w->store, page);
    }
}

/* What has become free from `page` on. */
static void hide_freed(const window *w, uint32_t page)
{
    for (; page < w->start + w->pages && skv_load(&w->store->kinds[page]) == SKV_KIND_FREE; page++)
        skv_page_hide(w->store, page);
}

static bool move_run(const window *w, uint32_t page)
{
    for (uint32_t tries = 0; tries < 2; tries++) {
        uint32_t head = head_of(w->store, page);
        uint64_t word = skv_load(&w->store->pages[head].word);
        if (skv_pw_state(word) != SKV_PAGE_RUN || skv_pw_run(word) >= w->pages)
            return false;
        enum skv_move moved = skv_move_block(w->store, (enum skv_family)skv_pw_family(word), skv_page_start(w->store, head),
                                             (uint64_t)skv_pw_run(word) << SKV_PAGE_SHIFT, SKV_ANYWHERE, w->wait);
        if (moved != SKV_NO_TARGET)
            return moved == SKV_MOVED;
        if (!empty_some_window(w->store, skv_pw_run(word), w->depth + 1, w->wait))
            return false;
    }
    return false;
}

static bool move_blocks(const window *w, uint32_t page)
{
    for (uint32_t gathered = 0; gathered <= MAX_GATHERED; gathered++) {
        skv_evacuation result = {0};
        if (skv_empty_closed_page(w->store, page, SKV_ANYWHERE, &result, w->wait))
            return true;
        if (result.stuck || !skv_gather(w->store, 1, w->wait))
            return false;
    }
    return false;
}

enum turn { RUNS, UNITS, SMALL_BLOCKS, TURNS };

static enum turn turn_of(const skv *store, uint32_t page)
{
    if (is_run(store, page))
        return RUNS;
    return skv_pw_class(skv_load(&store->pages[page].word)) == SKV_UNIT_CLASS ? UNITS : SMALL_BLOCKS;
}

/* *bad: the page that stays. */
static bool empty_window(window *w, uint32_t *bad)
{
    for (enum turn turn = RUNS; turn < TURNS; turn++) {
        for (uint32_t page = w->start; page < w->start + w->pages; page++) {
            if ((!is_run(w->store, page) && !is_mine(w->store, page)) || turn_of(w->store, page) != turn)
                continue;
            *bad = page;
            if (!(turn == RUNS ? move_run(w, page) : move_blocks(w, page)))
                return false;
            hide_freed(w, page);
            SKV_CRASH("window.page_emptied");
        }
    }
    return true;
}

static bool try_window(skv *store, uint32_t start, uint32_t pages, uint32_t depth, avoided *avoid, skv_wait *wait)
{
    window w = {store, wait, start, pages, depth, 0};
    uint32_t bad = start;
    bool done = close_window(&w);
    if (!done)
        bad = start + w.closed;
    done = done && empty_window(&w, &bad);
    open_window(&w);
    if (!done)
        avoid->pages[avoid->count++] = bad;
    return done;
}

/* ---- Windows of a segment ------------------------------------------------------------------------- */

static bool search_segment(skv *store, uint32_t pages, uint32_t depth, uint32_t low, uint32_t high, skv_wait *wait)
{
    avoided avoid = {0};
    uint32_t tries = MAX_TRIES >> depth;
    while (avoid.count < tries) {
        skv_leases_return(store);       /* no leased page can be closed, and moves take leases */
        uint32_t start = cheapest_window(store, pages, low, high, &avoid);
        if (start >= high)
            return false;
        if (try_window(store, start, pages, depth, &avoid, wait))
            return true;
    }
    return false;
}

typedef struct segment {
    uint32_t low, high, count;  /* and how many segments there are                            */
} segment;

static segment next_segment(const skv *store, uint32_t pages)
{
    uint64_t end = skv_committed_pages(store), step = SKV_SEGMENT_PAGES;
    if (pages > SKV_SEGMENT_PAGES / 8)
        step = (uint64_t)pages * 8;
    uint64_t count = end / step + 1, low = skv_load(&store->window_hand) % count * step;
    return (segment){(uint32_t)low, (uint32_t)(low + step < end ? low + step : end), (uint32_t)count};
}

static void leave_segment(skv *store)
{
    atomic_fetch_add_explicit(&store->window_hand, 1, memory_order_relaxed);
}

/* Without as much that is free, in whatever pieces, no move helps. */
static bool may_have_room(const skv *store, uint32_t pages, uint32_t low, uint32_t high)
{
    return skv_find_slack(store, low, high).bytes >> SKV_PAGE_SHIFT >= pages;
}

static bool empty_some_window(skv *store, uint32_t pages, uint32_t depth, skv_wait *wait)
{
    uint32_t segments = next_segment(store, pages).count, end = skv_committed_pages(store);
    if (depth >= MAX_DEPTH)
        return false;
    for (uint32_t i = 0; i < segments; i++) {
        segment s = next_segment(store, pages);
        if (may_have_room(store, pages, s.low, s.high) && search_segment(store, pages, depth, s.low, s.high, wait))
            return true;
        leave_segment(store);
    }
    /* Each segment alone may have had too little. */
    return segments > 1 && may_have_room(store, pages, 0, end) && search_segment(store, pages, depth, 0, end, wait);
}

bool skv_empty_window(skv *store, uint32_t pages, skv_wait *wait)
{
    return empty_some_window(store, pages, 0, wait);
}

bool skv_empty_window_nearby(skv *store, uint32_t pages, skv_wait *wait)
{
    segment s = next_segment(store, pages);
    if (skv_find_slack(store, s.low, s.high).pages >= pages && search_segment(store, pages, 0, s.low, s.high, wait))
        return true;
    leave_segment(store);
    return false;
}
