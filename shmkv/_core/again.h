/* again.h: writing frames once more that are in a file already, so that a sync of them can be believed.
 *
 * What: a sync that fails is told to one caller, once; what it was to write may be gone, and only the system's cache
 *       shows it until the next boot.  Who comes later and did not hear of it (the process before it was killed, or
 *       closed the store) syncs in vain, and is told that all is well (Rebello et al. 2020).
 * How:  the same bytes are written to the same places: then they are to be written to the disk again, and the next sync
 *       answers for them.  Nothing has to be remembered for that, so no death can make it forgotten: killed anywhere in
 *       here, the file holds what it held.  Each frame is looked at again, as the cache may have dropped it
 *       since it was read: then the disk's truth is in its place, and that is an error.
 *       Refused: a mark in the folder that the log is in doubt, and a snapshot before it is taken away.  The mark has to
 *       get to a disk that is just failing, a power cut leaves files that only make sense with it, and who is killed
 *       between the bad news and the mark has told nobody.
 *
 * Concurrency: any; the frames are part of the log, so nobody changes them.
 */
#ifndef SKV_AGAIN_H
#define SKV_AGAIN_H

#include "segment.h"

/* The frames of segment `number` from position `from`, where one begins (or any before the segment), to `end`.  0, or
 * minus an errno; -EIO: one is not whole any more; -EBADF: user code closed a handle meanwhile, which tells nothing. */
int skv_write_again(skv_files files, uint64_t number, uint64_t from, uint64_t end);

#endif
