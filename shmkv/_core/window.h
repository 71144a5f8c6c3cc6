/* window.h: pages in a row made free, for what is larger than a page. */
#ifndef SKV_WINDOW_H
#define SKV_WINDOW_H

#include "pages.h"

/* Empties `pages` contiguous pages by moving what lies in them; true if they are free now. */
bool skv_empty_window(skv *store, uint32_t pages, skv_wait *wait);
/* The same in one segment only, another one each time, and nothing is moved unless so much can be gained there. */
bool skv_empty_window_nearby(skv *store, uint32_t pages, skv_wait *wait);

#endif
