"""Power cuts, out of a log of system calls: what a file system may hold afterwards.

The model is what POSIX promises, and less than any of ext4, XFS or btrfs keep. What was written, cut or named is
certain once a sync of that file, or of one of the directories concerned, began after it and has ended; fdatasync is a
sync. A rename is one change. Of everything else any part is there: names dropped or kept one by one, or in the order
of a journal up to some point; of written bytes all, none, some sectors, or zeros in their place.
Knows nothing of the store. Modes and times are no part of the model.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support import strace_log
from support.strace_log import Call
from support.warm_program import Running

_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_AT = re.compile(r'(?:(AT_FDCWD|\d+), )?"((?:\\x[0-9a-f]{2})+)"')  # a name, and the directory that it is relative to
_OFFSET = re.compile(r"\d+, (\d+)(?:, RWF.*|, 0x.*)?$")  # after a length, or a count of vectors
_OPEN = re.compile(r"/proc/self/fd/(\d+)")
_SECTOR = 512

CALLS = strace_log.CHANGING  # what must be recorded, with all bytes of the arguments
OPTIONS = ("-xx", "-s", str(2 << 20))  # more than one call writes


@dataclass(frozen=True, slots=True)
class Change:
    """One change: names set or removed in directories (``names``), or bytes or the length of a file.

    ``began`` and ``ended`` are its place among all; ``nodes`` those whose sync makes it certain.
    """

    began: int
    ended: int
    nodes: frozenset[int]
    names: tuple[tuple[int, str, int | None], ...] = ()  # directory, name, node; None: no more
    offset: int = 0
    data: bytes | None = None  # None: with no names, the length becomes ``offset``


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync of a file or directory."""

    began: int
    ended: int
    node: int


@dataclass(slots=True)
class History:
    """What happened below one directory, which is node 0; ``marks`` are the ends of the runs."""

    root: Path
    changes: list[Change] = field(default_factory=list)
    syncs: list[Sync] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    _directories: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    _nodes: int = 1

    @property
    def end(self) -> int:
        return self.marks[-1] if self.marks else 0

    def add(self, log: Path) -> None:
        """Go on with another run's log."""
        base, last = self.end, self.end
        opened: dict[int, int | str] = {}  # a node; of a directory that is not below the root, its path
        # a descriptor is free before the call that closes it ends
        for call in sorted(
            strace_log.calls(log), key=lambda call: call.started if call.name == "close" else call.ended
        ):
            last = max(last, base + call.ended)
            if call.result >= 0:
                self._note(call, base, opened)
        self.marks.append(last + 1)

    def _note(self, call: Call, base: int, opened: dict[int, int | str]) -> None:
        began, ended = base + call.started, base + call.ended
        first = call.arguments.partition(",")[0]
        node = opened.get(int(first)) if first.isdigit() else None
        match call.name:
            case "close":
                opened.pop(int(first), None)
            case "fsync" | "fdatasync" if isinstance(node, int):
                self.syncs.append(Sync(began, ended, node))
            case "ftruncate" if isinstance(node, int):
                size = int(call.arguments.rpartition(", ")[2])
                self.changes.append(Change(began, ended, frozenset((node,)), offset=size))
            case "write" | "pwrite64" | "pwritev2" if isinstance(node, int):
                texts = [bytes.fromhex(match[1].replace("\\x", "")) for match in _TEXT.finditer(call.arguments)]
                data = b"".join(texts)[: call.result]
                offset = self._cursor(call, node)
                self.changes.append(Change(began, ended, frozenset((node,)), offset=offset, data=data))
            case "fsync" | "fdatasync" | "ftruncate" | "write" | "pwrite64" | "pwritev2":
                pass
            case _:
                self._note_names(call, began, ended, opened)

    def _note_names(self, call: Call, began: int, ended: int, opened: dict[int, int | str]) -> None:
        """A call that takes names, each relative to a directory that is open, or paths."""
        places = [self._resolve(match[1], match[2], opened) for match in _AT.finditer(call.arguments)]
        match call.name:
            case "openat":
                opened[call.result] = self._open(places[0], call.arguments, began, ended)
            case "mkdir" | "mkdirat":
                self._name(places[0], self._new(directory=True), began, ended)
            case "unlink" | "rmdir" | "unlinkat":
                self._name(places[0], None, began, ended)
            case "rename" | "renameat":
                self._rename(places[0], places[1], began, ended)
            case "linkat" if isinstance(places[0], str) and (match := _OPEN.fullmatch(places[0])):
                node = opened[int(match[1])]
                assert isinstance(node, int), call
                self._name(places[1], node, began, ended)
            case (
                "link" | "linkat" | "symlink" | "symlinkat" | "renameat2" | "truncate" | "copy_file_range" | "sendfile"
            ):
                assert all(isinstance(place, str) for place in places), f"not modelled: {call}"

    def _cursor(self, call: Call, node: int) -> int:
        if call.name == "write":  # no file here is written at a cursor but from its start to its end
            return sum(len(c.data) for c in self.changes if c.data is not None and c.nodes == {node})
        match = _OFFSET.search(_TEXT.sub("", call.arguments))
        assert match, call.arguments
        return int(match[1])

    def _new(self, *, directory: bool = False) -> int:
        node = self._nodes
        self._nodes += 1
        if directory:
            self._directories[node] = {}
        return node

    def _resolve(self, at: str | None, name: str, opened: dict[int, int | str]) -> tuple[int, str] | str:
        """The directory that holds what a call names, and its name in it; its path when it is not below the root.

        ``.`` is what the root has for its name.
        """
        text = os.fsdecode(bytes.fromhex(name.replace("\\x", "")))
        start = opened.get(int(at), "/nowhere") if at is not None and at.isdigit() else "/nowhere"
        if text.startswith("/") or isinstance(start, str):
            path = os.path.normpath(os.path.join(str(start), text))
            if path != str(self.root) and not path.startswith(f"{self.root}/"):
                return path
            start, text = 0, os.path.relpath(path, self.root)
        *parents, last = text.split("/")
        for parent in parents:
            start = self._directories[start][parent]
        return start, last

    def _open(self, place: tuple[int, str] | str, arguments: str, began: int, ended: int) -> int | str:
        if isinstance(place, str):
            return place
        if "O_TMPFILE" in arguments:
            return self._new()
        if place[1] == ".":
            return place[0]
        node = self._directories[place[0]].get(place[1])
        if node is None:
            assert "O_CREAT" in arguments, place
            node = self._new()
            self._name(place, node, began, ended)
        elif "O_TRUNC" in arguments:
            self.changes.append(Change(began, ended, frozenset((node,))))
        assert "O_APPEND" not in arguments
        return node

    def _name(self, place: tuple[int, str] | str, node: int | None, began: int, ended: int) -> None:
        if isinstance(place, str):
            return
        directory, name = place
        if node is None:
            self._directories[directory].pop(name)
        else:
            self._directories[directory][name] = node
        self.changes.append(Change(began, ended, frozenset((directory,)), names=((directory, name, node),)))

    def _rename(self, source: tuple[int, str] | str, target: tuple[int, str] | str, began: int, ended: int) -> None:
        if isinstance(source, str) or isinstance(target, str):
            assert isinstance(source, str) and isinstance(target, str), f"renamed into or out of {self.root}: {source}"
            return
        node = self._directories[source[0]].pop(source[1])
        self._directories[target[0]][target[1]] = node
        names = ((*target, node), (*source, None))
        self.changes.append(Change(began, ended, frozenset((source[0], target[0])), names=names))

    def instants(self) -> list[int]:
        """Where a cut makes a difference: before, within and after each change and sync."""
        parts: list[Change | Sync] = [*self.changes, *self.syncs]
        return sorted({instant for part in parts for instant in (part.began, part.ended, part.ended + 1)} | {self.end})

    def cut(self, when: int, draw: random.Random) -> Disk:
        """What a power cut at ``when`` may leave."""
        disk = Disk(set(self._directories))
        share = draw.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        journal = self._journal(when, draw) if draw.random() < 0.5 else None
        for change in self.changes:
            if change.began >= when:
                continue
            certain = any(
                change.ended < sync.began and sync.ended < when and sync.node in change.nodes for sync in self.syncs
            )
            if journal is not None and change.names:
                kept = certain or change.ended <= journal
            else:
                kept = certain or draw.random() < share
            disk.apply(change, kept=kept, certain=certain, draw=draw)
        return disk

    def _journal(self, when: int, draw: random.Random) -> int:
        """Up to where all names are certain: at least to the last sync, which wrote the journal out."""
        least = max((sync.began for sync in self.syncs if sync.ended < when), default=0)
        return draw.randrange(least, max(when, least + 1))

    def without(self, *, files: bool = False, directories: bool = False) -> History:
        """The same, by a program that had not synced these."""
        syncs = [s for s in self.syncs if not (directories if s.node in self._directories else files)]
        return History(self.root, self.changes, syncs, self.marks, self._directories, self._nodes)


