/* From a decoded header and the extensions before it to one entry, in the order in which Go applies them. */
#include "tar/entry.h"

#include "tar/body.h"
#include "tar/pax.h"
#include "tar/sparse.h"

#include <string.h>

static void merge_pax(struct tar *tar, struct tar_entry *entry, int64_t *size)
{
    const struct tar_pax *pax = &tar->pax;
    int64_t seconds;
    uint32_t nanoseconds;

    if (pax->path.len)
        entry->path = pax->path;
    if (pax->linkpath.len)
        entry->link = pax->linkpath;
    tar_apply_number(tar, pax->size, size);
    tar_apply_number(tar, pax->uid, &entry->uid);
    tar_apply_number(tar, pax->gid, &entry->gid);
    tar_apply_time(tar, pax->mtime, &entry->mtime, &entry->mtime_ns);
    tar_apply_time(tar, pax->atime, &seconds, &nanoseconds);
    tar_apply_time(tar, pax->ctime, &seconds, &nanoseconds);
    entry->xattrs = tar->xattrs.items;
    entry->xattr_count = tar->xattrs.count;
}

static char type_of(uint8_t type, struct tar_bytes path)
{
    switch (type) {
    case 0: /* before ustar a directory was a name that ends in a slash */
        return path.len && path.data[path.len - 1] == '/' ? 'd' : 'f';
    case '0':
    case '7':
    case 'S':
        return 'f';
    case '1':
        return 'h';
    case '2':
        return 'l';
    case '3':
        return 'c';
    case '4':
        return 'b';
    case '5':
        return 'd';
    case '6':
        return 'p';
    default:
        return 0;
    }
}

static struct tar_bytes text_of(const struct tar_buffer *buffer)
{
    const uint8_t *nul = buffer->len ? memchr(buffer->data, 0, buffer->len) : NULL;

    return (struct tar_bytes){buffer->data, nul ? (size_t)(nul - buffer->data) : buffer->len};
}

void tar_begin_entry(struct tar *tar, const uint8_t *block)
{
    const struct tar_header *header = &tar->header;
    struct tar_entry *entry = &tar->entry;
    int64_t size = header->size;
    int pax = tar->pax_text.set;

    entry->link = (struct tar_bytes){header->link, header->link_len};
    entry->mode = (uint32_t)((uint64_t)header->mode & 07777);
    entry->uid = header->uid;
    entry->gid = header->gid;
    entry->mtime = header->mtime;
    entry->devmajor = header->devmajor;
    entry->devminor = header->devminor;
    entry->offset = tar->header_at;
    if (pax)
        merge_pax(tar, entry, &size);
    if (tar->long_name.set && text_of(&tar->long_name).len)
        entry->path = text_of(&tar->long_name);
    if (tar->long_link.set && text_of(&tar->long_link).len)
        entry->link = text_of(&tar->long_link);
    tar->pax_text.set = tar->long_name.set = tar->long_link.set = 0;
    entry->type = type_of(header->type, entry->path);
    if (!entry->type)
        return tar_fail(tar, TAR_TYPE, header->type);
    if (tar->code || tar_set_size(tar, entry->type == 'f' ? size : 0))
        return;
    entry->size = tar->left;
    if (header->type == 'S')
        tar_begin_old_sparse(tar, block);
    else if (pax)
        tar_begin_pax_entry(tar);
    else
        tar_begin_body(tar);
}
