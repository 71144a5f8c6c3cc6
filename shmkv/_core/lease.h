/* lease.h: blocks of one page, and the page of each class that a process leases.
 *
 * How: a process takes blocks of its leased page with one atomic OR; when nothing is left, it gives the page up
 *      and leases the next one, under pages_lock.  Where leases are used up, a block is taken under that lock.
 */
#ifndef SKV_LEASE_H
#define SKV_LEASE_H

#include "pages.h"

/* Up to `count` blocks of one size without a lock, from the page that this process leases; how many.  No page
 * of units is leased. */
uint32_t skv_alloc_leased(skv *store, enum skv_family family, uint64_t size, uint32_t count, uint64_t *offsets);

/* Which pages a search may take. */
enum skv_search { SKV_SEARCH_ROOMY_OR_FREE, SKV_SEARCH_ANY, SKV_SEARCH_FILL };

/* Finds the next page.  SKV_OK with *offset 0 = a lease was installed, try it; SKV_FULL = no page. */
skv_status skv_refill(skv *store, enum skv_family family, uint64_t size, enum skv_search search, skv_wait *wait, uint64_t *offset);

/* In one given page (the caller owns it); false when it is full. */
bool skv_alloc_in_page(skv *store, uint32_t page, uint32_t cls, uint64_t size, uint32_t *word, uint64_t *offset);

/* Gives this process's leases back. */
void skv_leases_return(skv *store);

#endif
