/* restore.c: see restore.h. */
#include "restore.h"

#include <errno.h>
#include <stdlib.h>

#include "read.h"

#define AT_ONCE   256u          /* puts                                                       */
#define STOPPED   1             /* out->status says why                                       */

typedef struct restoration {
    skv *store;
    skv_restored *out;
    skv_item items[AT_ONCE];    /* their keys and values lie in the frame                     */
    uint32_t count;
} restoration;

static int stopped(restoration *r, skv_status status)
{
    r->out->status = status;
    return status == SKV_OK ? 0 : STOPPED;
}

static int flush(restoration *r)
{
    skv_item *items[AT_ONCE];
    skv_status status = SKV_OK;
    for (uint32_t i = 0; i < r->count; i++)
        items[i] = &r->items[i];
    for (uint32_t from = 0, done = 0; from < r->count && (status == SKV_OK || status == SKV_BUSY); from += done) {
        skv_wait wait = {.block = true, .shared = true};
        status = skv_put_each(r->store, items + from, r->count - from, &wait, &done);
    }
    r->count = 0;
    return stopped(r, status);
}

static skv_status apply_alone(restoration *r, const skv_op *op, const skv_key *key)
{
    skv_status status;
    do {
        skv_wait wait = {.block = true, .shared = true};
        status = op->kind == SKV_OP_CLEAR   ? skv_clear(r->store, &wait)
                                            : skv_delete(r->store, key, 0, &wait);
    } while (status == SKV_BUSY);
    return status == SKV_MISSING ? SKV_OK : status;
}

/* A put whose time is over leaves nothing, and what was there before is gone all the same. */
static int apply_op(restoration *r, const skv_op *op)
{
    if (op->kind == SKV_OP_COUNT)
        return 0;
    /* A checksum that fits says who wrote it, not that he was right. */
    const bool good_value = skv_is_known_type(op->type) && (op->type != SKV_T_INT || op->value_len == 8);
    if (op->key_len > SKV_MAX_KEY || (op->kind == SKV_OP_PUT && !good_value))
        return stopped(r, SKV_CORRUPT);
    const skv_key key = skv_hash_key(r->store, op->key, op->key_len, op->bytes_key);
    const uint64_t expires_ms = skv_boot_of(r->store, op->expires_ms);
    if (op->kind == SKV_OP_PUT && !skv_is_expired(r->store, expires_ms)) {
        if (r->count == AT_ONCE) {
            int status = flush(r);
            if (status)
                return status;
        }
        r->items[r->count++] = (skv_item){.key = key, .value = op->value, .value_len = op->value_len, .type = op->type, .expires_ms = expires_ms};
        return 0;
    }
    int status = flush(r);      /* in their order                                             */
    return status ? status : stopped(r, apply_alone(r, op, &key));
}

static int apply_frame(void *to, const skv_frame_view *view, const skv_segment *segment, uint64_t position)
{
    restoration *r = to;
    uint64_t at = 0;
    skv_op op;
    int status = 0;
    (void)segment, (void)position;
    while (status == 0 && skv_frame_next(view, &at, &op)) {
        status = apply_op(r, &op);
        r->out->operations++;
    }
    if (status == 0)
        status = flush(r);
    if (status == 0 && at != view->length)
        status = stopped(r, SKV_CORRUPT);       /* whole, but made by somebody else            */
    r->out->frames++;
    atomic_fetch_add_explicit(r->out->bytes, view->size, memory_order_relaxed);
    SKV_CRASH("restore.applied");
    return status;
}

static uint64_t evicted_so_far(skv *store)
{
    skv_stats stats;
    return store->evict && skv_get_stats(store, &stats) == SKV_OK ? stats.counters[SKV_EVICTED] : 0;
}

int skv_restore(skv *store, skv_files files, skv_restored *out)
{
    restoration *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->store = store;
    r->out = out;
    int status = skv_recover(files, false, apply_frame, r, &out->found);
    out->evicted = evicted_so_far(store);
    free(r);
    return status;
}
