"""What the names of a tree should have, which was unpacked by a user who could not give it: read beside the walk.

Spec: docs/unpacking.md, "Without root".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

import msgspec

from fastoci.pack.facts import Facts, is_packed
from fastoci.stream.tar_headers import Kind

_SET_ID: Final = 0o6000
_DEVICES: Final[dict[str, Kind]] = {"c": "character", "b": "block"}


class Loss(Protocol):
    """What one name should have: a line of a report."""

    @property
    def path(self) -> bytes:
        """Relative, empty for the root."""

    @property
    def uid(self) -> int:
        """The owner."""

    @property
    def gid(self) -> int:
        """The group."""

    @property
    def mode(self) -> int:
        """With its set-id bits."""

    @property
    def xattrs(self) -> Mapping[str, bytes]:
        """Attributes that the name does not have."""

    @property
    def device(self) -> tuple[str, int, int] | None:
        """Type, major and minor number; then nothing has the name."""

    @property
    def mtime_ns(self) -> int:
        """Of a device."""


class Losses:
    """The losses of one tree. ``devices`` are by directory and name; the others are read along with the walk.

    Args:
        read: gives the losses from the first on: a directory before what is in it, names in the order of bytes.
    """

    def __init__(self, read: Callable[[], Iterator[Loss]]) -> None:
        self.devices: dict[bytes, dict[bytes, Facts]] = {}
        for loss in read():
            if loss.device is not None:
                directory, _, name = loss.path.rpartition(b"/")
                self.devices.setdefault(directory, {})[name] = _device(loss, *loss.device)
        self._ahead = read()
        self._next = next(self._ahead, None)

    def given_back(self, path: bytes, facts: Facts) -> Facts:
        """The facts of a name with what it lost; names are asked for in the order of the walk.

        What was changed in the tree since counts: another owner, or another mode.
        """
        while self._next is not None and _order(self._next.path) < _order(path):
            self._next = next(self._ahead, None)
        loss = self._next
        if loss is None or loss.path != path or loss.device is not None:
            return facts
        same = facts.mode & ~_SET_ID == loss.mode & ~_SET_ID
        return msgspec.structs.replace(
            facts,
            uid=facts.uid or loss.uid,
            gid=facts.gid or loss.gid,
            mode=loss.mode if same else facts.mode,
            xattrs=tuple(sorted({**dict(_attributes(loss)), **dict(facts.xattrs)}.items())),
        )


def _order(path: bytes) -> bytes:
    """A directory, and then what is in it, before what comes after its name."""
    return path.replace(b"/", b"\0")


def _device(loss: Loss, kind: str, major: int, minor: int) -> Facts:
    return Facts(
        _DEVICES[kind],
        loss.mode,
        loss.uid,
        loss.gid,
        loss.mtime_ns,
        device=(major, minor),
        xattrs=tuple(_attributes(loss)),
    )


def _attributes(loss: Loss) -> list[tuple[bytes, bytes]]:
    found = sorted((os.fsencode(name), value) for name, value in loss.xattrs.items())
    return [(name, value) for name, value in found if is_packed(name) and value]
