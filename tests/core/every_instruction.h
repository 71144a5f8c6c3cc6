/* every_instruction.h: what the parts of every_instruction.c share: sizes, scenes, memory that all its processes see.
 *
 * Concurrency: one process at a time writes to the shared memory, and whoever forked it waits for its end; only the
 *       worker's two flags are read while it stands still.
 */
#ifndef SKV_TEST_EVERY_INSTRUCTION_H
#define SKV_TEST_EVERY_INSTRUCTION_H

#include "stepper.h"
#include "write.h"

#define IDS          128u       /* keys that the model knows                                  */
#define WARM_ID      1000u      /* a key for the worker's preparations; not in the model      */
#define BATCH        8u
#define STATES       65536u
#define STEPS        (1u << 20)
#define IMAGE_ROOM   (6 * MIB)
#define CHUNK        4096u
#define CHUNKS       4096u
#define ROWS         (CHUNK / sizeof(skv_proc))        /* process slots that are ever in use   */
#define LIMIT_S      0.1
#define TRIES        8u         /* a machine under load delays an operation; a protocol that waits does so each time */
#define TRIAL_S      20u        /* for one death, or one image                                */
#define EXIT_SLOW    3
#define EXIT_SKIP    77

/* ---- Scenes, deeds, the model --------------------------------------------------------------- */

typedef struct model { uint64_t counter[IDS]; } model;         /* 0 = absent                  */

enum kind { NOTHING, PUT, DELETE, PUT_MANY, DELETE_MANY, CLEAR, EVACUATE, ATTACH, DETACH, CREATE, RECLAIM, COMPACT };

typedef struct deed {
    enum kind kind;
    uint32_t count;             /* keys; which ones, the scene's furnish says                 */
    uint64_t counter;           /* of the values that it writes                               */
    size_t len;
} deed;

typedef struct scene {
    const char *name;
    uint64_t size;              /* of the region                                              */
    void (*furnish)(skv *);     /* puts in what the deed meets, and chooses keys              */
    deed deed;                  /* the operation whose every instruction is fatal             */
    uint32_t warm_puts;         /* before it: 1 = a page is leased; 2 = and a block is spare  */
    bool gil;                   /* as a thread that holds the GIL; else like all others       */
    uint32_t records, tables;   /* blocks that may leak                                       */
    deed corpse;                /* what somebody was about to do who died before              */
    bool (*fatal)(skv *);       /* here                                                       */
    bool corpse_counts;         /* its deed had been committed                                */
} scene;

static void apply(model *m, const deed *d, const uint64_t *ids)
{
    if (d->kind == CLEAR)
        memset(m, 0, sizeof *m);
    for (uint32_t i = 0; i < d->count; i++) {
        if (d->kind == PUT || d->kind == PUT_MANY)
            m->counter[ids[i]] = d->counter;
        else if (d->kind == DELETE || d->kind == DELETE_MANY)
            m->counter[ids[i]] = 0;
    }
}

/* ---- What all processes share --------------------------------------------------------------- */

typedef struct extent {
    uint64_t object_size;
    uint64_t head_len;          /* bytes from the start to the descriptors of the last committed page */
    uint64_t pages_len;         /* and of the committed pages                                 */
} extent;

typedef struct image {
    extent extent;
    uint8_t bytes[IMAGE_ROOM];  /* both parts                                                 */
} image;

typedef struct shared {
    _Atomic uint32_t begun, acked;      /* said by the worker                                 */
    skv_params params;
    skv_fixed fixed;
    model model;                        /* before the operation                               */
    uint64_t ids[BATCH], corpse_ids[BATCH], touched[IDS];
    uint32_t touched_count;
    image start;                        /* the prepared store                                 */
    uint32_t hot[CHUNKS], hot_count;    /* parts of the region that the operation changes     */
    uint64_t instructions, judged, drifted;
    uint64_t places[STEPS];             /* where the worker stands after so many instructions */
    uint32_t visits[STEPS];             /* and how often it has been there before             */
    uint64_t states[STATES], state_count;
    double longest_s;
    uint32_t leaked;                    /* blocks at most                                     */
} shared;

static shared *sh;
static const scene *now;

#endif
