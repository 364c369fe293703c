"""Small EROFS images by the page of the format: merged metadata of one file a layer, and its layer files.

What the project itself writes has more of everything; this has no more than a mount needs.
"""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec

_MAGIC = 0xE0F5E1E2
_TAR = 4096  # where a layer file's tar begins
_TABLE = 4096  # of the devices, in the metadata
_SLOT = 128
_NONE = 0xFFFFFFFF


class Files(msgspec.Struct, frozen=True):
    """Merged metadata, and the layer files in the order of their slots."""

    metadata: Path
    layers: tuple[Path, ...]


def content(number: int) -> bytes:
    """What is in ``layer-NNN``, which is in the layer of this number."""
    return f"the file of layer {number}\n".encode()


def write(directory: Path, count: int, *, block: int = 512) -> Files:
    """An image of so many layers: the file ``layer-000`` is in the first."""
    layers = []
    for number in range(count):
        path = directory / f"layer-{number:03}.erofs"
        path.write_bytes(bytes(_TAR) + _padded(content(number), block))
        path.chmod(0o444)
        layers.append(path)
    metadata = directory / "merged.erofs"
    metadata.write_bytes(_metadata([path.stat().st_size // block for path in layers], block))
    metadata.chmod(0o444)
    return Files(metadata, tuple(layers))


def _metadata(devices: list[int], block: int) -> bytes:
    table_end = _TABLE + _round(_SLOT * len(devices), block)
    names = sorted([b".", b"..", *(f"layer-{number:03}".encode() for number in range(len(devices)))])
    root, first = 4, 6  # nids: an inode has two units of 32 bytes
    nids = {name: first + 2 * int(name[-3:]) if name[:1] != b"." else root for name in names}
    inodes_end = _round(table_end + 32 * (first + 2 * len(devices)), block)
    entries = _directory(names, nids, block)
    total = (inodes_end + len(entries)) // block
    image = bytearray(total * block)
    _inode(image, table_end + 32 * root, 0o40755, len(entries), inodes_end // block, 2)
    address = total
    for number, blocks in enumerate(devices):
        struct.pack_into("<64sII", image, _TABLE + _SLOT * number, f"{number:064x}".encode(), blocks, address)
        start = address + _TAR // block
        _inode(image, table_end + 32 * (first + 2 * number), 0o100644, len(content(number)), start, 1)
        address += blocks
    image[inodes_end:] = entries
    super_block = struct.pack(
        "<IIIBBHQQIIII16s16sI", _MAGIC, 0, 0, block.bit_length() - 1, 0, root, len(devices) + 1, 0, 0, total,
        table_end // block, 0, bytes(range(16)), bytes(16), 8,
    )  # fmt: skip
    struct.pack_into(f"<{len(super_block)}sHHH", image, 1024, super_block, 0, len(devices), _TABLE // _SLOT)
    return bytes(image)


def _inode(image: bytearray, at: int, mode: int, size: int, start: int, links: int) -> None:
    struct.pack_into(
        "<HHHHQIIIIQII", image, at, 1, 0, mode, 0, size, start, 1, 0, 0, 1_700_000_000, 0, links,
    )  # fmt: skip


def _directory(names: list[bytes], nids: dict[bytes, int], block: int) -> bytes:
    data, left = b"", names
    while left:
        count = next(n for n in range(len(left), 0, -1) if 12 * n + sum(map(len, left[:n])) <= block)
        here, left = left[:count], left[count:]
        offset, table = 12 * count, b""
        for name in here:
            kind = 2 if name[:1] == b"." else 1
            table += struct.pack("<QHBB", nids[name], offset, kind, 0)
            offset += len(name)
        data += (table + b"".join(here)).ljust(block, b"\0")
    return data


def _padded(data: bytes, block: int) -> bytes:
    return data.ljust(_round(len(data), block), b"\0")


def _round(size: int, block: int) -> int:
    return -(-size // block) * block
