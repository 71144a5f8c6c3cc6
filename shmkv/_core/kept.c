/* kept.c: see kept.h. */
#include "kept.h"

#include "lease.h"
#include "pages.h"
#include "procs.h"
#include "spare.h"

static void return_spare(skv *store, skv_proc *proc)
{
    uint32_t busy = skv_busy_enter(store, true);
    skv_spare_free(store, proc);
    skv_busy_exit(store, busy);
}

void skv_kept_return(skv *store)
{
    if (!skv_is_registered(store))
        return;
    return_spare(store, store->proc);
    skv_leases_return(store);
}

/* ---- Of the dead ------------------------------------------------------------------------- */

/* The slot that leases the page, or SKV_NO_PROC. */
static uint32_t leased_by(const skv *store, uint32_t page)
{
    uint64_t word = skv_load(&store->pages[page].word);
    bool leased = skv_pw_state(word) == SKV_PAGE_BLOCKS && !skv_pw_evacuating(word) && skv_pw_class(word) < SKV_CLASSES;
    uint32_t owner = leased ? skv_pw_owner(word) : 0;
    return owner == 0 || owner > SKV_PROCS ? SKV_NO_PROC : owner - 1;
}

#define WORDS ((SKV_PROCS + 63) / 64)

/* One bit for each slot that has a lease. */
static void find_leasers(const skv *store, uint64_t leasers[WORDS])
{
    uint32_t end = skv_committed_pages(store);
    if (skv_load(&store->header->leased_pages) == 0)
        return;
    for (uint32_t page = skv_find_kind(store, SKV_KIND_TAKEN, 0, end); page < end;
         page = skv_find_kind(store, SKV_KIND_TAKEN, page + 1, end)) {
        uint32_t slot = leased_by(store, page);
        if (slot != SKV_NO_PROC)
            leasers[slot / 64] |= UINT64_C(1) << (slot % 64);
    }
}

static void return_leases_of(skv *store, uint32_t slot)
{
    uint32_t end = skv_committed_pages(store);
    for (uint32_t page = skv_find_kind(store, SKV_KIND_TAKEN, 0, end); page < end;
         page = skv_find_kind(store, SKV_KIND_TAKEN, page + 1, end)) {
        uint32_t cls = skv_pw_class(skv_load(&store->pages[page].word));
        if (leased_by(store, page) != slot)
            continue;
        skv_page_give_up(store, page);
        SKV_CRASH("kept.disowned");
        skv_wait now = {.block = false};
        if (cls < SKV_CLASSES && skv_page_is_empty(store, page, cls))
            skv_page_release_if_empty(store, page, false, &now);
    }
}

static bool return_of(skv *store, uint32_t slot)
{
    skv_proc *proc = &store->procs[slot];
    if (slot == skv_load(&store->slot) || !store->os.claim_dead(store->os.context, slot))
        return false;
    /* A row that was swept meanwhile keeps nothing. */
    bool dead = skv_load_acquire(&proc->state) == SKV_PROC_USED;
    if (dead) {
        return_spare(store, proc);
        SKV_CRASH("kept.spare");
        return_leases_of(store, slot);
    }
    store->os.release_dead(store->os.context, slot);
    return dead;
}

bool skv_kept_return_of_dead(skv *store)
{
    uint64_t leasers[WORDS] = {0};
    bool some = false;
    find_leasers(store, leasers);
    for (uint32_t slot = 0; slot < SKV_PROCS; slot++)
        if ((leasers[slot / 64] >> (slot % 64) & 1) || skv_load(&store->procs[slot].spare))
            some |= return_of(store, slot);
    return some;
}
