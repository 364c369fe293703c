"""The program that does to a tree what takes the ids of a user namespace, for a user who has such ids and is not root.

``user_namespace.run`` starts it and gives its namespace the ids. It gets what it works on as descriptors, and prints
what came of it as JSON. As root of the namespace it may do to files of those ids what root may, and to no others.
Spec: user_namespaces(7), newuidmap(1).
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from typing import Any

from fastoci import _extract
from fastoci.unpack import losses
from fastoci.unpack.losses import Lost
from fastoci.unpack.sorted_records import TooManyError


def main(arguments: list[str]) -> int:
    """Enter a namespace, wait for its ids, and do what the arguments say."""
    try:
        _extract.enter_user_namespace()
    except OSError as error:
        _say({"refused": f"no user namespace: {error.strerror}"})
        return 0
    _say({})
    if sys.stdin.buffer.readline() != b"go\n":
        return 0  # who started it is gone, or could not give it ids
    try:
        _say(_do(arguments))
    except TooManyError:
        _say({"too_many": True})
    except OSError as error:
        _say({"errno": error.errno, "path": os.fsdecode(error.filename or "")})
    return 0


def _say(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _do(arguments: list[str]) -> dict[str, Any]:
    if arguments[0] == "remove":
        parent, name = arguments[1:]
        return {"failed": _extract.remove_tree(int(parent), os.fsencode(name))}
    root, records, values, private, limit = map(int, arguments[1:6])
    notes = _extract.Losses(records, values)
    settled = losses.settle_and_report(root, notes, private, limit, arguments[6], give=_give, stop=_extract.Stop())
    return {"counts": settled.counts, "devices": settled.devices, "has_report": settled.has_report}


def _give(directory: int, name: bytes, lost: Lost) -> set[str]:
    """Give a name what it lost, but for set-id bits: others could run it as this user; what is lost still."""
    still = {"modes"} if lost.mode & (stat.S_ISUID | stat.S_ISGID) else set()
    try:
        if not lost.path and (lost.uid or lost.gid):  # the root: then this user could not give it its name
            still.add("owners")
        elif lost.uid or lost.gid:
            os.chown(name, lost.uid, lost.gid, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EINVAL:  # not one of the namespace's ids
            raise
        still.add("owners")
    for key, value in lost.xattrs.items():
        try:
            os.setxattr(f"/proc/self/fd/{directory}/".encode() + name, key, value, follow_symlinks=False)
        except OSError:  # as ``trusted.*``, which only root of the machine may set
            still.add("xattrs")
    return still


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
