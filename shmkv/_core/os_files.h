/* os_files.h: the files of the folder behind a descriptor, which stays the caller's and has to outlive their use. */
#ifndef SKV_OS_FILES_H
#define SKV_OS_FILES_H

#include "files.h"
#include "wal.h"

skv_files skv_os_files(int folder);
/* Of a log whose state one process has to itself. */
skv_turns skv_private_turns(void);

#endif