class Disk:
    """Names and bytes, as a cut left them."""

    def __init__(self, directories: set[int]) -> None:
        self._names: dict[int, dict[str, int]] = {directory: {} for directory in directories}
        self._files: dict[int, bytearray] = {}

    def apply(self, change: Change, *, kept: bool, certain: bool, draw: random.Random) -> None:
        """Do a change, or not, or in part."""
        if change.names:
            for directory, name, node in change.names if kept else ():
                if node is None:
                    self._names[directory].pop(name, None)
                else:
                    self._names[directory][name] = node
            return
        (node,) = change.nodes
        content = self._files.setdefault(node, bytearray())
        if change.data is None:
            if kept:
                content[change.offset :] = bytes(max(0, change.offset - len(content)))
            return
        if kept:
            self._write(content, change.offset, change.data)
            return
        torn = draw.randrange(len(change.data) // _SECTOR + 1) * _SECTOR
        match draw.choice(("none", "zeros", "torn", "torn zeros")):
            case "zeros":
                self._write(content, change.offset, bytes(len(change.data)))
            case "torn":
                self._write(content, change.offset, change.data[:torn])
            case "torn zeros":
                self._write(content, change.offset, change.data[:torn].ljust(len(change.data), b"\0"))

    @staticmethod
    def _write(content: bytearray, offset: int, data: bytes) -> None:
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data

    def write(self, root: Path) -> None:
        """Make the files below an empty directory."""
        for path, node in self._walk(root, 0, set()):
            if node in self._names:
                path.mkdir()
            else:
                path.write_bytes(self._files.get(node, b""))

    def _walk(self, at: Path, directory: int, seen: set[int]) -> Iterator[tuple[Path, int]]:
        for name, node in self._names[directory].items():
            if node in seen:
                continue  # a directory has one place
            yield at / name, node
            if node in self._names:
                seen.add(node)
                yield from self._walk(at / name, node, seen)


def record(command: Running, log: Path) -> None:
    """Let a command go that waits; its system calls become ``log``, for ``WindowBudget.add``."""
    done = strace_log.trace(command, OPTIONS, log, calls=CALLS)
    assert done.returncode == 0, done.stderr
