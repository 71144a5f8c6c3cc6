/* test_hostile.c: bytes of the region are replaced by random ones, and then all operations are called.
 *
 * Wrong values and errors of every kind are fine; a crash, a hang or a read outside the mapping is not.  The fixed header
 * (checksummed, and copied at attach) and the process table's liveness are what the engine may rely on.
 */
#include "lease.h"
#include "util.h"

#define IDS        2000u
#define OPERATIONS 300u

static uint64_t seed = 1;
static uint32_t rounds = 60;

static box b;

enum damage { ANYWHERE, BUCKETS, DESCRIPTORS, HEADER_HINTS, PAGES, DAMAGES };

typedef struct job {
    rng r;
    enum damage kind;
    uint32_t changes;
    found f;
} job;

static void fill_store(uint16_t flags, rng *r)
{
    make_box(&b, below(r, 2) ? 2 * MIB : 4 * MIB, flags);
    for (uint64_t id = 0; id < IDS * 3 / 4; id++)
        put_value(b.store, id, 1, VALUE_HEAD + id % 300, id % 5 ? 0 : skv_now_ms(b.store) + 100000);
    put_value(b.store, IDS - 1, 1, 200000, 0);
    skv_leases_return(b.store);
}

/* ---- Damage ------------------------------------------------------------------------------- */

static void pick_area(const job *j, uint64_t *from, uint64_t *to)
{
    const skv *s = b.store;
    const uint64_t end = skv_committed_end(s);
    *from = sizeof(skv_fixed);
    *to = end;
    if (j->kind == BUCKETS) {
        *from = s->fixed.buckets_offset;
        *to = *from + s->bucket_count * sizeof(skv_bucket);
    } else if (j->kind == DESCRIPTORS) {
        *from = s->fixed.descriptors_offset;
        *to = *from + skv_committed_pages(s) * (uint64_t)sizeof(skv_page);
    } else if (j->kind == HEADER_HINTS) {
        *to = sizeof(skv_header);
    } else if (j->kind == PAGES) {
        *from = s->pages_offset;
    }
}

/* A byte, or a word that is random, all ones, or small. */
static void damage(job *j)
{
    uint64_t from, to;
    pick_area(j, &from, &to);
    for (uint32_t i = 0; i < j->changes; i++) {
        uint64_t at = from + rnd(&j->r) % (to - from - 8), word = rnd(&j->r);
        switch (below(&j->r, 4)) {
        case 0: case 1:
            b.store->base[at] = (uint8_t)word;
            continue;
        case 2:
            word = below(&j->r, 3) ? word >> below(&j->r, 60) : UINT64_MAX;
            break;
        default:
            break;
        }
        memcpy(b.store->base + at / 8 * 8, &word, sizeof word);
    }
}

/* ---- All operations --------------------------------------------------------------------------- */

static void some_read(job *j, skv *s)
{
    key_text text;
    skv_key key = key_for(s, below(&j->r, IDS), &text);
    for (uint32_t tries = 0; tries < 20; tries++) {
        skv_view view;
        skv_find(s, &key, &view);
        if (copy_view(&view, &j->f) && skv_validate(&view)) {
            skv_warm(s, &view);
            return;
        }
    }
}

static void some_batch(job *j, skv *s, skv_item item, skv_wait *wait)
{
    enum { MOST = 8 };
    key_text texts[MOST];
    skv_item items[MOST];
    uint32_t removed;
    for (uint32_t i = 0; i < MOST; i++) {
        items[i] = item;
        items[i].key = key_for(s, below(&j->r, IDS), &texts[i]);
    }
    if (below(&j->r, 2))
        skv_put_many(s, items, MOST, wait);
    else
        skv_delete_many(s, items, MOST, &removed, wait);
}

static void some_upkeep(job *j, skv *s, skv_wait *wait)
{
    skv_compact_report report;
    skv_copies copies = {0};
    skv_stats stats;
    uint64_t freed;
    switch (below(&j->r, 8)) {
    case 0:
        skv_compact(s, &report, wait);
        skv_return_memory(s, wait);
        break;
    case 1:
        skv_audit(s, &freed, wait);
        break;
    case 2:
        skv_clear(s, wait);
        break;
    case 3:
        skv_reclaim_dead(s, NULL);
        break;
    case 4:
        skv_get_stats(s, &stats);
        break;
    case 5:
        skv_copy_bucket(s, rnd(&j->r) % s->bucket_count, true, NULL, NULL, &copies);
        skv_free_items(&copies);
        break;
    default:
        skv_sweep_expired(s, 16, NULL, wait);
    }
}

static void ignore_problem(void *context, const char *invariant, const char *sentence)
{
    (void)context, (void)invariant, (void)sentence;
}

static void use_store(void *context)
{
    static uint8_t value[70000];
    job *j = context;
    skv *s = b.store;
    damage(j);
    for (uint32_t k = 0; k < OPERATIONS; k++) {
        key_text text;
        skv_key key = key_for(s, below(&j->r, IDS), &text);
        skv_wait wait = {.block = true, .shared = below(&j->r, 2), .timeout_ns = 50000000};
        skv_item item = {.key = key, .value = value, .value_len = below(&j->r, below(&j->r, 20) ? 300 : sizeof value),
                         .type = SKV_T_BYTES, .expires_ms = below(&j->r, 2) ? skv_now_ms(s) + 50 : 0};
        int64_t result;
        switch (below(&j->r, 10)) {
        case 0: case 1: case 2:
            some_read(j, s);
            break;
        case 3: case 4:
            skv_put(s, &item, SKV_PUT_ANY, 0, &wait);
            break;
        case 5:
            skv_delete(s, &key, 0, &wait);
            break;
        case 6:
            skv_incr(s, &key, 1, 1, 0, &result, &wait);
            break;
        case 7:
            skv_touch(s, &key, skv_now_ms(s) + 1000, NULL, &wait);
            break;
        case 8:
            some_batch(j, s, item, &wait);
            break;
        default:
            some_upkeep(j, s, &wait);
        }
    }
    if (skv_check)
        skv_check(s, ignore_problem, NULL, &(skv_check_result){0});
}

static void random_damage(void)
{
    static const uint32_t changes[] = {1, 10, 200, 5000};
    for (uint32_t round = 0; round < rounds; round++) {
        job j = {.r = {seed * 1000 + round}, .kind = round % DAMAGES, .changes = changes[round / DAMAGES % COUNT(changes)]};
        fill_store(round % 3 ? 0 : SKV_FLAG_EVICT, &j.r);
        int status = wait_child(start_child(use_store, &j, 20));
        REQUIRE(status == 0, "round %u (damage %d, %u changes): a child %s %d", round, (int)j.kind, j.changes,
                WIFSIGNALED(status) ? "died of signal" : "ended with", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        shm_unlink(b.name);     /* not detached: that would work with what is damaged         */
        close(b.fd);
    }
}

static const test tests[] = {
    {"random_damage", random_damage},
};

/* test_hostile SEED ROUNDS */
int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        rounds = (uint32_t)strtoul(argv[2], NULL, 10);
    return run_tests(tests, COUNT(tests), argv + argc, 100);
}
