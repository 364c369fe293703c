"""Reads the EROFS files that this project writes: inodes, directories, attributes, and where the data of files are.

It is written from the format, not from the writer, so that each examines the other. A file on disk may be damaged: each
number is held against the file before it is used, and whoever walks a tree passes each directory once. What this
project does not write (compression, attributes that inodes share, packed and meta inodes) is refused.
Belongs to one thread at a time; owns no descriptor. Spec: Linux Documentation/filesystems/erofs.rst, erofs_fs.h.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from fastoci import files
from fastoci.errors import FormatError, UnsupportedError

_SUPERBLOCK: Final = 1024  # its offset
# magic, checksum, compat, block bits, extra slots, root, inodes, epoch, nsec, blocks, metadata, attributes, uuid, name,
# incompat, algorithms, devices, device table
_FIELDS: Final = struct.Struct("<IIIBBHQQIIII16s16sIHHH38x")
_MAGIC: Final = 0xE0F5E1E2
_CHECKSUM: Final = 1  # of feature_compat
_KNOWN: Final = 0x1 | 0x4 | 0x8  # of feature_incompat: where compressed data end (there are none), chunks, devices
_BLOCK_BITS: Final = range(9, 17)

_SLOT: Final = struct.Struct("<64sII56x")  # tag, blocks, address
_NID: Final = 32  # bytes for which a nid counts one
_COMPACT: Final = struct.Struct("<HHHHI4xIIHH4x")  # format, attributes, mode, links, size, union, ino, uid, gid
_EXTENDED: Final = struct.Struct("<HHH2xQIIIIqII16x")  # ..., size, union, ino, uid, gid, seconds, nanoseconds, links
_PLAIN, _INLINE, _CHUNKS = 0, 2, 4  # layouts
_NOWHERE: Final = 0xFFFFFFFF  # the block of a hole, or of no data
_CHUNK_BITS: Final = 0x1F
_CHUNK_INDEXES: Final = 0x20

_DIRENT: Final = struct.Struct("<QHBx")  # nid, offset of the name, type
_NAME: Final = 255
LINK: Final = 4096  # bytes of a symbolic link's target
_KINDS: Final = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFLNK: 7,
}  # to the type of a directory's entry; 6, a socket, is in no layer

_XATTR: Final = struct.Struct("<BBH")  # length of the name, prefix, size of the value
_XATTR_HEADER: Final = 12
_PREFIXES: Final = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
_WINDOW: Final = 64 << 10  # bytes read at once: inodes of one directory are beside each other


class DeviceSlot(msgspec.Struct, frozen=True):
    """One device of a file: its tag, and which blocks of the whole are in it."""

    tag: str
    blocks: int
    address: int


class Inode(msgspec.Struct, frozen=True):
    """One inode. ``position`` is its offset in the file; ``union`` the first block, a device number, or chunks."""

    nid: int
    position: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    links: int
    layout: int
    union: int
    body: int  # bytes of the inode itself
    xattrs: int  # bytes behind it that are attributes

    @property
    def type(self) -> int:
        """As of ``stat.S_IFMT``."""
        return stat.S_IFMT(self.mode)

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor of a device node."""
        return (self.union & 0xFFF00) >> 8, (self.union & 0xFF) | ((self.union >> 12) & 0xFFF00)


class Name(msgspec.Struct, frozen=True):
    """One entry of a directory."""

    name: bytes
    nid: int


class Piece(msgspec.Struct, frozen=True):
    """A part of a file's data, ``size`` bytes from ``offset`` on.

    They are at ``position`` of a device; 0 is the file that was read, ``None`` is a hole.
    """

    offset: int
    size: int
    device: int | None
    position: int


