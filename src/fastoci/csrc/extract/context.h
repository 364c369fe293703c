/* What the files of the extractor share. Not for other units.
 *
 * A node is a directory that this layer has touched, under its physical name: symbolic links are resolved before, so a
 * directory has one node by whatever path it is reached. Nodes hold descriptors while they are recently used. */
#ifndef FASTOCI_EXTRACT_CONTEXT_H
#define FASTOCI_EXTRACT_CONTEXT_H

#include "extract/options.h"
#include "layer/context.h"
#include "tar/sink.h"

#include <sys/types.h>

enum { TREE_FDS_MIN = 16 };

enum node_flags {
    NODE_MADE = 1,    /* this layer made the directory, so nothing of lower layers is in it */
    NODE_BARE = 2,    /* lower content has been removed from it (or never was there); in the overlay form: is hidden */
    NODE_NAMED = 4,   /* an entry of this layer gives its metadata */
    NODE_HOLDS = 8,   /* it, or something below, is content of this layer */
    NODE_DIRTY = 16,  /* names were made or removed in it */
    NODE_SETGID = 32, /* what is made in it takes its group */
    NODE_MODE = 64,   /* its mode is narrower than what we need now and is set at the end */
    NODE_ACL = 128,   /* what is made in it takes its default ACL */
    NODE_WHITEOUTS = 256, /* whiteouts of the overlay form were made in it */
    NODE_IMPLIED = 512,   /* no entry had named it when something below was made; lower layers may have it */
    NODE_INHERITS = NODE_SETGID | NODE_ACL
};

struct node {
    struct node *parent; /* NULL: the root */
    struct node *chain;  /* hash table */
    struct node *child, *sibling, *sibling_before;
    struct node *older, *newer; /* all nodes; a parent is older than its children */
    struct node *recent, *stale; /* those with a descriptor, by use; not the root */
    uint64_t id;                 /* never used twice */
    int64_t mtime;               /* the entry's, or what it was before this layer */
    uint32_t mtime_ns;
    uint32_t hash;
    int fd;
    uint16_t flags;
    uint16_t mode;
    uint16_t born;     /* the mode it certainly has from its making, 0: unknown */
    uint16_t path_len; /* of its path below the root */
    char name[];       /* starts at once: an archive chooses how many nodes there are */
};

struct extract;
struct split_name;
struct losses;

/* How a layer becomes files: at once in the tree (direct.c), aside for later (stage.c), out of what was made aside (adopt.c), or
 * alone, for lower layers that are not there (overlay.c). Chosen at creation; the third takes over from the first when the first
 * entry is adopted. */
struct extract_writer {
    struct tar_sink sink;
    /* Open what is written below: 0, or -1 with errno. */
    int (*begin)(struct extract *ex, int directory_fd);
    /* Make a file of the tree, or move it there: 0, or -1 with errno, EEXIST when something has the name. A stager's are its own. */
    int (*make_file)(struct extract *ex, int dir, unsigned inherits, const char *name, const struct tar_entry *entry);
    /* Do what a whiteout asks for, of one name or opaque: TAR_OK or a code. */
    int (*hide)(struct extract *ex, const struct split_name *name, int opaque);
    /* Let nothing have a name, here or in lower layers: TAR_OK or a code. */
    int (*vacate)(struct extract *ex, struct node *dir, const char *name);
    /* Whether lower layers, which are not there, may have what is missing in a directory; notes the reason (or 0) then.
     * NULL: they are there. */
    int (*unseen)(struct extract *ex, const struct node *dir, unsigned reason);
    /* Whether this is a whiteout: nothing is there. NULL: there are none. */
    int (*is_whiteout)(int dir, const char *name);
    /* The layer is lost. */
    void (*failed)(struct extract *ex);
    /* The archive is whole: TAR_OK or a code. */
    int (*finish)(struct extract *ex);
    void (*free)(struct extract *ex);
};

struct extract {
    struct layer layer;
    const struct extract_writer *writer;
    struct extract_options options;
    uid_t uid;
    gid_t gid;
    int closed;
    int start_error; /* errno of the writer's begin, for the first feed */
    struct tar *tar;
    uint64_t key[2];      /* of the hash: an attacker chooses the names */

    struct node **table;
    size_t table_size, nodes;
    uint64_t last_id;
    struct node *root, *oldest, *newest;
    struct node *most_recent, *most_stale;
    struct node *pinned; /* stays open, however many others are opened; NULL: none */
    size_t open_fds, max_fds;

    uint64_t *own; /* open addressing; names of this layer that are not directories, by hash */
    size_t own_size, own_count;

    char *dents;              /* buffer of the directory that is being read */
    struct node **pending;    /* directories whose lower content is to be removed */
    size_t pending_count, pending_capacity;

    const struct tar_entry *entry;
    int file;               /* the file that is being written, or -1 */
    unsigned file_inherits; /* NODE_INHERITS of the directory it is in */
    mode_t file_born;       /* as node.born */
    enum { MODE_UNASKED, MODE_MASKED, MODE_EXACT } mode_state; /* whether the umask is 0 in this call */
    mode_t umask;           /* to be restored */
    int believed, inexact;  /* modes given at the making have been seen to hold, or not to */
    struct stage *stage;        /* a stager's */
    struct adoption *adoption;  /* what is taken from a stager */
    struct losses *losses;      /* where it is noted what files are not given; NULL: nowhere */
    struct node *fault; /* the directory that failed at the end */
    uint64_t removals;  /* names that were there and are gone */
};

/* The same for what came out of the reader, if it is a failure. */
int extract_failed_here(struct extract *ex, int code);
/* The code that this call must return before it does anything, or TAR_OK. */
int extract_usable(struct extract *ex);
#endif
