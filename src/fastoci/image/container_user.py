"""Who a container runs as: ``User`` of an image's config, looked up in the image's own passwd and group.

The files are the image's: bytes of any kind, of which a line counts when it is well formed.
Spec: image-spec v1.1 config.md (``User``), conversion.md; passwd(5), group(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from fastoci.errors import UnsupportedError

_ID_MAX: Final = (1 << 31) - 1  # runc's; the kernel takes 2**32 - 1 for "as it is", which would be root
_GROUPS_MAX: Final = 65536  # NGROUPS_MAX
_SHOWN: Final = 100  # characters


class ContainerUser(msgspec.Struct, frozen=True):
    """The ids of a container's first process; ``groups`` are those beside ``gid``."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


class _Entry(msgspec.Struct, frozen=True):
    name: bytes
    uid: int
    gid: int
    home: str


def find_user(user: str, passwd: bytes, group: bytes) -> ContainerUser:
    """The ids that ``user`` means: a name or uid, and perhaps a colon with a name or gid.

    A number is taken as it is; without a group, it has that of its entry, if there is one. A name has the groups that
    list it, unless a group is given. Nothing is root.

    Args:
        passwd, group: the content of the image's files, empty where there are none.
    Raises:
        UnsupportedError: the image has no such user or group, or the number is too large.
    """
    name, _, wanted = user.partition(":")
    uid = _number(name or "0", "user")
    entry = _find_entry(passwd, name.encode() if uid is None else uid)
    if entry is None and uid is None:
        raise UnsupportedError(f"the image's config wants user {name[:_SHOWN]!r}, and its /etc/passwd has none")
    groups: tuple[int, ...] = ()
    if wanted:
        gid = _find_gid(group, wanted)
    else:
        gid = entry.gid if entry else 0
        groups = _groups_of(group, name.encode(), gid) if uid is None else ()
    if uid is None and entry:
        uid = entry.uid
    return ContainerUser(uid or 0, gid, groups, entry.home if entry else "/")


def _number(text: str, what: str) -> int | None:
    """The id that is written in digits; None for a name."""
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(_ID_MAX)) or int(digits) > _ID_MAX:
        raise UnsupportedError(f"the image's config wants {what} {text[:_SHOWN]}, more than {_ID_MAX}")
    return int(digits)


def _find_entry(passwd: bytes, wanted: bytes | int) -> _Entry | None:
    for fields in _lines(passwd, 6):
        uid, gid = _id(fields[2]), _id(fields[3])
        if uid is not None and gid is not None and wanted in (fields[0], uid):
            return _Entry(fields[0], uid, gid, _home(fields[5]))
    return None


def _find_gid(group: bytes, wanted: str) -> int:
    number = _number(wanted, "group")
    if number is not None:
        return number
    for fields in _lines(group, 3):
        gid = _id(fields[2])
        if gid is not None and fields[0] == wanted.encode():
            return gid
    raise UnsupportedError(f"the image's config wants group {wanted[:_SHOWN]!r}, and its /etc/group has none")


def _groups_of(group: bytes, name: bytes, gid: int) -> tuple[int, ...]:
    found = {
        number
        for fields in _lines(group, 4)
        if (number := _id(fields[2])) is not None and name in fields[3].split(b",")
    }
    if len(found) > _GROUPS_MAX:
        raise UnsupportedError(f"the image's user is in {len(found)} groups, more than {_GROUPS_MAX}")
    return tuple(sorted(found - {gid}))


def _lines(data: bytes, fields: int) -> Iterator[list[bytes]]:
    """The fields of each line that has a name and so many of them."""
    for line in data.split(b"\n"):
        found = line.rstrip(b"\r").split(b":")
        if len(found) >= fields and found[0]:
            yield found


def _id(text: bytes) -> int | None:
    if not text.isdigit() or len(text) > len(str(_ID_MAX)) or int(text) > _ID_MAX:
        return None
    return int(text)


def _home(field: bytes) -> str:
    try:
        home = field.decode()
    except UnicodeDecodeError:
        return "/"
    return home if home.startswith("/") and "\0" not in home else "/"
