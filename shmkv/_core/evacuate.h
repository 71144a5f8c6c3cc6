/* evacuate.h: moving live blocks away, so that pages become free. */
#ifndef SKV_EVACUATE_H
#define SKV_EVACUATE_H

#include "pages.h"

enum skv_move {
    SKV_MOVED,          /* the block is free now                                              */
    SKV_NOT_NAMED,      /* no slot names it: a leak, or an operation in flight has it         */
    SKV_NO_TARGET,      /* no room elsewhere, or a lock could not be had                      */
};

/* Where blocks go: into gaps of their class's pages, or also into free pages. */
enum skv_manner { SKV_INTO_GAPS, SKV_ANYWHERE };

/* Moves the record or table at `offset` (a block of `size` bytes). */
enum skv_move skv_move_block(skv *store, enum skv_family family, uint64_t offset, uint64_t size, enum skv_manner manner, skv_wait *wait);

typedef struct skv_evacuation {
    uint64_t moved, stuck;
} skv_evacuation;

/* Moves what a page holds; true if the page is free now.  It is closed meanwhile. */
bool skv_evacuate_page(skv *store, uint32_t page, enum skv_manner manner, skv_evacuation *result, skv_wait *wait);
/* The same for a page that this process has closed already; it is reopened if it cannot be freed. */
bool skv_evacuate_closed_page(skv *store, uint32_t page, enum skv_manner manner, skv_evacuation *result, skv_wait *wait);
/* The same, and it stays closed if it cannot be freed. */
bool skv_empty_closed_page(skv *store, uint32_t page, enum skv_manner manner, skv_evacuation *result, skv_wait *wait);

#endif
