/* Symbols of the libraries that decode. */
#include "inflate/context.h"

#include <dlfcn.h>
#include <string.h>

int inflate_find(void *library, const char *name, void *pointer)
{
    void *symbol = dlsym(library, name);

    memcpy(pointer, &symbol, sizeof symbol);
    return symbol != NULL;
}
