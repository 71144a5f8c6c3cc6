/* crash_hook.c: what the engine's crash points call; linked into every program that is built with -DSKV_CRASH_POINTS. */
#include "store.h"

void (*skv_crash_hook)(const char *name);
