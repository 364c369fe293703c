"""Directories of layers, and what overlayfs shows of a stack of them: real mounts, which need root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from fastoci import _extract
from fastoci.image.overlay_options import lowerdir, merged_layers
from fastoci.testing.trees import Node, differences, listing
from support.scratch import opened, scratch

LIMITS = {"max_entries": 500_000, "max_bytes": 1 << 32, "max_directories": 200_000}
ROOT_USER = os.geteuid() == 0
_LIBC = ctypes.CDLL(None, use_errno=True)


@cache
def can_mount() -> bool:
    """Whether this process may mount, and the kernel has overlayfs."""
    if not ROOT_USER:
        return False
    with scratch("can-mount") as work:
        try:
            with mounted([work], work.parent / f"{work.name}-at"):
                return True
        except OSError:
            return False


def needs_mounts() -> None:
    """Skip a test where nothing can be mounted."""
    if not can_mount():
        pytest.skip("needs root, and a kernel with overlayfs")


@contextmanager
def mounted(lowers: Sequence[Path], at: Path, *, user_xattrs: bool = False) -> Iterator[Path]:
    """What overlayfs shows of directories, the lowest first, on top of an empty one."""
    nothing = at.parent / f"{at.name}-nothing"
    before = Path.cwd()
    for directory in (nothing, at):
        directory.mkdir()
    try:
        os.chdir(at.parent)  # the options of 127 layers fit only with short names
        names = [os.path.relpath(path) for path in (nothing, *lowers)]
        options = lowerdir(names) + ",userxattr" * user_xattrs
        _do(_LIBC.mount(b"overlay", os.fsencode(at), b"overlay", 0, options.encode()), at)
        os.chdir(before)
        try:
            yield at
        finally:
            _do(_LIBC.umount2(os.fsencode(at), 0), at)
    finally:
        os.chdir(before)
        for directory in (nothing, at):
            directory.rmdir()


def _do(failed: int, path: Path) -> None:
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))


def alone(
    directory: Path,
    layer: bytes,
    *,
    window: int = 1 << 20,
    privileged: bool = ROOT_USER,
    user_xattrs: bool = not ROOT_USER,
) -> _extract.LayerDirectory:
    """One layer as a directory of its own; the facts."""
    directory.mkdir()
    with opened(directory) as fd:
        native = _extract.LayerDirectory(
            fd, owners=privileged, privileged=privileged, user_xattrs=user_xattrs, **LIMITS
        )
        for start in range(0, len(layer), window):
            native.feed(layer[start : start + window])
        native.finish()
        native.close()
    return native


def together(root: Path, layers: Sequence[bytes]) -> list[int]:
    """Layers in one tree, in order; the codes, up to the first refusal."""
    root.mkdir()
    codes: list[int] = []
    with opened(root) as fd:
        for layer in layers:
            extractor = _extract.Extractor(fd, owners=ROOT_USER, privileged=ROOT_USER, base=bool(codes), **LIMITS)
            extractor.feed(layer)
            extractor.finish()
            extractor.close()
            codes.append(extractor.code)
            if extractor.code:
                break
    return codes


def stacked(
    work: Path, layers: Sequence[bytes], expected: Sequence[Node], *, window: int = 1 << 20, user_xattrs: bool = False
) -> tuple[list[str], int]:
    """Each layer alone, and overlayfs on top of one another; what is not as expected, and how many layers were merged.

    Layers up to the highest that is not exact alone are one tree.
    """
    made = [
        alone(work / f"{number}", layer, window=window, user_xattrs=user_xattrs) for number, layer in enumerate(layers)
    ]
    merged = merged_layers([("refused",) if native.code else native.reasons for native in made])
    lowers = [work / f"{number}" for number in range(merged, len(layers))]
    assert not any(native.code for native in made[merged:])
    if merged:
        assert together(work / "merged", layers[:merged])[-1] == 0
        lowers.insert(0, work / "merged")
    with mounted(lowers, work / "at", user_xattrs=user_xattrs) as at:
        return differences(expected, listing(at)), merged


def named_times(nodes: Sequence[Node], since: int) -> list[Node]:
    """A list in which a directory that was made with the time of its making has any time."""
    return [
        replace(node, mtime_ns=None) if node.mtime_ns is not None and node.mtime_ns >= since else node for node in nodes
    ]


@contextmanager
def emptied(work: Path) -> Iterator[None]:
    """Remove at the end what is in a directory, however deep it is."""
    try:
        yield
    finally:
        with opened(work) as fd:
            for name in os.listdir(fd):
                assert _extract.remove_tree(fd, os.fsencode(name)) == 0