class ErofsReader:
    """The metadata of one EROFS file.

    Args:
        fd: the file; stays the caller's.
        name: the file in messages.
    Raises:
        FormatError: it is not EROFS, or damaged. UnsupportedError: this project did not write it.
        StoreError: the disk refused to read it. So by all methods.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._window, self._start = b"", 0
        with files.translated("read", name):
            self._size = os.fstat(fd).st_size
        fields = _FIELDS.unpack(self._read(_SUPERBLOCK, _FIELDS.size))
        magic, checksum, compat, bits, _, root, self.inodes, epoch, nanoseconds, blocks, metadata, *rest = fields
        _, self.uuid, _, incompat, _, devices, table = rest
        self._bits: int = bits
        if magic != _MAGIC:
            raise FormatError(f"{name} is not EROFS")
        if self._bits not in _BLOCK_BITS or blocks > self._size >> self._bits:
            raise self._damage("its superblock", _SUPERBLOCK)
        if compat & _CHECKSUM:
            self._check(checksum)
        if incompat & ~_KNOWN:
            raise UnsupportedError(f"{name} uses features of EROFS that fastoci does not write: {incompat:#x}")
        self.block_size: int = 1 << bits
        self._blocks = blocks
        self._metadata = metadata << self._bits
        self._epoch_ns = epoch * 1_000_000_000 + nanoseconds
        self.devices = tuple(self._slot(table * _SLOT.size + number * _SLOT.size) for number in range(devices))
        self.root = self.inode(root)
        if not stat.S_ISDIR(self.root.mode):
            raise self._damage("its root", self.root.position)

    def inode(self, nid: int) -> Inode:
        """The inode with a number."""
        position = self._metadata + nid * _NID
        data = self._read(position, _COMPACT.size)
        if data[0] & 1:
            fields = _EXTENDED.unpack(self._read(position, _EXTENDED.size))
            form, xattrs, mode, size, union, _, uid, gid, seconds, nanoseconds, links = fields
            mtime_ns = seconds * 1_000_000_000 + nanoseconds
        else:
            form, xattrs, mode, links, size, union, _, uid, gid = _COMPACT.unpack(data)
            mtime_ns, nanoseconds = self._epoch_ns, 0
        layout = form >> 1
        if layout not in (_PLAIN, _INLINE, _CHUNKS):
            raise UnsupportedError(f"{self._name} has data that fastoci does not write: layout {layout}")
        if stat.S_IFMT(mode) not in _KINDS or size >> 63 or nanoseconds >= 1_000_000_000:
            raise self._damage("an inode", position)
        body = _EXTENDED.size if form & 1 else _COMPACT.size
        after = _XATTR_HEADER + (xattrs - 1) * 4 if xattrs else 0
        return Inode(nid, position, mode, uid, gid, size, mtime_ns, links, layout, union, body, after)

    def names(self, directory: Inode) -> Iterator[Name]:
        """What a directory holds, in the order of bytes, without itself and its parent."""
        last = b""
        for number in range(self._directory_blocks(directory)):
            for name, nid, _ in self._entries(directory, number):
                if name <= last:
                    raise self._damage("the order of a directory", directory.position)
                last = name
                if name not in (b".", b".."):
                    yield Name(name, nid)

    def find(self, directory: Inode, name: bytes) -> Inode | None:
        """What has a name in a directory; binary search over its blocks."""
        low, high = 0, self._directory_blocks(directory)
        while high - low > 1:
            middle = (low + high) // 2
            if self._entries(directory, middle)[0][0] <= name:
                low = middle
            else:
                high = middle
        if low == high:
            return None
        for each, nid, kind in self._entries(directory, low):
            if each == name:
                return self.child(directory, nid, kind)
        return None

    def children(self, directory: Inode) -> Iterator[tuple[bytes, Inode]]:
        """``names`` with their inodes."""
        for number in range(self._directory_blocks(directory)):
            for name, nid, kind in self._entries(directory, number):
                if name not in (b".", b".."):
                    yield name, self.child(directory, nid, kind)

    def child(self, directory: Inode, nid: int, kind: int) -> Inode:
        """The inode that an entry of a directory leads to, which has the type that the entry says."""
        inode = self.inode(nid)
        if _KINDS[inode.type] != kind:
            raise self._damage("the type of a directory's entry", directory.position)
        return inode

    def link(self, inode: Inode) -> bytes:
        """The target of a symbolic link."""
        if not stat.S_ISLNK(inode.mode) or not 0 < inode.size <= LINK or inode.layout == _CHUNKS:
            raise self._damage("a symbolic link", inode.position)
        return b"".join(self._read(piece.position, piece.size) for piece in self.pieces(inode))

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """Extended attributes by their full names, as ``listxattr`` gives them."""
        if not inode.xattrs:
            return {}
        data = self._read(inode.position + inode.body, inode.xattrs)
        if data[4]:
            raise UnsupportedError(f"{self._name} has attributes that inodes share")
        found: dict[bytes, bytes] = {}
        at = _XATTR_HEADER
        while at + _XATTR.size <= len(data):
            length, prefix, size = _XATTR.unpack_from(data, at)
            name = at + _XATTR.size
            if prefix not in _PREFIXES or name + length + size > len(data):
                raise self._damage("an extended attribute", inode.position)
            full = _PREFIXES[prefix] + data[name : name + length]
            if full in found:
                raise self._damage("an extended attribute that is there twice", inode.position)
            found[full] = data[name + length : name + length + size]
            at = -(-(name + length + size) // 4) * 4
        if at < len(data):
            raise self._damage("extended attributes", inode.position)
        return found

    def pieces(self, inode: Inode) -> Iterator[Piece]:
        """Where the data of a file, directory or symbolic link are, in order, without gaps."""
        if inode.layout == _CHUNKS:
            yield from self._chunks(inode)
            return
        flat = inode.size
        if inode.layout == _INLINE and inode.size:
            flat = (inode.size - 1) >> self._bits << self._bits
        if flat:
            yield self._located(inode, inode.union, 0, flat, device=0)
        if tail := inode.size - flat:
            position = inode.position + inode.body + inode.xattrs
            end = position + tail
            if end > self._size or (end - 1) >> self._bits != position >> self._bits:
                raise self._damage("an inline tail", inode.position)
            yield Piece(flat, tail, 0, position)

    def _chunks(self, inode: Inode) -> Iterator[Piece]:
        bits = self._bits + (inode.union & _CHUNK_BITS)
        indexes = bool(inode.union & _CHUNK_INDEXES)
        unit = 8 if indexes else 4
        table = -(-(inode.position + inode.body + inode.xattrs) // unit) * unit
        count = -(-inode.size >> bits) if inode.size else 0
        if table + count * unit > self._size:
            raise self._damage("a table of chunks", inode.position)
        for number in range(count):
            entry = self._read(table + number * unit, unit)
            device, block = struct.unpack("<2xHI", entry) if indexes else (0, *struct.unpack("<I", entry))
            offset = number << bits
            size = min(1 << bits, inode.size - offset)
            if block == _NOWHERE:
                yield Piece(offset, size, None, 0)
            else:
                yield self._located(inode, block, offset, size, device=device)

    def _located(self, inode: Inode, block: int, offset: int, size: int, *, device: int) -> Piece:
        """A piece whose blocks are all in one device: that with a number, or the one that has the address."""
        end = block + (-(-size >> self._bits))
        if device == 0 and end <= self._blocks:
            return Piece(offset, size, 0, block << self._bits)
        for number, slot in enumerate(self.devices, 1):
            start = 0 if device == number else slot.address
            if device in (0, number) and start <= block and end <= start + slot.blocks:
                return Piece(offset, size, number, (block - start) << self._bits)
        raise self._damage("an inode whose data are nowhere", inode.position)

    def _directory_blocks(self, directory: Inode) -> int:
        if not stat.S_ISDIR(directory.mode) or directory.layout == _CHUNKS or directory.size > self._size:
            raise self._damage("a directory", directory.position)
        return (directory.size + self.block_size - 1) >> self._bits

    def _entries(self, directory: Inode, number: int) -> list[tuple[bytes, int, int]]:
        """What one block of a directory holds: names, nids and types."""
        data = self._directory_block(directory, number)
        first = _DIRENT.unpack_from(data)[1] if len(data) >= _DIRENT.size else 0
        if not first or first % _DIRENT.size or first > len(data):
            raise self._damage("a directory", directory.position)
        heads = list(_DIRENT.iter_unpack(data[:first]))
        ends = [*(start for _, start, _ in heads[1:]), len(data)]
        entries = []
        for (nid, start, kind), end in zip(heads, ends, strict=True):
            if not first <= start < end <= len(data):
                raise self._damage("a directory", directory.position)
            name = data[start:end]
            if end == len(data):
                name = name.partition(b"\0")[0]
            if not 0 < len(name) <= _NAME or b"/" in name or b"\0" in name:
                raise self._damage("a name", directory.position)
            entries.append((name, nid, kind))
        return entries

    def _directory_block(self, directory: Inode, number: int) -> bytes:
        offset = number << self._bits
        for piece in self.pieces(directory):
            if piece.offset <= offset < piece.offset + piece.size and piece.device == 0:
                position = piece.position + offset - piece.offset
                return self._read(position, min(self.block_size, directory.size - offset))
        raise self._damage("a directory", directory.position)

    def _slot(self, position: int) -> DeviceSlot:
        tag, blocks, address = _SLOT.unpack(self._read(position, _SLOT.size))
        return DeviceSlot(tag.rstrip(b"\0").decode("ascii", "backslashreplace"), blocks, address)

    def _read(self, position: int, size: int) -> bytes:
        """Exactly so many bytes; never more than the file has."""
        if position < 0 or position + size > self._size:
            raise self._damage("an offset that is outside of it", position)
        start = position - self._start
        if start < 0 or start + size > len(self._window):
            with files.translated("read", self._name):
                self._window = os.pread(self._fd, max(size, _WINDOW), position)
            self._start, start = position, 0
            if len(self._window) < size:
                raise self._damage("its end", position)
        return self._window[start : start + size]

    def _check(self, checksum: int) -> None:
        """Hold the superblock's block against its checksum."""
        block = 1 << self._bits
        data = bytearray(self._read(_SUPERBLOCK, block - _SUPERBLOCK if block > _SUPERBLOCK else block))
        data[4:8] = bytes(4)
        if _crc32c(data) != checksum:
            raise self._damage("the checksum of its superblock", _SUPERBLOCK)

    def _damage(self, what: str, position: int) -> FormatError:
        return FormatError(f"{self._name} is damaged: {what} (at byte {position})")


def _crc32c(data: bytes | bytearray) -> int:
    """CRC-32C as EROFS uses it: all ones before, nothing after."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 & -(crc & 1))
    return crc
