/* A request to stop: set by one thread, seen soon by another that is at work in a native call. */
#ifndef FASTOCI_IO_STOP_H
#define FASTOCI_IO_STOP_H

static inline void stop_ask(int *stop)
{
    __atomic_store_n(stop, 1, __ATOMIC_RELAXED);
}

/* NULL: there is no request. */
static inline int stop_asked(const int *stop)
{
    return stop && __atomic_load_n(stop, __ATOMIC_RELAXED);
}

#endif
