"""Which users and groups a container of this user can have: all of the machine's, or those of a user namespace.

Spec: user_namespaces(7), subuid(5), newuidmap(1).
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from fastoci import _extract
from fastoci.image.runtime_config import IdRange, UserNamespace
from fastoci.unpack.rights import ALL_IDS, is_machine_root
from fastoci.unpack.sorted_records import TooManyError

_POLL_S: Final = 0.1  # between looks whether to stop
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
    uids, gids = (subordinate("uid"), subordinate("gid")) if can_map() else ((), ())
    return UserNamespace(_under_root(os.geteuid(), uids), _under_root(os.getegid(), gids))


def can_map() -> bool:
    """Whether this user, who is not root, has ids for the files of others, and the programs to use them."""
    return bool(
        os.geteuid()
        and subordinate("uid")
        and subordinate("gid")
        and shutil.which("newuidmap")
        and shutil.which("newgidmap")
    )


def remove_tree(parent: int, name: str, *, stop: _extract.Stop) -> int:
    """Remove a tree in which files have ids that this user has in user namespaces; 0 when nothing is left."""
    if not can_map():
        return 1
    try:
        return int(run(["remove", str(parent), name], (parent,), stop)["failed"])
    except (NamespaceError, OSError):
        return 1


class NamespaceError(Exception):
    """There is no namespace with this user's ids; nothing was done."""


def run(arguments: Sequence[str], fds: tuple[int, ...], stop: _extract.Stop) -> dict[str, Any]:
    """Run the program in a user namespace with this user's ids; what it says.

    Args:
        fds: what it works on.
        stop: ends it.
    Raises:
        NamespaceError, TooManyError.
        OSError: the disk refused, or the program was killed.
    """
    command = [sys.executable, "-P", "-m", "fastoci.unpack.namespaced", *arguments]
    program = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=fds, start_new_session=True
    )
    try:
        refused = _line(program, stop).get("refused")
        if refused is not None:
            raise NamespaceError(refused)
        _give_ids(program.pid)
        assert program.stdin is not None
        program.stdin.write(b"go\n")
        program.stdin.flush()
        result = _line(program, stop)
    finally:
        program.kill()
        program.communicate()
    if result.get("too_many"):
        raise TooManyError
    if "errno" in result:
        raise OSError(result["errno"], os.strerror(result["errno"]), result["path"] or None)
    return result


def _line(program: subprocess.Popen[bytes], stop: _extract.Stop) -> dict[str, Any]:
    """The next line that the program prints. Raises OSError: it ended without, or ``stop`` was set."""
    assert program.stdout is not None
    while not select.select([program.stdout], [], [], _POLL_S)[0]:
        if stop.is_set():
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
    line = program.stdout.readline()
    if not line.endswith(b"\n"):
        raise OSError(errno.ECHILD, "the program that gives files their owners ended")
    found: dict[str, Any] = json.loads(line)
    return found


def _give_ids(pid: int) -> None:
    """Have the setuid programs give a namespace this user's ids. Raises NamespaceError."""
    namespace = for_containers()
    assert namespace is not None
    for program, ranges in (("newuidmap", namespace.uids), ("newgidmap", namespace.gids)):
        numbers = [str(number) for each in ranges for number in (each.container, each.host, each.size)]
        done = subprocess.run([program, str(pid), *numbers], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NamespaceError(done.stderr.strip() or f"{program} ended with status {done.returncode}")


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
            if name in names and first.isdecimal() and size.isdecimal() and 0 < int(size) < ALL_IDS:
                yield int(first), int(size)


def _under_root(number: int, ranges: tuple[IdRange, ...]) -> tuple[IdRange, ...]:
    return (IdRange(0, number, 1), *ranges)
