/* The superblock at byte 1024, with a checksum of its block from there on, and a slot of 128 bytes for each device. */
#include "erofs/super.h"

#include "erofs/output.h"
#include "erofs/put.h"

#include <string.h>

enum { SUPER_AT = 1024, DEVICE_SIZE = 128, SLOT_UNIT = 128, CHECKSUM_AT = 4 };
enum { COMPAT_CHECKSUM = 1, COMPAT_MTIME = 2, INCOMPAT_CHUNKS = 4, INCOMPAT_DEVICES = 8 };

static const uint32_t MAGIC = 0xe0f5e1e2, CRC32C = 0x82f63b78;

/* Without the last complement. */
static uint32_t checksum(const uint8_t *data, size_t len)
{
    uint32_t crc = 0xffffffff;

    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? CRC32C : 0);
    }
    return crc;
}

uint64_t erofs_devices_size(const struct erofs *e)
{
    return e->device_count * DEVICE_SIZE;
}

int erofs_put_devices(struct erofs *e)
{
    int code = e->devices ? erofs_seek(e, &e->output, EROFS_HEAD) : TAR_OK;

    for (const struct erofs_device *device = e->devices; device && !code; device = device->next) {
        uint8_t slot[DEVICE_SIZE] = {0};
        memcpy(slot, device->tag, sizeof device->tag);
        put32(slot + 64, (uint32_t)device->blocks);
        put32(slot + 68, (uint32_t)(device->first + e->shift));
        code = erofs_put(e, &e->output, slot, sizeof slot);
    }
    return code;
}

int erofs_put_super(struct erofs *e)
{
    uint8_t head[EROFS_HEAD] = {0}, *super = head + SUPER_AT;
    size_t block = (size_t)1 << e->block_bits;
    int code;

    put32(super, MAGIC);
    put32(super + 8, COMPAT_CHECKSUM | COMPAT_MTIME);
    super[12] = (uint8_t)e->block_bits;
    put16(super + 14, (uint16_t)e->root_slot);
    put64(super + 16, e->inodes);
    put32(super + 36, (uint32_t)(e->file_size >> e->block_bits));
    put32(super + 40, (uint32_t)(e->metadata_at >> e->block_bits));
    memcpy(super + 48, e->options.uuid, sizeof e->options.uuid);
    put32(super + 80, (e->chunked ? INCOMPAT_CHUNKS : 0) | (e->devices ? INCOMPAT_DEVICES : 0));
    put16(super + 86, (uint16_t)e->device_count);
    put16(super + 88, e->devices ? EROFS_HEAD / SLOT_UNIT : 0);
    put32(super + CHECKSUM_AT, checksum(super, block > SUPER_AT ? block - SUPER_AT : block));
    if ((code = erofs_seek(e, &e->output, 0)) || (code = erofs_put(e, &e->output, head, sizeof head)))
        return code;
    return erofs_flush(e, &e->output);
}
