/* What an extractor is asked for: what it may apply, and how much. */
#ifndef FASTOCI_EXTRACT_OPTIONS_H
#define FASTOCI_EXTRACT_OPTIONS_H

#include <stdint.h>

struct extract_options {
    int owners;           /* give files to the owners that entries name; else all is this user's, and set-id bits for others go */
    int privileged;       /* make device nodes and privileged xattrs; else they are skipped and counted, as owners are */
    int base;             /* the root holds lower layers, so whiteouts have work to do */
    int user_xattrs;      /* of the overlay form: user.overlay.* and not trusted.overlay.* */
    int snapshot;         /* of a tool that makes the root itself: an entry of the root is passed over, and a device 0:0 hides its name */
    int unknown_lowers;   /* of the overlay form: lower layers are there, and nobody will say what they have: a whiteout gets a directory to be in */
    uint64_t max_entries; /* entries of this layer, whiteouts included */
    uint64_t max_bytes;   /* sum of apparent file sizes, of extended attributes, and of names that are long together */
    uint64_t max_directories; /* that the layer makes or reaches; about 130 bytes of memory each */
    uint64_t max_work;    /* units of some 60 ns, as context.h counts them, beside 512 for each entry */
    const int *stop;      /* a request to stop, as in io/stop.h: the call under way ends soon; NULL: none */
};

#endif
