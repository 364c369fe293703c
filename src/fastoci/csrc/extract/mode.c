/* Making with the very mode that an entry asks for, which saves a chmod.
 *
 * The umask would change that mode, and all threads of the process share it. A thread can stop sharing (unshare), for good and
 * without privilege: from then on its umask and its working directory are its own. The first thread of the process never leaves,
 * since others expect it to share. The umask is 0 only inside one call of the extractor; no thread can be born meanwhile. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "extract/mode.h"

#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int exact(struct extract *ex)
{
    if (ex->inexact || ex->mode_state != MODE_UNASKED)
        return !ex->inexact && ex->mode_state == MODE_EXACT;
    ex->mode_state = MODE_MASKED;
    if (syscall(SYS_gettid) == getpid() || unshare(CLONE_FS)) /* nothing is done when it has left already */
        return 0;
    ex->mode_state = MODE_EXACT;
    ex->umask = umask(0);
    return 1;
}

void mode_restore(struct extract *ex)
{
    if (ex->mode_state == MODE_EXACT)
        umask(ex->umask);
    ex->mode_state = MODE_UNASKED;
}

mode_t mode_at_birth(struct extract *ex, mode_t mode, unsigned inherits, size_t xattrs)
{
    /* Attributes may need write permission or change the mode; set-id bits come after chown, which clears them. */
    if (mode & ~(mode_t)0777 || inherits || xattrs || !exact(ex))
        return 0;
    return mode;
}

/* Some file systems have masks of their own, which is seen at the first file. */
mode_t mode_believed(struct extract *ex, int fd, mode_t mode)
{
    struct stat st;

    if (!mode || ex->believed)
        return mode;
    ex->believed = fstat(fd, &st) == 0 && (st.st_mode & 07777) == mode;
    ex->inexact = !ex->believed;
    return ex->believed ? mode : 0;
}
