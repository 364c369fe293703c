/* Makes the files of one layer below a directory: tar bytes in, files out.
 *
 * Every name is walked by directory descriptors, one component at a time; the kernel never follows a symbolic link here.
 * Symbolic links in a parent path are resolved inside the root. It knows no compression, no digests and no Python.
 * Spec: OCI image-spec v1.1 layer.md (change sets, whiteouts, opaque whiteouts). Codes are those of code.h. */
#ifndef FASTOCI_EXTRACT_EXTRACT_H
#define FASTOCI_EXTRACT_EXTRACT_H

#include "layer/code.h"
#include "layer/facts.h"
#include "extract/options.h"

#include <stddef.h>
#include <stdint.h>

struct losses;
struct extract; /* an extractor, or a stager: feed, finish, close, free and the facts are the same for both */

/* root_fd stays the caller's and must stay open until extract_close. NULL: no memory. */
struct extract *extract_new(int root_fd, const struct extract_options *options);

/* A stager: what of a layer needs no lower layers. Files, whole, are put into an empty private directory on the root's file
 * system, named by number; all entries go into a log there that has no name. base is not used. Its facts count what it did:
 * all entries, but owners and xattrs of files only. Memory does not grow with the layer. */
struct extract *extract_new_stager(int directory_fd, const struct extract_options *options);

/* The layer alone, in the form of overlayfs, for lower layers that are not there: into an empty directory on a file system with
 * extended attributes. Whiteouts are character devices 0:0, opaque directories have the attribute overlay.opaque, directories with
 * whiteouts overlay.origin. base is not used. Where facts.reasons is not 0, the directory is not exact on top of every stack of
 * layers, and a refusal may be wrong: then only the layers together can be made. */
struct extract *extract_new_overlay(int directory_fd, const struct extract_options *options);

/* Note in losses, which stays the caller's, what files are not given; and where a device cannot be made, make an empty file in its
 * place, for the caller to remove. Before anything is fed; of an adopting extractor and its stager both. */
void extract_note(struct extract *ex, struct losses *losses);

/* Do with the next count entries of a stager what feeding them would do, but move its files into place. ex has been fed nothing
 * and has the owners of the stager; it takes from one stager, which has finished or failed and is not closed. 1: there are
 * more; 0: that was all, and extract_finish is next; a negative code: of this entry, or the stager's own after its last entry,
 * with the facts that a fed layer would give. Files that are not needed stay where they were staged. */
int extract_adopt(struct extract *ex, const struct extract *stager, uint64_t count);

/* Parse and extract len bytes; TAR_OK or a code. After a code the layer is lost and every call returns that code. */
int extract_feed(struct extract *ex, const uint8_t *data, size_t len);

/* Demand the end of the archive and set the times of directories; TAR_OK or a code. */
int extract_finish(struct extract *ex);

/* A directory of the overlay form that lower layers have a say in, since no entry names it: parents come before children. *at is
 * NULL at first. Its path is put into path, of EXTRACT_PATH bytes; 1, or 0 when there is no more. Between extract_finish and
 * extract_close. */
enum { EXTRACT_PATH = 4096 };
int extract_next_implied(const struct extract *ex, const void **at, char *path);

/* Close every descriptor and free all but the facts; idempotent. */
void extract_close(struct extract *ex);

/* extract_close, then the rest; NULL is fine. */
void extract_free(struct extract *ex);

/* As of the end of the last call; from any thread, also while a call is under way. */
void extract_get_facts(const struct extract *ex, struct layer_facts *facts);

#endif
