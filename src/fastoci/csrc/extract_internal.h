/* What the files of the extractor share. Not for other units.
 *
 * A node is a directory that this layer has touched, under its physical name: symbolic links are resolved before, so a
 * directory has one node whatever way leads to it. Nodes hold descriptors while they are recently used. */
#ifndef FASTOCI_EXTRACT_INTERNAL_H
#define FASTOCI_EXTRACT_INTERNAL_H

#include "directory.h"
#include "extract.h"
#include "stop.h"

#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

enum {
    NAME_LEN = 255,
    LINKS_MAX = 255,
    LINK_BYTES_MAX = 16384, /* text of all links on one way: four longest paths; a bound on work, not on sense */
    EXTRACT_TARGET_MAX = 4095,
    PATH_LEN = 4095, /* Linux's PATH_MAX, without the NUL: what is deeper cannot be named by those who use the tree */
    XATTRS_MAX = 512,
    NAMES_FREE = 512, /* bytes of an entry's name and link that do not count as size */
    IMPLIED_MODE = 0755, /* of a directory that no entry names */
    WALK_MISSING = -1,
    WALK_LINK = -2,
    TREE_FDS_MIN = 16
};

enum node_flags {
    NODE_MADE = 1,    /* this layer made the directory, so nothing of lower layers is in it */
    NODE_BARE = 2,    /* lower content has been removed from it (or never was there) */
    NODE_NAMED = 4,   /* an entry of this layer gives its metadata */
    NODE_HOLDS = 8,   /* it, or something below, is content of this layer */
    NODE_DIRTY = 16,  /* names were made or removed in it */
    NODE_SETGID = 32, /* what is made in it takes its group */
    NODE_MODE = 64,   /* its mode is narrower than what we need now and is set at the end */
    NODE_ACL = 128,   /* what is made in it takes its default ACL */
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

struct walk_buffer {
    char *text;
    size_t capacity;
};

struct extract {
    struct extract_options options;
    struct extract_facts facts;
    struct extract_facts published; /* as of the end of the last call, for other threads: extract_publish */
    char *fault_path;
    uid_t uid;
    gid_t gid;
    int closed;
    int start_error; /* errno of extract_new, told by the first feed */
    struct tar *tar;
    int64_t value;        /* of the failure in the making */
    uint64_t made;        /* entries and implied directories */
    uint64_t size;        /* what counts for max_bytes; of files with their holes */
    uint64_t work;
    uint64_t key[2];      /* of the hash: names are chosen by the enemy */

    struct node **table;
    size_t table_size, nodes;
    uint64_t last_id;
    struct node *root, *oldest, *newest;
    struct node *most_recent, *most_stale;
    struct node *pinned; /* stays open, however many others are opened; NULL: none */
    size_t open_fds, max_fds;

    uint64_t *own; /* open addressing; names of this layer that are not directories, by hash */
    size_t own_size, own_count;

    struct walk_buffer walk[2];
    struct walk_buffer cached; /* the parent part of the last entry's name, as spelled, and where it led */
    size_t cached_len;
    struct node *cached_node; /* NULL: nothing */
    char *dents;              /* buffer of the directory that is being sifted */
    struct node **pending;    /* directories whose lower content is to be removed */
    size_t pending_count, pending_capacity;

