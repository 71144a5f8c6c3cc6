/* os.h: the operating system at the edge: maps a region, keeps the proof that this process lives.
 *
 * One skv_region per region and process, whatever number of handles: they are found by device
 * and inode, and counted.  See os.c for liveness (open-file-description locks) and fork.
 */
#ifndef SKV_OS_H
#define SKV_OS_H

#include "store.h"

typedef struct skv_region skv_region;

/* Creates the layout in a new, empty or half-created object behind `fd` (which stays the caller's).
 * Takes the creation byte, so that of two creators one works and the other waits; `*created` is false
 * if a ready store was found instead.  Sets the object's size (ftruncate) unless `fixed_size`, and allocates the
 * fixed areas before it writes to them.  SKV_NO_SPACE and SKV_CGROUP_FULL leave nothing allocated. */
skv_status skv_region_create(int fd, const skv_params *params, bool fixed_size, bool *created);

/* Reads the 256 bytes of the fixed header with pread (nothing is mapped).  Waits up to `timeout_ms` for a
 * creator that lives; SKV_MISSING if it died before READY (the caller may create), SKV_BUSY on time-out. */
skv_status skv_region_peek(int fd, uint32_t timeout_ms, skv_fixed *fixed);

/* Maps and registers (a writer gets its process slot at once).  `boot_id` and `time_namespace` of this
 * process are compared with the header's: SKV_STALE.  Counts up if this process has it already. */
skv_status skv_region_attach(int fd, bool read_only, skv_region **out);
void skv_region_detach(skv_region *region);     /* the last one unmaps                        */
skv *skv_region_store(skv_region *region);
/* No other process is attached, and in this one there is no other skv_region_attach without its detach. */
bool skv_region_is_alone(skv_region *region);
/* What this process keeps for its next call goes back, in all its regions: kept.h. */
void skv_regions_give_back(void);
int skv_region_fd(const skv_region *region);    /* a descriptor of the object, owned by the region */

/* What a path leads to, beside the region: asked of the system, so any process may have changed it since. */
typedef enum skv_place {
    SKV_PLACE_SAME,
    SKV_PLACE_ANOTHER,                          /* another object                             */
    SKV_PLACE_NOTHING,
    SKV_PLACE_UNKNOWN,                          /* it cannot be looked at from here           */
} skv_place;
skv_place skv_region_at(const skv_region *region, const char *path);

/* Moves all items of `from` into the new store `to`, and gives that one its name.  Nothing but what is in `to` has
 * changed unless it is SKV_OK.  SKV_BUSY: somebody else has it; SKV_MISSING: the name means another one by now. */
typedef struct skv_paths {
    const char *of_store, *of_new;              /* paths                                      */
} skv_paths;
skv_status skv_region_replace(skv_region *from, skv_region *to, const skv_paths *names);

/* Facts about this process, for params and messages. */
bool skv_os_boot_id(uint8_t out[16]);          /* false: it cannot be read now, errno tells  */
uint64_t skv_os_time_namespace(void);
uint64_t skv_os_pid_namespace(void);            /* inode, for skv_proc                        */
uint64_t skv_os_start_time(void);               /* of this process, clock ticks since boot    */
uint64_t skv_os_boot_ms(void);
uint64_t skv_os_wall_ms(void);
/* Does this process see the kernel's CLOCK_BOOTTIME?  A preloaded library may fake it. */
bool skv_os_clock_is_true(void);
uint64_t skv_os_monotonic_ns(void);

/* For tests: the n-th (from 1) commit from now on fails with SKV_NO_SPACE; 0 = off. */
void skv_os_fail_commit(uint32_t nth);

#endif
