"""The headers of a tar as layers have them: ustar, with a pax header before it for what ustar cannot say.

The same entry gives the same bytes, on every machine: no names of users, no other times than that of the last change,
pax records in a fixed order. Any name that a file may have is written as the bytes that it is. Writes headers only;
what is in a file follows from whoever has it. Spec: POSIX pax; image-spec v1.1 layer.md ("SCHILY.xattr").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

Kind = Literal["file", "directory", "symlink", "hardlink", "fifo", "character", "block"]

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)  # of the tar
_TYPES: Final[dict[Kind, bytes]] = {
    "file": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "character": b"3",
    "block": b"4",
    "directory": b"5",
    "fifo": b"6",
}
_NAME: Final = 100  # bytes of a name or a link's target in ustar
_PREFIX: Final = 155  # of what may be before the last part of a name
_ID: Final = 0o7777777  # the largest number in a field of 8 bytes
_NUMBER: Final = 0o77777777777  # and of 12
_USTAR: Final = struct.Struct("100s8s8s8s12s12s8ss100s8s64x8s8s155s12x")  # without names of user and group
_MAGIC: Final = b"ustar\x0000"
_SUM: Final = 148  # where the checksum is
_NO_SUM: Final = b" " * 8  # which counts as blanks in itself
_SECOND: Final = 1_000_000_000


class TarEntry(msgspec.Struct, frozen=True):
    """One entry. ``path`` has no slash at either end, and is empty for the root; ``link`` is a link's target.

    ``size`` is of a file's content, which follows the header. Times are nanoseconds since 1970.
    """

    path: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)  # major, minor
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


def carries(name: bytes, value: bytes) -> bool:
    """Whether an extended attribute can be in a tar: pax has no key with "=" in it, and no empty value."""
    return bool(value) and b"=" not in name


def header(entry: TarEntry) -> bytes:
    """The blocks before an entry's content: one, or three and more with a pax header.

    Raises:
        ValueError: an attribute that no tar carries (``carries``).
    """
    name = entry.path + b"/" if entry.kind == "directory" else entry.path
    name = name if entry.path else b"./"
    records = list(_records(entry, name))
    block = _block(entry, name)
    if not records:
        return block
    data = b"".join(_record(key, value) for key, value in records)
    last = entry.path.rpartition(b"/")[2]
    pax = TarEntry(b"PaxHeaders.0/" + last, "file", size=len(data))
    return b"".join((_block(pax, pax.path, kind=b"x"), data, bytes(padding(len(data))), block))


def padding(size: int) -> int:
    """Zero bytes that follow content of ``size`` bytes."""
    return -size % BLOCK


def _records(entry: TarEntry, name: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What ustar cannot say, in the order in which it is written."""
    if _split(name) is None:
        yield b"path", name
    if len(entry.link) > _NAME:
        yield b"linkpath", entry.link
    if entry.size > _NUMBER:
        yield b"size", b"%d" % entry.size
    if entry.uid > _ID:
        yield b"uid", b"%d" % entry.uid
    if entry.gid > _ID:
        yield b"gid", b"%d" % entry.gid
    if entry.mtime_ns % _SECOND or not 0 <= entry.mtime_ns <= _NUMBER * _SECOND:
        yield b"mtime", _time(entry.mtime_ns)
    for key, value in sorted(entry.xattrs):
        if not carries(key, value):
            raise ValueError(f"{entry.path!r}: a tar cannot carry the attribute {key!r}")
        yield b"SCHILY.xattr." + key, value


def _time(time_ns: int) -> bytes:
    """Seconds, counted from 1970 in both directions: -0.25, and not the -1.75 of whoever rounds down first."""
    seconds, rest = divmod(abs(time_ns), _SECOND)
    fraction = b".%09d" % rest if rest else b""
    return b"%s%d%s" % (b"-" if time_ns < 0 else b"", seconds, fraction.rstrip(b"0"))


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH key=value``: the length is of the whole, its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name as ustar has them; None when they do not fit."""
    if len(name) <= _NAME:
        return b"", name
    at = name.rfind(b"/", 0, min(_PREFIX + 1, len(name) - 1))
    if at > 0 and len(name) - at - 1 <= _NAME:
        return name[:at], name[at + 1 :]
    return None


def _block(entry: TarEntry, name: bytes, *, kind: bytes = b"") -> bytes:
    """The ustar header; what does not fit is cut short, or 0, and is in the pax header."""
    prefix, name = _split(name) or (b"", name)
    owner = (_octal(entry.uid, 7), _octal(entry.gid, 7))
    numbers = (_octal(entry.size, 11), _octal(entry.mtime_ns // _SECOND, 11))
    block = _USTAR.pack(
        *(name[:_NAME], _octal(entry.mode & 0o7777, 7), *owner, *numbers, _NO_SUM, kind or _TYPES[entry.kind]),
        *(entry.link[:_NAME], _MAGIC, *(_octal(number, 7) for number in entry.device), prefix),
    )
    return block[:_SUM] + b"%06o\0 " % sum(block) + block[_SUM + len(_NO_SUM) :]


def _octal(number: int, digits: int) -> bytes:
    return b"%0*o" % (digits, number if 0 <= number < 1 << 3 * digits else 0)
