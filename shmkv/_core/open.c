/* open.c: the life of a store in memory: plan its layout, write it, check it, open it.
 *
 * Concurrency: skv_format runs under the creation byte (os.c); skv_open and skv_close run while
 * no other thread of this process uses the handle.
 */
#include "age.h"
#include "kept.h"
#include "read.h"

#include <stdlib.h>
#include <string.h>

#include "journal.h"

/* ---- Layout ----------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t x, uint64_t unit)
{
    return (x + unit - 1) / unit * unit;
}

/* About one bucket for each 64 KiB, so that a full store of small items has some 800 in each;
 * bounded so that an empty store takes less than 1 MiB + 0.15 % of its size. */
static uint32_t bucket_bits_for(uint64_t size)
{
    uint64_t budget = size / 1000 * 7 / 5 + UINT64_C(650000);   /* bytes for buckets          */
    uint32_t bits = SKV_MIN_BUCKET_BITS;
    while (bits < SKV_MAX_BUCKET_BITS && (UINT64_C(1) << (bits + 1)) * sizeof(skv_bucket) <= budget
           && (UINT64_C(1) << (bits + 1)) <= size >> 16)
        bits++;
    return bits;
}

static void plan_areas(skv_fixed *fixed)
{
    fixed->procs_offset = SKV_HEADER_SIZE;
    fixed->buckets_offset = fixed->procs_offset + round_up(SKV_PROCS * sizeof(skv_proc), 4096);
    fixed->kinds_offset = fixed->buckets_offset + (UINT64_C(1) << fixed->bucket_bits) * sizeof(skv_bucket);
    uint64_t left = fixed->size - fixed->kinds_offset;
    uint64_t pages = left / (SKV_PAGE_SIZE + sizeof(skv_page) + 1);
    for (;; pages--) {
        fixed->descriptors_offset = round_up(fixed->kinds_offset + pages, 4096);
        fixed->pages_offset = round_up(fixed->descriptors_offset + pages * sizeof(skv_page), SKV_PAGE_SIZE);
        if (fixed->pages_offset + (pages << SKV_PAGE_SHIFT) <= fixed->size)
            break;
    }
    fixed->pages = pages;
}

static uint64_t checksum_of(const skv_fixed *fixed)
{
    return skv_xxh3_64(fixed, offsetof(skv_fixed, checksum), 0);
}

skv_status skv_plan(const skv_params *params, skv_fixed *fixed)
{
    if (params->size < SKV_MIN_SIZE || params->size > SKV_MAX_SIZE)
        return SKV_TOO_LARGE;
    memset(fixed, 0, sizeof *fixed);
    fixed->magic = SKV_MAGIC;
    fixed->layout_version = SKV_LAYOUT_VERSION;
    fixed->byte_order = SKV_BYTE_ORDER;
    fixed->size = params->size;
    fixed->page_shift = SKV_PAGE_SHIFT;
    fixed->bucket_bits = (uint8_t)bucket_bits_for(params->size);
    fixed->flags = params->flags;
    fixed->mode = params->mode;
    fixed->uid = params->uid;
    memcpy(fixed->uuid, params->uuid, sizeof fixed->uuid);
    memcpy(fixed->boot_id, params->boot_id, sizeof fixed->boot_id);
    memcpy(fixed->log_uuid, params->log_uuid, sizeof fixed->log_uuid);
    fixed->hash_seed = params->hash_seed;
    fixed->created_boot_ms = params->created_boot_ms;
    fixed->created_wall_ms = params->created_wall_ms;
    fixed->time_namespace = params->time_namespace;
    plan_areas(fixed);
    fixed->checksum = checksum_of(fixed);
    return SKV_OK;
}

uint64_t skv_fixed_areas_size(const skv_fixed *fixed)
{
    return fixed->descriptors_offset;
}

void skv_format(void *base, const skv_fixed *fixed)
{
    skv_header *header = base;
    memcpy(&header->fixed, fixed, sizeof *fixed);
    SKV_CRASH("create.formatted");
    skv_store_release(&header->state, SKV_READY);
}

/* Everything that later code relies on without asking again. */
static bool areas_fit(const skv_fixed *f)
{
    uint64_t buckets = (UINT64_C(1) << f->bucket_bits) * sizeof(skv_bucket);
    return f->size >= SKV_MIN_SIZE && f->size <= SKV_MAX_SIZE
           && f->page_shift == SKV_PAGE_SHIFT
           && f->procs_offset == SKV_HEADER_SIZE
           && f->buckets_offset >= f->procs_offset + SKV_PROCS * sizeof(skv_proc) && f->buckets_offset < f->size
           && f->buckets_offset % sizeof(skv_bucket) == 0
           && f->kinds_offset >= f->buckets_offset + buckets && f->kinds_offset < f->size
           && f->pages > 0 && f->pages <= f->size >> SKV_PAGE_SHIFT
           && f->descriptors_offset >= f->kinds_offset + f->pages && f->descriptors_offset < f->size
           && f->descriptors_offset % 64 == 0
           && f->pages_offset >= f->descriptors_offset + f->pages * sizeof(skv_page) && f->pages_offset < f->size
           && f->pages_offset % SKV_PAGE_SIZE == 0
           && f->pages << SKV_PAGE_SHIFT <= f->size - f->pages_offset;
}

