"""The tree in an EROFS file: paths that are followed inside its root, and all that is below a directory.

Knows no data of files and no system calls. Spec: path_resolution(7), as after chroot(2).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Final

from fastoci.errors import FormatError, ImagePathError
from fastoci.unpack.erofs_reader import ErofsReader, Inode

_LINKS: Final = 40  # symbolic links on one path, as Linux has it


def resolve(reader: ErofsReader, path: bytes, *, follow: bool = True) -> tuple[bytes, Inode]:
    """What a path names, and its own path from the root, without links; empty for the root.

    Args:
        path: from the root, with or without a slash.
        follow: also a link at its end; a slash there does that anyway.
    Raises:
        ImagePathError: nothing is there, or on the way is no directory, or too many links.
        FormatError: the file is damaged.
    """
    shown = path.decode("utf-8", "surrogateescape")
    way: list[tuple[bytes, Inode]] = []
    ahead = path.split(b"/")[::-1]
    links = 0
    while ahead:
        part = ahead.pop()
        here = way[-1][1] if way else reader.root
        if not stat.S_ISDIR(here.mode):
            raise ImagePathError(f"{shown}: not a directory", path=shown)
        if part in (b"", b"."):
            continue
        if part == b"..":
            del way[-1:]
            continue
        inode = reader.find(here, part)
        if inode is None:
            raise ImagePathError(f"{shown}: no such file or directory", path=shown)
        if not stat.S_ISLNK(inode.mode) or not (ahead or follow):
            way.append((part, inode))
            continue
        links += 1
        if links > _LINKS:
            raise ImagePathError(f"{shown}: too many symbolic links", path=shown)
        target = reader.link(inode)
        if target.startswith(b"/"):
            way.clear()
        ahead += target.split(b"/")[::-1]
    return b"/".join(name for name, _ in way), way[-1][1] if way else reader.root


def walk(reader: ErofsReader, top: Inode, path: bytes = b"") -> Iterator[tuple[bytes, Inode]]:
    """Everything below a directory, each before what is in it, names in the order of bytes; links are not followed.

    Args:
        path: of ``top``; the paths begin with it.
    Raises:
        FormatError: the file is damaged: a directory is in two places, for one.
    """
    seen = {top.nid}
    stack = [(path, reader.children(top))]
    while stack:
        at, children = stack[-1]
        found = next(children, None)
        if found is None:
            stack.pop()
            continue
        name, inode = found
        below = at + b"/" + name if at else name
        yield below, inode
        if stat.S_ISDIR(inode.mode):
            if inode.nid in seen:
                raise FormatError(f"the metadata are damaged: directory {inode.nid} is in two places")
            seen.add(inode.nid)
            stack.append((below, reader.children(inode)))
