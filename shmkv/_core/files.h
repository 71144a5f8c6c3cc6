/* files.h: what the log needs of a folder of files; os_files.c gives the real one, tests one that forgets.
 *
 * Every function returns 0 (or what it says), or minus an errno.  None is interrupted half-way: a short write is
 * gone on with, and a signal does not end it.
 */
#ifndef SKV_FILES_H
#define SKV_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the file behind a handle has to be. */
typedef struct skv_expected {
    const char *name;
    uint64_t inode;             /* 0 = any                                                    */
    uint64_t size;              /* bytes, at least                                            */
} skv_expected;

enum skv_open { SKV_OPEN_READ, SKV_OPEN_WRITE, SKV_OPEN_NEW };      /* new: -EEXIST if it is there */

typedef struct skv_files {
    void *context;
    int (*open)(void *context, const char *name, enum skv_open how);       /* a handle, >= 0     */
    void (*close)(void *context, int handle);
    int64_t (*size)(void *context, int handle);
    /* Fewer bytes than asked for only at the end of the file. */
    int64_t (*read)(void *context, int handle, void *to, size_t len, uint64_t at);
    /* After an error any part of it may have been written; after -EBADF, the handle was closed, nothing. */
    int (*write)(void *context, int handle, const void *from, size_t len, uint64_t at);
    int (*truncate)(void *context, int handle, uint64_t size);
    /* What was written, and the size, are on stable storage.  After an error nobody knows, but -EBADF tells only that the
     * handle was closed. */
    int (*sync)(void *context, int handle);
    int (*rename)(void *context, const char *from, const char *to);
    int (*unlink)(void *context, const char *name);
    /* Names that were made, changed or removed are on stable storage. */
    int (*sync_folder)(void *context);
    int (*list)(void *context, void (*each)(void *to, const char *name), void *to);
    /* What tells the file behind a handle from any other; 0 = the handle is not open.  User code may have closed
     * it, and the number stand for another file by now. */
    uint64_t (*identity)(void *context, int handle);
    /* That of its file, by which all processes know it; 0 = the handle is not open. */
    uint64_t (*inode)(void *context, int handle);
    /* 0, or -ESTALE: it is not that file of the folder, or the folder is not at its path any more: they were removed, or
     * others put in their place.  What cannot be seen is no reason.  -EBADF: the handle was closed. */
    int (*look)(void *context, int handle, const skv_expected *expected);
    /* Never 0, and the same only within a few milliseconds in which no file was opened here. */
    uint64_t (*moment)(void *context);
    /* The folder is not used any more.  NULL: nothing is to be done. */
    void (*done)(void *context);
} skv_files;

/* Is the handle still open for the file that had this identity when it was opened?  After an operation that succeeded: it
 * was that file, as no two handles have one identity. */
static inline bool skv_files_own(const skv_files *files, int handle, uint64_t identity)
{
    return handle >= 0 && identity && files->identity(files->context, handle) == identity;
}

#endif
