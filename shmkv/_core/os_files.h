/* os_files.h: the files of a folder. */
#ifndef SKV_OS_FILES_H
#define SKV_OS_FILES_H

#include "files.h"
#include "wal.h"

/* The folder behind a descriptor, which stays the caller's.  0, or minus an errno. */
int skv_os_files(int folder, skv_files *out);
/* Of a log whose state one process has to itself. */
skv_turns skv_private_turns(void);

#endif
