"""The bytes before and behind each file of a tar that this project writes: ustar, with pax records where it must be.

The same entry gives the same bytes: no name of a user, no time but the entry's. Knows no files and no order of entries.
Spec: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header Block"; image-spec v1.1 layer.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

RECORD: Final = 512
END: Final = bytes(2 * RECORD)  # behind the last entry
_NAME: Final = 100
_BASE: Final = 80  # bytes of a name that are shown in the name of its pax header
_ID: Final = 0o7777777
_LARGE: Final = 0o77777777777  # the largest size or time of a ustar header
_SUM: Final = slice(148, 156)
_BILLION: Final = 1_000_000_000


class TarEntry(msgspec.Struct, frozen=True):
    """What a tar says of one file. ``type`` is one of this module's; ``size`` is of a file's content alone.

    A directory's ``path`` is without the slash at its end. Names of ``xattrs`` are whole: ``user.mime_type``. One
    without a value is written, but to most readers that means that there is none.
    """

    path: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)  # major, minor
    xattrs: Sequence[tuple[bytes, bytes]] = ()


def header(entry: TarEntry) -> bytes:
    """All that stands before an entry's content.

    Raises:
        ValueError: a tar cannot say that: a name or link with a NUL, an attribute whose name has ``=``.
    """
    path = entry.path + b"/" if entry.type == DIRECTORY else entry.path
    records = _records(entry, path)
    ustar = _ustar(entry, path, entry.type)
    if not records:
        return ustar
    data = b"".join(_record(key, value) for key, value in records)
    name = b"PaxHeaders/" + entry.path.rpartition(b"/")[2][:_BASE]
    before = _ustar(TarEntry(name, b"x", 0o644, 0, 0, 0, len(data)), name, b"x")
    return before + data + padding(len(data)) + ustar


def padding(size: int) -> bytes:
    """What stands behind ``size`` bytes of content."""
    return bytes(-size % RECORD)


def _records(entry: TarEntry, path: bytes) -> list[tuple[bytes, bytes]]:
    """What the ustar header has no room for, by its pax keys."""
    found = []
    if len(path) > _NAME:
        found.append((b"path", path))
    if len(entry.link) > _NAME:
        found.append((b"linkpath", entry.link))
    if any(not _is_utf8(value) for _, value in found):
        found.insert(0, (b"hdrcharset", b"BINARY"))
    if b"\0" in path or b"\0" in entry.link:
        raise ValueError("a name in a tar has no NUL")
    for key, number, largest in (
        (b"size", entry.size, _LARGE),
        (b"uid", entry.uid, _ID),
        (b"gid", entry.gid, _ID),
    ):
        if number > largest:
            found.append((key, b"%d" % number))
    if entry.mtime_ns % _BILLION or not 0 <= entry.mtime_ns // _BILLION <= _LARGE:
        found.append((b"mtime", _time(entry.mtime_ns)))
    for name, value in sorted(entry.xattrs):
        if b"=" in name or b"\0" in name:
            raise ValueError(f"{name!r}: the name of an attribute in a tar has neither = nor NUL")
        found.append((b"SCHILY.xattr." + name, value))
    return found


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _time(time_ns: int) -> bytes:
    """A time in seconds: what is before 1970 counts from there, so a quarter of a second before is -0.25."""
    sign = b"-" if time_ns < 0 else b""
    seconds, rest = divmod(abs(time_ns), _BILLION)
    return b"%b%d.%09d" % (sign, seconds, rest) if rest else b"%b%d" % (sign, seconds)


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE`` with a newline; the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest
    while length != rest + len(str(length)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _ustar(entry: TarEntry, path: bytes, kind: bytes) -> bytes:
    seconds = entry.mtime_ns // _BILLION
    fields = (
        path[:_NAME].ljust(_NAME, b"\0"),
        _octal(entry.mode & 0o7777, 7),
        _octal(entry.uid if entry.uid <= _ID else 0, 7),
        _octal(entry.gid if entry.gid <= _ID else 0, 7),
        _octal(entry.size if entry.size <= _LARGE else 0, 11),
        _octal(seconds if 0 <= seconds <= _LARGE else 0, 11),
        b" " * 8,
        kind,
        entry.link[:_NAME].ljust(_NAME, b"\0"),
        b"ustar\x0000".ljust(72, b"\0"),  # and no names of user and group
        _octal(entry.device[0], 7),
        _octal(entry.device[1], 7),
    )
    block = bytearray(b"".join(fields).ljust(RECORD, b"\0"))
    block[_SUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def _octal(number: int, digits: int) -> bytes:
    return b"%0*o\0" % (digits, number)
