/* The state of a layer that is being read, whatever its entries become: limits, counts, the first failure, the path of names. */
#ifndef FASTOCI_LAYER_CONTEXT_H
#define FASTOCI_LAYER_CONTEXT_H

#include "layer/code.h"
#include "layer/facts.h"
#include "tar/sink.h"

#include <stddef.h>
#include <stdint.h>

enum {
    NAME_LEN = 255,
    PATH_LEN = 4095, /* Linux's PATH_MAX, without the NUL: what is deeper cannot be named by those who use the tree */
    TARGET_MAX = 4095,
    IMPLIED_MODE = 0755 /* of a directory that no entry names */
};

struct layer_limits {
    uint64_t max_entries; /* entries of this layer, whiteouts included */
    uint64_t max_bytes;   /* sum of apparent file sizes, of extended attributes, and of names that are long together */
    uint64_t max_work;    /* units of some 60 ns, as below, beside 512 for each entry */
    const int *stop;      /* a request to stop, as in io/stop.h: the call under way ends soon; NULL: none */
};

struct layer_text {
    char *text;
    size_t capacity;
};

struct layer {
    struct layer_limits limits;
    struct layer_facts facts;
    struct layer_facts published; /* as of the end of the last call, for other threads: layer_publish */
    int64_t value;                /* of the failure in the making */
    uint64_t made;                /* entries and implied directories */
    uint64_t size;                /* what counts for max_bytes; of files with their holes */
    uint64_t work;

    struct layer_text walk[2];
    struct layer_text last; /* the parent part of the last entry's name, as spelled, and where it led */
    size_t last_len;
    void *last_directory; /* NULL: nothing */
};

/* Work that a few bytes of an archive can ask for, in units of about 60 ns; ordinary entries need a tenth of WORK_ENTRY. */
enum work {
    WORK_ENTRY = 512,   /* what each entry may use */
    WORK_COMPONENT = 1, /* of a path: a look-up in the hash table */
    WORK_OPEN = 16,     /* a directory that had been closed */
    WORK_SEGMENT = 16,  /* a piece of a sparse file */
    WORK_LINK = 32,     /* a symbolic link on the path */
    WORK_XATTR = 64,
    WORK_IMPLIED = 256  /* a directory that no entry names */
};

/* Failure of a system call: remembers errno; LAYER_IO, or what directory_open and the removal mean by EXDEV, EBUSY, ECANCELED. */
int layer_io(struct layer *layer);
/* Failure with a number. */
int layer_bad(struct layer *layer, int code, int64_t value);
/* Whether the entries so far may have asked for so much work: TAR_OK or LAYER_WORK. */
int layer_worked(struct layer *layer);
/* Count what takes space beside the content of files: TAR_OK or LAYER_BYTES. */
int layer_count_extra(struct layer *layer, uint64_t bytes);
/* Count a directory that no entry names: TAR_OK or a code. */
int layer_count_implied(struct layer *layer);

/* Remember the first failure and where it is; the code. */
int layer_failed(struct layer *layer, int code, uint64_t offset, int64_t value, struct tar_bytes path);

/* At the end of a call: let other threads see the facts. Returns result. */
int layer_publish(struct layer *layer, int result);
/* As of the end of the last call; from any thread, also while a call is under way. */
void layer_get_facts(const struct layer *layer, struct layer_facts *facts);

/* Free all but the facts, and then those. */
void layer_close(struct layer *layer);
void layer_free(struct layer *layer);

#endif
