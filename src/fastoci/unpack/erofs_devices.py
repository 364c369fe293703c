"""Merged metadata whose devices are the tars of layers themselves, in place of layer files: for those who have no layer
files, and make the tars from the layers that they pull.

A layer file has its tar from byte 4096 on. So each device of the copy begins that much later and ends with the tar, and
nothing else of the metadata changes. Content that the writer copied behind a tar has no place in such a device.
Spec: Linux erofs_fs.h, ``erofs_deviceslot``; erofs-image-spec (draft) 2.4 "device", 8.1 (tags).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Final

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import FormatError, StoreError, UnsupportedError
from fastoci.image.digest import Digest
from fastoci.image.layer_file import TAR_OFFSET
from fastoci.unpack.erofs_reader import ErofsReader

_BLOCK: Final = 512
_HEAD: Final = TAR_OFFSET // _BLOCK  # blocks of a layer file in front of the tar
_TABLE: Final = struct.Struct("<H")
_TABLE_AT: Final = 1024 + 88  # of the superblock: where the table of devices is, in slots
_SLOT: Final = struct.Struct("<64sII56x")  # tag, blocks, address


class TarDevices:
    """The bytes of a copy of merged metadata, a buffer at a time. Belongs to one thread at a time.

    Args:
        fd: the merged metadata; stays the caller's.
        name: it in messages.
        devices: for each layer, the lowest first, the digest of its blob and the bytes of its tar.
    Raises:
        UnsupportedError: a layer has content that is not in its tar as the kernel reads it.
        FormatError: these are not the devices of this file. StoreError: it cannot be read.
    """

    def __init__(self, fd: int, name: str, devices: Sequence[tuple[Digest, int]]) -> None:
        self._fd = fd
        self._name = name
        self._offset = 0
        with files.translated("read", name):
            self._size = os.fstat(fd).st_size
            self._at = _TABLE.unpack(os.pread(fd, _TABLE.size, _TABLE_AT))[0] * _SLOT.size
        slots = ErofsReader(fd, name).devices
        if len(slots) != len(devices) or not devices:
            raise FormatError(f"{name} has {len(slots)} devices, and the image {len(devices)} layers")
        table = bytearray()
        for slot, (digest, tar_size) in zip(slots, devices, strict=True):
            if slot.blocks != _HEAD + -(-tar_size // TAR_OFFSET) * _HEAD:
                raise UnsupportedError(f"layer {digest} has files whose content cannot be used where it is in the tar")
            blocks = -(-tar_size // _BLOCK)
            table += _SLOT.pack(digest.hex[:64].encode(), blocks, slot.address + _HEAD)
        self._table = bytes(table)

    def fill(self, out: Buffer) -> bool:
        """Fill ``out``; False at the end.

        Raises:
            StoreError: the disk refused to read it, or it is too short.
        """
        while (room := min(out.room, self._size - self._offset)) > 0:
            view = out.reserve(room)
            with files.translated("read", self._name):
                count = os.preadv(self._fd, [view], self._offset)
            if not count:
                raise StoreError(f"{self._name} ends after {self._offset} of {self._size} bytes", path=self._name)
            begin = max(self._at, self._offset)
            end = min(self._at + len(self._table), self._offset + count)
            if begin < end:
                view[begin - self._offset : end - self._offset] = self._table[begin - self._at : end - self._at]
            view.release()
            out.advance(count)
            self._offset += count
        return self._offset < self._size

    def stop(self) -> None:
        """From any thread: nothing, since ``fill`` ends soon."""
