"""What differs between two snapshots that somebody else keeps becomes a layer, without a store.

Spec: image-spec v1.1 layer.md; containerd core/diff (``Compare``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from fastoci import files, path_walk
from fastoci.mount import overlay
from fastoci.mount.overlay import Overlay
from fastoci.pack.changes import Changes
from fastoci.pack.tar import TarMaker
from fastoci.pack.tree import Tree
from fastoci.stream.compress import Compressor
from fastoci.transfer.packer import PackedLayer, Packer

_SOURCE: Final = "fastoci"


async def packed_diff(
    packer: Packer,
    left: Sequence[str],
    right: Sequence[str],
    compressor: Compressor,
    fd: int,
    *,
    latest_ns: int | None,
) -> PackedLayer:
    """Write the layer that makes one snapshot out of another into an empty file.

    Args:
        left, right: the directories of each, the topmost first; none are an empty tree.
        latest_ns: times after it are taken for it; None: times are as they are.
    Raises:
        PackError: there is what no layer can have, or it changed meanwhile.
        StoreError: the disk refused, or an overlay cannot be mounted.
    """
    tar = await packer.acquire(partial(_open_tar, left, right, latest_ns), TarMaker.close)
    try:
        return await packer.pack(tar, compressor, fd)
    finally:
        await packer.finish(tar.close)


def _open_tar(left: Sequence[str], right: Sequence[str], latest_ns: int | None) -> TarMaker:
    with ExitStack() as opened:
        tree = _tree(right, latest_ns)
        opened.callback(tree.root.close)
        base = _tree(left, None).root if left else None
        opened.pop_all()
        return TarMaker(Changes(tree, base))


def _tree(directories: Sequence[str], latest_ns: int | None) -> Tree:
    return Tree(_view(directories), directories[0], latest_ns=latest_ns, told=lambda text: None)


def _view(directories: Sequence[str]) -> int:
    """A directory, or an overlay of several that nobody else sees."""
    with ExitStack() as held, files.translated("open", directories[0]):

        def hold(fd: int) -> int:
            held.callback(files.close, fd)
            return fd

        if len(directories) == 1:
            return path_walk.open_directory(Path(directories[0]))
        lowers = [hold(os.open(directory, files.DIRECTORY)) for directory in directories]
        mount = hold(overlay.make(Overlay(lowers=lowers, source=_SOURCE)))
        return os.open(".", files.DIRECTORY, dir_fd=mount)
