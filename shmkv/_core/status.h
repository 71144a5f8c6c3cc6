/* status.h: every result that the engine can return, once.
 *
 * The binding owns one table from status to exception (binding/module.c); nothing else
 * interprets these numbers.  Zero is success, so `if (status)` reads as "it failed".
 */
#ifndef SKV_STATUS_H
#define SKV_STATUS_H

typedef enum skv_status {
    SKV_OK = 0,
    SKV_MISSING,        /* no live item under this key                                        */
    SKV_CONDITION,      /* add, replace or cas: the condition did not hold, nothing changed   */
    SKV_BUSY,           /* would have to wait; nothing changed, call again (see struct wait)  */
    SKV_TIMEOUT,        /* the deadline passed behind a lock of a live process                */
    SKV_FULL,           /* the store's size is used up                                        */
    SKV_NO_SPACE,       /* the file system (/dev/shm) is full                                 */
    SKV_CGROUP_FULL,    /* the memory limit of the control group is nearly reached            */
    SKV_TOO_LARGE,      /* a value or a batch beyond the store's limits                       */
    SKV_NOT_INT,        /* incr on a value that is no integer                                 */
    SKV_OVERFLOW,       /* incr beyond signed 64 bits                                         */
    SKV_CORRUPT,        /* bounds, magic or checksum do not fit                               */
    SKV_VERSION,        /* another layout version or byte order                               */
    SKV_STALE,          /* the region belongs to another boot                                 */
    SKV_NO_SLOT,        /* the process table is full                                          */
    SKV_READ_ONLY,      /* a write through a read-only mapping                                */
    SKV_NO_MEMORY,      /* no memory for this process itself                                   */
    SKV_OS_ERROR,       /* a system call failed, errno tells                                  */
    SKV_FORKED,         /* this process could not register after a fork                       */
    SKV_DISK_FULL,      /* of a durable store's log; nothing changed                          */
    SKV_LOG_ERROR,      /* the log could not be written, errno tells; nothing changed         */
    SKV_LOG_FAILED,     /* an earlier write or sync left the log in doubt, errno tells        */
    SKV_NOT_STABLE,     /* it was changed, but the log could not be synced now, errno tells   */
    SKV_NEEDS_TABLE,    /* inside the engine only: the bucket's table has no room             */
    SKV_AGAIN,          /* inside the engine only: prepare more, then repeat the step         */
} skv_status;

#endif
