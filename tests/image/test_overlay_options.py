"""How overlayfs is told of layer directories: the kernel takes what is said here."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from fastoci.image.config import chain_id
from fastoci.image.digest import Digest
from fastoci.image.layer_file import LayerDirectory
from fastoci.image.overlay_options import (
    MAX_OPTIONS,
    directories_of,
    find_stack,
    lowerdir,
    lowerdirs,
    merged_layers,
    mount_options,
)
from support.overlays import needs_mounts

LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.mark.parametrize(
    ("reasons", "merged"),
    [
        ([], 0),
        ([(), ()], 0),
        ([(), ("implied-parent",), ()], 2),
        ([("implied-parent", "whiteout", "opaque-root"), ()], 0),  # below the lowest layer nothing can differ
        ([("hard-link",), ()], 1),  # to what is nowhere
        ([("whiteout",), ("opaque-root",), (), ("hard-link",)], 4),
    ],
)
def test_layers_up_to_the_highest_with_a_reason_count_together(reasons: list[tuple[str, ...]], merged: int) -> None:
    assert merged_layers(reasons) == merged


DIFF_IDS = [Digest.of(bytes([number])) for number in range(4)]


def known(*layers: tuple[int, ...], **reasons: str) -> dict[Digest, LayerDirectory]:
    """Layer directories of these layers, or of several merged; ``reasons`` of one by its number."""
    found = {}
    for numbers in layers:
        key = chain_id([DIFF_IDS[number] for number in numbers])
        why = reasons.get(f"of{numbers[0]}", "") if len(numbers) == 1 else ""
        found[key] = LayerDirectory(
            entries=0,
            size=0,
            reasons=(why,) if why else (),
            owners=True,
            user_xattrs=False,
            names_root=False,
            chain_id=key,
            path=f"/{'-'.join(map(str, numbers))}/tree",
            boot_id="",
            synced=False,
        )
    return found


@pytest.mark.parametrize(
    ("found", "paths"),
    [
        (known((0,), (1,), (2,), (3,)), ["/0/tree", "/1/tree", "/2/tree", "/3/tree"]),
        (known((0,), (1,), (2,)), None),
        (known((0,), (1,), (2,), (3,), of0="implied-parent"), ["/0/tree", "/1/tree", "/2/tree", "/3/tree"]),
        (known((0,), (1,), (2,), (3,), (0, 1, 2), of2="hard-link"), ["/0-1-2/tree", "/3/tree"]),
        (known((0,), (1,), (2,), (3,), of2="hard-link"), None),
        (known((0, 1, 2), (3,)), ["/0-1-2/tree", "/3/tree"]),  # alone they were refused, or went
        (known((0, 1, 2, 3)), ["/0-1-2-3/root", "/0-1-2-3/tree"]),  # overlayfs wants two
        (known((0,), (1,), (2,), (3,), of0="hard-link"), None),  # to nothing
    ],
)
def test_a_stack_is_found_when_all_is_there(found: dict[Digest, LayerDirectory], paths: list[str] | None) -> None:
    stack = find_stack(DIFF_IDS, found.get)
    assert (None if stack is None else directories_of(stack)) == paths
    assert find_stack([], found.get) == []


def test_the_topmost_directory_is_named_first_and_escaped() -> None:
    assert lowerdir(["/low", "/mid:dle", "/t,o\\p"]) == "lowerdir=/t\\,o\\\\p:/mid\\:dle:/low"
    assert lowerdirs(["/low", "/mid:dle"]) == ["lowerdir+=/mid:dle", "lowerdir+=/low"]
    assert mount_options(["/low", "/top"], user_xattrs=False) == ["lowerdir=/top:/low"]
    assert mount_options(["/low", "/top"], user_xattrs=True) == ["lowerdir=/top:/low", "userxattr"]


@pytest.mark.parametrize("user_xattrs", [False, True])
def test_what_mount_does_not_take_at_once_is_named_one_by_one(user_xattrs: bool) -> None:
    options = mount_options(["/a", "/" + "b" * 5000], user_xattrs=user_xattrs)
    assert [option[:12] for option in options] == ["lowerdir+=/b", "lowerdir+=/a", *["userxattr"] * user_xattrs]
    rest = len("lowerdir=/:/a") + len(",userxattr") * user_xattrs
    fits = mount_options(["/a", "/" + "b" * (MAX_OPTIONS - rest)], user_xattrs=user_xattrs)
    assert (len(fits), len(",".join(fits))) == (1 + user_xattrs, MAX_OPTIONS)
    assert len(mount_options(["/a", "/" + "b" * (MAX_OPTIONS - rest + 1)], user_xattrs=user_xattrs)) == 2 + user_xattrs


def test_the_kernel_reads_the_names_that_were_meant(tmp_path: Path) -> None:
    needs_mounts()
    directories = [tmp_path / name for name in ("a:b", "c,d", "e\\f", "\\:,")]
    for directory in directories:
        directory.mkdir()
        (directory / f"of {directory.name}").touch()
    at = tmp_path / "at"
    at.mkdir()
    options = ",".join(mount_options([str(path) for path in directories], user_xattrs=False))
    assert LIBC.mount(b"overlay", os.fsencode(at), b"overlay", 0, options.encode()) == 0
    try:
        assert sorted(os.listdir(at)) == sorted(f"of {path.name}" for path in directories)
    finally:
        assert LIBC.umount2(os.fsencode(at), 0) == 0
