"""Which users and groups a container of this user can have: all of the machine's, or those of a user namespace.

Spec: user_namespaces(7), subuid(5), newuidmap(1).
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastoci.image.runtime_config import IdRange, UserNamespace
from fastoci.unpack.layer import is_machine_root

_ALL: Final = 0xFFFFFFFF  # ids of the first user namespace
_SUBIDS_MAX: Final = 1 << 20  # bytes of /etc/subuid that are read


def for_containers() -> UserNamespace | None:
    """The user namespace that this user's containers run in; None for root of the machine, who needs none.

    Root of a user namespace gives its containers what it has. Others are root of their containers, which have more ids
    when ``/etc/subuid`` and ``/etc/subgid`` name this user, and newuidmap and newgidmap are installed to use them.
    """
    if is_machine_root():
        return None
    if os.geteuid() == 0:
        return UserNamespace(owned_ids("uid"), owned_ids("gid"))
    uids, gids = subordinate("uid"), subordinate("gid")
    if not (uids and gids and shutil.which("newuidmap") and shutil.which("newgidmap")):
        uids = gids = ()
    return UserNamespace(_under_root(os.geteuid(), uids), _under_root(os.getegid(), gids))


def owned_ids(kind: str) -> tuple[IdRange, ...]:
    """The ids (``uid``, ``gid``) of this process's user namespace, each its own; none where that is not known."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/self/{kind}_map") as file:
        ranges = [(int(first), int(size)) for first, _, size in map(str.split, file)]
        return tuple(IdRange(first, first, size) for first, size in ranges)
    return ()


def subordinate(kind: str) -> tuple[IdRange, ...]:
    """The ranges of ids that ``/etc/subuid`` or ``/etc/subgid`` gives this user, as ids from 1 on."""
    start, found = 1, []
    for first, size in _subordinate(Path(f"/etc/sub{kind}")):
        found.append(IdRange(start, first, size))
        start += size
    return tuple(found)


def _subordinate(path: Path) -> Iterator[tuple[int, int]]:
    names = {str(os.geteuid())}
    with suppress(KeyError):
        names.add(pwd.getpwuid(os.geteuid()).pw_name)
    with suppress(OSError), path.open("rb") as file:
        for line in file.read(_SUBIDS_MAX).decode("utf-8", "replace").splitlines():
            name, _, rest = line.partition(":")
            first, _, size = rest.partition(":")
            if name in names and first.isdecimal() and size.isdecimal() and 0 < int(size) < _ALL:
                yield int(first), int(size)


def _under_root(number: int, ranges: tuple[IdRange, ...]) -> tuple[IdRange, ...]:
    return (IdRange(0, number, 1), *ranges)
