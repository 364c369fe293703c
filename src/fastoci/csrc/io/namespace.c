/* A user namespace by unshare(2). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "io/namespace.h"

#include <errno.h>
#include <sched.h>

int namespace_enter(void)
{
    return unshare(CLONE_NEWUSER) ? -errno : 0;
}
