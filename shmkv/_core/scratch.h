/* scratch.h: the arrays of one call, kept for the next one of its owner.
 *
 * Why:  the C library gives the end of its heap back to the system as soon as 128 KiB lie free there.  A batch of 1,000
 *       needs more than that and frees it all: where its arrays are at the end of the heap, each batch pays a page
 *       fault for each 4 KiB of them (docs/decisions.md).
 * How:  one block for all arrays of a call, cut into parts; the owner keeps one such block between two calls.
 *
 * Concurrency: any threads of one process; a block belongs to whoever has taken it.
 */
#ifndef SKV_SCRATCH_H
#define SKV_SCRATCH_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SKV_SCRATCH_MOST  (1u << 20)    /* bytes; longer ones are not kept                   */
#define SKV_SCRATCH_ALIGN 16u

typedef struct skv_scratch {
    size_t room;                        /* bytes of parts                                     */
    size_t used;
    _Alignas(SKV_SCRATCH_ALIGN) unsigned char parts[];
} skv_scratch;

typedef _Atomic(skv_scratch *) skv_scratch_kept;

/* What a part of so many bytes takes of `room`. */
static inline size_t skv_scratch_size(size_t bytes)
{
    return (bytes + SKV_SCRATCH_ALIGN - 1) / SKV_SCRATCH_ALIGN * SKV_SCRATCH_ALIGN;
}

/* A mapping of its own: in the heap, what is kept would keep all below it. */
static inline void skv_scratch_free(skv_scratch *scratch)
{
    if (scratch)
        munmap(scratch, sizeof *scratch + scratch->room);
}

/* NULL: no memory. */
static inline skv_scratch *skv_scratch_take(skv_scratch_kept *kept, size_t room)
{
    skv_scratch *scratch = atomic_exchange_explicit(kept, NULL, memory_order_acquire);
    if (!scratch || scratch->room < room) {
        skv_scratch_free(scratch);
        scratch = mmap(NULL, sizeof *scratch + room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (scratch == MAP_FAILED)
            return NULL;
        scratch->room = room;
    }
    scratch->used = 0;
    return scratch;
}

/* The parts of one call are, in all, what it has asked for. */
static inline void *skv_scratch_part(skv_scratch *scratch, size_t bytes)
{
    void *part = scratch->parts + scratch->used;
    scratch->used += skv_scratch_size(bytes);
    return part;
}

/* NULL is nothing. */
static inline void skv_scratch_give(skv_scratch_kept *kept, skv_scratch *scratch)
{
    if (scratch && scratch->room <= SKV_SCRATCH_MOST)
        scratch = atomic_exchange_explicit(kept, scratch, memory_order_acq_rel);
    skv_scratch_free(scratch);
}

#endif