    const struct tar_entry *entry;
    int file;               /* the file that is being written, or -1 */
    unsigned file_inherits; /* NODE_INHERITS of the directory it is in */
    mode_t file_born;       /* as node.born */
    enum { MODE_UNASKED, MODE_MASKED, MODE_EXACT } mode_state; /* whether the umask is 0 in this call */
    mode_t umask;           /* to be restored */
    int believed, inexact;  /* modes given at the making have been seen to hold, or not to */
    struct stage *stage;        /* a stager's; NULL: an extractor that makes the tree */
    struct adoption *adoption;  /* what is taken from a stager; NULL: none so far */
    struct node *fault; /* the directory that failed at the end */
    uint64_t removals;  /* names that were there and are gone */
};

/* What an entry asks for, as far as its header says. */
enum verdict { VERDICT_NOTHING, VERDICT_WHITEOUT, VERDICT_OPAQUE, VERDICT_ROOT, VERDICT_MAKE };

/* Work that a few bytes of an archive can ask for, in units of about 60 ns; ordinary entries need a tenth of WORK_ENTRY. */
enum work {
    WORK_ENTRY = 512,   /* what each entry may use */
    WORK_COMPONENT = 1, /* of a way: a look into the hash table */
    WORK_OPEN = 16,     /* a directory that had been closed */
    WORK_SEGMENT = 16,  /* a write to a sparse file */
    WORK_LINK = 32,     /* a symbolic link on the way */
    WORK_XATTR = 64,
    WORK_IMPLIED = 256  /* a directory that no entry names */
};

/* A name split at its last component. */
struct split_name {
    const uint8_t *parent;
    size_t parent_len;
    size_t base_len; /* 0: the root */
    char base[NAME_LEN + 1];
};

/* At the end of a call: let other threads see the facts. Returns result. */
int extract_publish(struct extract *ex, int result);
/* Failure of a system call: remembers errno; EXTRACT_IO, or what directory_open and the removal mean by EXDEV, EBUSY, ECANCELED. */
int extract_io(struct extract *ex);
/* Failure with a number. */
int extract_bad(struct extract *ex, int code, int64_t value);

/* Remember the first failure and where it is; the code. */
int extract_failed(struct extract *ex, int code, uint64_t offset, int64_t value, struct tar_bytes path);
/* Whether the entries so far may have asked for so much work: TAR_OK or EXTRACT_WORK. */
int extract_worked(struct extract *ex);
/* The code that this call must return before it does anything, or TAR_OK. */
int extract_usable(struct extract *ex);
/* One entry to the tree; the content of a file follows through the sink, unless there is an adoption. */
int extract_apply(struct extract *ex, const struct tar_entry *entry);
/* The parts of the sink that the stager shares. */
int extract_data(void *ctx, uint64_t offset, const uint8_t *data, size_t len);
int extract_file_end(struct extract *ex);
/* Everything but the reader and what it feeds. NULL: no memory. */
struct extract *extract_create(const struct extract_options *options, const struct tar_sink *sink);

/* extract_judge.c */
/* Count and check an entry as far as its header goes. */
int extract_judge(struct extract *ex, const struct tar_entry *entry, struct split_name *name, enum verdict *verdict);
uint64_t extract_xattr_bytes(const struct tar_entry *entry);
/* Count what takes space beside the content of files: TAR_OK or EXTRACT_BYTES. */
int extract_count_extra(struct extract *ex, uint64_t bytes);
/* Split and check a name. *leftover: it is below a directory that AUFS left behind. */
int extract_split(struct extract *ex, struct tar_bytes path, struct split_name *out, int *leftover);

/* extract_stage.c */
/* The layer is lost: log what was being written, so that whoever adopts sees it. */
void stage_failed(struct extract *ex);
/* The archive is whole: complete the log. TAR_OK or a code. */
int stage_finish(struct extract *ex);
void stage_free(struct extract *ex);

/* extract_adopt.c */
/* Move the file that is adopted to a name that nothing has: 0, or -1 with errno (EEXIST: something has it). */
int adopt_file(const struct extract *ex, int dir, const char *name);
/* Whether a whole layer was taken, if any. */
int adopt_ended(const struct extract *ex);
void adopt_free(struct extract *ex);

/* extract_make.c */
/* Make the file of an entry and open it as ex->file: 0, or -1 with errno. inherits: NODE_INHERITS of the directory. */
int make_file(struct extract *ex, int dir, unsigned inherits, const char *name, const struct tar_entry *entry);
int make_entry(struct extract *ex, const struct split_name *name, const struct tar_entry *entry);
int make_root(struct extract *ex, const struct tar_entry *entry);

/* extract_tree.c: nodes and what this layer made. */
int tree_init(struct extract *ex, int root_fd);
void tree_free(struct extract *ex);
/* The node of a child, or NULL when this layer has not touched it. */
struct node *tree_find(struct extract *ex, const struct node *dir, const char *name);
/* Register an open directory; existing: fstat it for its time and mode. NULL with errno; fd is then closed. */
struct node *tree_add(struct extract *ex, struct node *parent, const char *name, int fd, int existing);
/* Forget a directory that is about to go, and all below it. */
void tree_drop(struct extract *ex, struct node *node);
/* The descriptor of a node: give it up, take a new one, mark it as just used. */
void tree_shut(struct extract *ex, struct node *node);
/* Close the one that was used longest ago. */
void tree_shut_stale(struct extract *ex);
void tree_keep_open(struct extract *ex, struct node *node, int fd);
void tree_used(struct extract *ex, struct node *node);
/* Note content of this layer. */
void tree_hold(struct node *node);
int tree_own(struct extract *ex, struct node *dir, const char *name);
int tree_owns(struct extract *ex, const struct node *dir, const char *name);

/* Whether there may be this name in a directory; as a directory of its own: TAR_OK or a code. */
int tree_fits(struct extract *ex, const struct node *dir, size_t len, int directory);

/* extract_walk.c: descriptors and ways. */
/* A descriptor that holds until another node's is asked for, which may take opening all on the way to it; -1 with errno. */
int tree_fd(struct extract *ex, struct node *node);
/* NODE_INHERITS of an open directory: NODE_ACL by its attributes, NODE_SETGID by its mode. */
unsigned tree_inherits(int fd, mode_t mode);
/* Make a directory and its node, with this mode (node.born) or 0700 for now. TAR_OK, EXTRACT_IO (errno EEXIST is for the caller) or a code. */
int tree_make(struct extract *ex, struct node *parent, const char *name, mode_t mode, struct node **out);
/* Where a parent part leads, links resolved inside the root. create: make what is missing.
 * TAR_OK, WALK_MISSING, or a code. */
int tree_walk(struct extract *ex, const uint8_t *path, size_t len, int create, struct node **out);

/* extract_remove.c */
/* Remove whatever has this name; nothing there is fine. */
int remove_name(struct extract *ex, struct node *dir, const char *name);
/* Remove what lower layers left in a directory; keep what this layer made. */
int remove_lower(struct extract *ex, struct node *dir);
/* The same for one name. */
int remove_lower_name(struct extract *ex, struct node *dir, const char *name);

/* extract_mode.c */
/* The mode to make a file or directory with so that it needs no chmod; 0: it does, and is made private until then. */
mode_t mode_at_birth(struct extract *ex, mode_t mode, unsigned inherits, size_t xattrs);
/* What has been made with mode_at_birth's answer: the mode it certainly has, or 0. */
mode_t mode_believed(struct extract *ex, int fd, mode_t mode);
/* At the end of every call that may have made something. */
void mode_restore(struct extract *ex);

/* extract_meta.c */
/* Where a file or directory comes from, for what must still be done to it. */
struct origin {
    int fresh;         /* made by us just now and still as made */
    unsigned inherits; /* what the directory it was made in may have given it (NODE_INHERITS) */
    mode_t born;       /* the mode it certainly has; 0: unknown */
};

/* Owner, xattrs, mode of an open file or directory. */
int meta_open(struct extract *ex, int fd, const struct tar_entry *entry, struct origin origin, mode_t mode);
/* Owner, xattrs, mode and time of what cannot be opened. */
int meta_closed(struct extract *ex, int dir, const char *name, const struct tar_entry *entry, unsigned inherits);
/* As an implied directory: 0755, root, no xattrs. */
int meta_implied(struct extract *ex, int fd, struct origin origin);
void meta_time(const struct tar_entry *entry, struct timespec times[2]);
/* Times and narrow modes of directories. */
int meta_directories(struct extract *ex);

#endif
