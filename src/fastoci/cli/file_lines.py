"""Files of an image as lines of text and as JSON."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from fastoci.cli.formatting import plain

if TYPE_CHECKING:
    from fastoci import ImageFile

_TYPES: Final = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "character": stat.S_IFCHR,
    "block": stat.S_IFBLK,
}
_BILLION: Final = 1_000_000_000


def long_lines(files: Sequence[tuple[str, ImageFile]]) -> Iterator[str]:
    """A line for each file and the name that it is shown by, as ``ls -l`` has them: numbers alone, times in UTC."""
    rows = [(_mode(file), f"{file.uid}:{file.gid}", _size(file), _time(file.mtime_ns), name) for name, file in files]
    owner, size = (max((len(row[column]) for row in rows), default=0) for column in (1, 2))
    for (_, file), row in zip(files, rows, strict=True):
        target = f" -> {plain(file.link)}" if file.kind == "symlink" else ""
        yield f"{row[0]}  {row[1]:<{owner}}  {row[2]:>{size}}  {row[3]}  {plain(row[4])}{target}"


def fields_of(file: ImageFile) -> dict[str, object]:
    """A file for JSON. What is no UTF-8 in a name is a lone surrogate, as Python has it."""
    found: dict[str, object] = {
        "path": file.path,
        "kind": file.kind,
        "mode": f"{file.mode:04o}",
        "uid": file.uid,
        "gid": file.gid,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "links": file.links,
    }
    if file.kind == "symlink":
        found["link"] = file.link
    if file.kind in ("character", "block"):
        found["device"] = list(file.device)
    return found


def _mode(file: ImageFile) -> str:
    return stat.filemode(_TYPES[file.kind] | file.mode)


def _size(file: ImageFile) -> str:
    if file.kind in ("character", "block"):
        return f"{file.device[0]}, {file.device[1]}"
    return str(file.size)


def _time(time_ns: int) -> str:
    """``2023-11-14T22:13:20Z``; seconds since 1970 when the calendar of Python does not have that year."""
    from datetime import UTC, datetime, timedelta  # not at the start of every command

    seconds = time_ns // _BILLION
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
    except OverflowError:
        return f"@{seconds}"
