/* Extended attributes by their names. */
#include "layer/xattr.h"

#include <string.h>

static int starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

int layer_xattr_allowed(const char *key)
{
    if (starts(key, "user."))
        return !starts(key, "user.overlay.") && !starts(key, "user.fastoci.");
    if (starts(key, "trusted."))
        return !starts(key, "trusted.overlay.") && !starts(key, "trusted.fastoci.");
    return strcmp(key, "security.capability") == 0 || strcmp(key, "system.posix_acl_access") == 0 ||
           strcmp(key, "system.posix_acl_default") == 0;
}

int layer_xattr_privileged(const char *key)
{
    return starts(key, "trusted.") || starts(key, "security.");
}