skv_status skv_check_fixed(const skv_fixed *fixed, uint64_t mapped_size)
{
    if (fixed->magic != SKV_MAGIC)
        return SKV_CORRUPT;
    if (fixed->layout_version != SKV_LAYOUT_VERSION || fixed->byte_order != SKV_BYTE_ORDER)
        return SKV_VERSION;
    if (fixed->checksum != checksum_of(fixed))
        return SKV_CORRUPT;
    if (fixed->bucket_bits < SKV_MIN_BUCKET_BITS || fixed->bucket_bits > SKV_MAX_BUCKET_BITS || fixed->size > mapped_size)
        return SKV_CORRUPT;
    return areas_fit(fixed) ? SKV_OK : SKV_CORRUPT;
}

/* ---- Opening ----------------------------------------------------------------------------- */

static void point_at_areas(skv *store, uint8_t *base)
{
    const skv_fixed *fixed = &store->fixed;
    store->base = base;
    store->header = (skv_header *)(void *)base;
    store->procs = (skv_proc *)(void *)(base + fixed->procs_offset);
    store->buckets = (skv_bucket *)(void *)(base + fixed->buckets_offset);
    store->kinds = (_Atomic uint8_t *)(base + fixed->kinds_offset);
    store->pages = (skv_page *)(void *)(base + fixed->descriptors_offset);
    store->pages_offset = fixed->pages_offset;
    store->page_count = (uint32_t)fixed->pages;
    /* A sixteenth of the pages may be leased: what idle processes keep can then never matter. */
    store->lease_limit = store->page_count / 16;
    store->bucket_shift = 64u - fixed->bucket_bits;
    store->bucket_count = UINT64_C(1) << fixed->bucket_bits;
    store->seed = fixed->hash_seed;
    store->size = fixed->size;
    store->evict = (fixed->flags & SKV_FLAG_EVICT) != 0;
    store->age_shift = skv_age_shift_of(fixed->size);
}

static void init_local(skv *store)
{
    pthread_mutex_init(&store->register_mutex, NULL);
    pthread_mutex_init(&store->batch_mutex, NULL);
    skv_store(&store->lease_lock, 0);
    memset(store->leases, 0, sizeof store->leases);
    store->spare = 0;           /* of a parent, which keeps it                                */
    skv_store(&store->slot, SKV_NO_PROC);
    store->adopting = SKV_NO_PROC;
    store->proc = &store->nobody;
}

skv_status skv_open(void *base, const skv_fixed *fixed, bool read_only, const skv_os *os, skv **out)
{
    skv_status status = skv_check_fixed(fixed, fixed->size);
    if (status)
        return status;
    /* Cache-line alignment, for `nobody`'s atomics. */
    skv *store = aligned_alloc(64, (sizeof *store + 63) / 64 * 64);
    if (!store)
        return SKV_NO_MEMORY;
    memset(store, 0, sizeof *store);
    store->fixed = *fixed;
    store->read_only = read_only;
    store->os = *os;
    point_at_areas(store, base);
    init_local(store);
    *out = store;
    return SKV_OK;
}

void skv_close(skv *store)
{
    if (skv_is_registered(store)) {
        skv_kept_return(store);
        /* The liveness byte goes when os.c closes its description, after this store. */
        skv_store_release(&store->proc->state, SKV_PROC_FREE);
    }
    skv_journal_close(store);
    pthread_mutex_destroy(&store->register_mutex);
    pthread_mutex_destroy(&store->batch_mutex);
    skv_scratch_free(skv_load(&store->scratch));
    free(store);
}

void skv_after_fork(skv *store)
{
    init_local(store);
    skv_journal_after_fork(store);
}

bool skv_is_whole(const skv *store)
{
    return skv_load(&store->header->state) == SKV_READY;
}

const skv_fixed *skv_fixed_of(const skv *store)
{
    return &store->fixed;
}

void skv_set_clock(skv *store, uint64_t now_ms)
{
    skv_store(&store->fake_now, now_ms);
}

void skv_set_wall_clock(skv *store, uint64_t now_ms)
{
    skv_store(&store->fake_wall, now_ms);
}

uint64_t skv_now_ms(const skv *store)
{
    uint64_t fake = skv_load(&store->fake_now);
    return skv_likely(fake == 0) ? store->os.now_ms(store->os.context) : fake;
}

/* A quarter of the store for a value or a batch; what does not fit the pages is refused early. */
uint64_t skv_max_value(const skv *store)
{
    uint64_t quarter = store->size / 4;
    return quarter < SKV_MAX_VALUE ? quarter : SKV_MAX_VALUE;
}
