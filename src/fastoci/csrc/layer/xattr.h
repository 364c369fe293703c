/* Which extended attributes an image may set. */
#ifndef FASTOCI_LAYER_XATTR_H
#define FASTOCI_LAYER_XATTR_H

/* Labels and integrity hashes are the host's; overlay's own attributes would redirect a mount, and ours say which image a tree is
 * (unpack/marker.py). */
int layer_xattr_allowed(const char *key);
/* Whether it takes privilege to set it. */
int layer_xattr_privileged(const char *key);

#endif
