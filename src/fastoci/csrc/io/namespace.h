/* The user namespace of a process. */
#ifndef FASTOCI_IO_NAMESPACE_H
#define FASTOCI_IO_NAMESPACE_H

/* Give this process, of one thread, a user namespace of its own, in which it has every right and no ids yet: 0, or -errno. */
int namespace_enter(void);

#endif
