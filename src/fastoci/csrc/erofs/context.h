/* What the files of the EROFS writer share. Not for other units.
 *
 * The whole tree is in memory: names, inodes and directories, in an arena that only grows and is counted, and goes to the file above a
 * limit. A name whose inode is NULL
 * is not there (any more). Inodes of hard links are shared by names. */
#ifndef FASTOCI_EROFS_CONTEXT_H
#define FASTOCI_EROFS_CONTEXT_H

#include "erofs/options.h"
#include "layer/context.h"
#include "layer/walk.h"
#include "tar/sink.h"

#include <stddef.h>
#include <stdint.h>

enum {
    EROFS_HEAD = 4096,      /* bytes in front of the tar */
    EROFS_FIRST_SLOT = 4,   /* of the root's inode: 0 is no inode number to readdir */
    EROFS_SLOT = 32,        /* bytes that inode numbers count */
    EROFS_NO_BLOCK = -1,    /* as a block: of an empty file, and a hole */
    EROFS_LAYERS_MAX = 4096 /* layers of an image; a name's layer has 16 bits */
};

struct erofs_xattrs { /* as they are on the disk */
    uint32_t size;
    uint32_t padding;
    uint8_t data[];
};

struct erofs_sparse {
    uint64_t body;    /* in the tar, of the pieces one behind the other */
    uint64_t block;   /* where the content is: the first piece in the tar, or the first chunk of a copy */
    uint32_t count;
    uint8_t chunk_bits; /* of a chunk's bytes */
    uint8_t copied;   /* whole chunks that hold pieces, one behind the other */
    struct tar_segment segments[];
};

enum inode_flags {
    INODE_SPARSE = 1,
    INODE_WHITEOUT = 2,
    INODE_DIRTY = 4,   /* its content is not followed by zeros in the tar, so it is copied behind it */
    INODE_INLINE = 8,  /* its text or last names lie behind the inode */
    INODE_PLACED = 16, /* has its slot */
    INODE_WRITTEN = 32
};

struct erofs_inode {
    uint64_t size; /* of a directory on the disk, too */
    union {
        uint64_t block; /* of a file's content, 512 or 4096 bytes each */
        const char *target;
        struct erofs_sparse *sparse;
        struct erofs_name *names; /* of a directory */
        uint64_t device;
    } data;
    struct erofs_xattrs *xattrs; /* NULL: none */
    int64_t mtime;
    uint32_t mtime_ns;
    uint32_t uid, gid;
    uint32_t links;
    uint32_t slot; /* of its metadata */
    uint16_t mode; /* with its type */
    uint16_t flags;
};

enum directory_flags {
    DIR_MADE = 1,   /* this layer made the directory, so nothing of lower layers is in it */
    DIR_BARE = 2,   /* lower content has been removed from it (or never was there) */
    DIR_NAMED = 4,  /* an entry of this layer gives its metadata */
    DIR_HOLDS = 8,  /* it, or something below, is content of this layer */
    DIR_LAYER = 15, /* those that speak of one layer */
    DIR_OPAQUE = 16, /* of a single layer: nothing of lower layers shows in it */
    DIR_CUT = 32,    /* that, or below such a directory; known when the tree is whole */
    DIR_WHITEOUTS = 64
};

struct erofs_directory {
    struct erofs_inode inode;
    struct erofs_directory *parent; /* NULL: the root */
    struct erofs_directory *next;   /* in the order of the metadata */
    uint16_t layer;               /* that its flags of DIR_LAYER speak of */
    uint16_t flags;
    uint16_t path_len; /* of its path below the root */
};

struct erofs_name {
    struct erofs_name *chain; /* hash table */
    struct erofs_name *next;  /* of the directory, unless it is not listed */
    struct erofs_directory *directory;
    struct erofs_inode *inode; /* NULL: nothing has the name */
    uint32_t hash;
    uint16_t layer; /* that made what has the name */
    uint8_t listed;
    uint8_t len;
    char text[];
};

struct erofs_copy { /* a file whose content lies behind the tar, too */
    struct erofs_copy *next;
    struct erofs_inode *inode;
    uint64_t body; /* in the tar */
    uint64_t size; /* in the tar */
};

struct erofs_device {
    struct erofs_device *next;
    uint8_t tag[64];
    uint64_t first, blocks; /* of all the devices' blocks */
};

struct erofs_block; /* of the arena */

struct erofs_arena {
    struct erofs_block *newest;
    size_t left;     /* in the newest */
    uint64_t used;   /* of memory that is allocated */
    uint64_t limit;
    uint64_t mapped; /* of memory in the file */
    uint64_t mapped_end; /* of what was mapped, given back or not */
    int error;           /* of the file, that takes no more; or 0 */
};

struct erofs_output { /* bytes to the file, one behind the other */
    uint8_t *buffer;
    size_t have;
    uint64_t at; /* in the file, of the buffer's first byte */
};

struct erofs {
    struct layer layer;
    struct erofs_options options;
    int fd;
    int closed, finished, cached;
    unsigned block_bits;
    struct tar *tar;
    uint64_t fed;        /* bytes of the tar at hand */
    uint64_t base;       /* block of the tar's first byte */
    uint64_t tar_size, metadata_at, file_size;

    struct erofs_arena arena;
    uint64_t key[2]; /* of the hash: an attacker chooses the names */
    struct erofs_name **table;
    size_t table_size, names;
    struct erofs_directory *root;
    uint16_t number;                      /* of the layer */
    const struct erofs_directory *missing; /* where the last walk found nothing, */
    int hidden;                            /* because a whiteout hides it */
    struct erofs_directory **pending;      /* directories whose lower content is to be removed */
    size_t pending_count, pending_capacity;

    struct erofs_inode *file; /* the file whose content follows, or NULL */
    struct erofs_copy *copies, **last_copy;
    struct erofs_copy at_hand; /* the file */
    struct erofs_device *devices, **last_device;
    size_t device_count;

    struct erofs_output output;  /* content, then inodes */
    struct erofs_output outline; /* what is behind all inodes */
    uint64_t next_block; /* for content that is copied */
    uint64_t run, chunk; /* of the sparse file that is copied: chunks so far, and the last one */

    struct erofs_directory *last_directory; /* in the order of the metadata */
    uint64_t slots, inodes;
    uint32_t root_slot;
    uint64_t outline_at;    /* first block behind the inodes, */
    uint64_t outline_count; /* where whole blocks of directories and links that are long lie */
    uint64_t shift;   /* blocks in front of the devices' */
    int chunked;      /* there are sparse files */
};

static inline int erofs_single(const struct erofs *e)
{
    return e->options.form != EROFS_MERGED;
}

static inline uint64_t erofs_round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

#endif
