"""The exam of what writes EROFS files: its trees are the extractor's, its judgement of hostile layers too.

The short form reads small images and stacks back, and mounts a few. ``make erofs-exam`` takes all of them, mounts them
in each way, and lets the programs of erofs-utils check and merge them.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci.errors import FastociError
from fastoci.testing.layers import Entry, hardlink, tar
from fastoci.testing.trees import differences
from fastoci.unpack.erofs_reader import ErofsReader
from fastoci.unpack.erofs_tree import resolve
from support.erofs_exam import BOUNDS, ROOT_USER, Stacked, layer_file, merged, read_back, removed
from support.layer_stacks import LAYERS, modelled
from support.scratch import scratch
from support.shared_images import Stack, inflated, stacks

EVERYTHING = os.environ.get("FASTOCI_EROFS_EXAM") == "all"
STACKS = int(os.environ.get("FASTOCI_STACKS", "40"))
SMALL, HOSTILE_SMALL = 20_000, 5_000  # compressed bytes of what the short form takes
EXPANDED = 256 << 20  # bytes of a hostile layer's tar
MOUNTED = {f"edge-cases/{name}" for name in ("opaque-nested", "hardlinks", "xattrs", "special", "names-dot", "owners")}
NEW_ENOUGH = (1, 9)  # of erofs-utils: 1.5 knows no blocks of 512 bytes

# Why the layers of these images are not exact by themselves, in an overlay. Those of all others are.
NOT_STANDALONE = {
    "edge-cases/whiteout-order": {"implied-parent"},
    "edge-cases/opaque": {"implied-parent"},
    "edge-cases/opaque-nested": {"implied-parent"},
    "edge-cases/whiteout-names": {"implied-parent", "whiteout"},
    "edge-cases/hardlink-lower-layer": {"implied-parent", "whiteout", "hard-link"},
    "edge-cases/symlink-parent": {"implied-parent"},
    "edge-cases/typechange": {"hard-link"},
    "edge-cases/duplicate-layers": {"implied-parent", "whiteout"},
    "archives/docker-archive-gz-layers.tar#0": {"implied-parent"},
}

needs_root = pytest.mark.skipif(not ROOT_USER, reason="needs root, to give owners, and to read all files")


@pytest.fixture
def work() -> Iterator[Path]:
    with scratch("exam") as folder:
        (folder / "opened").mkdir()
        yield folder


def is_small(stack: Stack) -> bool:
    return sum(layer.stat().st_size for layer in stack.layers) <= SMALL and len(stack.layers) < 20


def images(shared: Path, work: Path, chosen: Callable[[Stack], bool]) -> Iterator[tuple[str, Stacked]]:
    """The images that are chosen, or all; each is gone when the next one comes."""
    for stack in stacks(shared / "images", work / "opened"):
        if EVERYTHING or chosen(stack):
            here = work / "stack"
            here.mkdir()
            yield stack.name, Stacked(stack.tars(here), here)
            removed(here)


@needs_root
@pytest.mark.timeout(3000)
def test_images_are_as_the_extractor_makes_them(shared: Path, work: Path) -> None:
    wrong, reasons, count = {}, {}, 0
    for name, stacked in images(shared, work, is_small):
        count += 1
        if stacked.wrong:
            wrong[name] = stacked.wrong[:5]
        if stacked.reasons:
            reasons[name] = stacked.reasons
    assert wrong == {}
    assert count >= (130 if EVERYTHING else 60)
    small = {name: why for name, why in NOT_STANDALONE.items() if not name.startswith("archives/")}
    assert reasons == (NOT_STANDALONE if EVERYTHING else small)


@pytest.mark.timeout(3000)
def test_mounts_are_as_the_extractor_makes_images(shared: Path, work: Path) -> None:
    """Of merged metadata always; an overlay of a mount for each layer wherever these are standalone."""
    if not ROOT_USER:
        pytest.skip("needs root to mount")
    wrong = {}
    for name, stacked in images(shared, work, lambda stack: stack.name in MOUNTED):
        if stacked.extraction.refused >= 0:
            continue
        try:
            found = stacked.mounted() + ([] if stacked.reasons else stacked.overlaid())
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENODEV, errno.ENOENT):
                pytest.skip(f"EROFS cannot be mounted here: {error}")
            raise
        if found:
            wrong[name] = found[:5]
    assert wrong == {}


def hostile(shared: Path, work: Path) -> Iterator[tuple[str, Stacked]]:
    """The hostile layers that a tar comes out of, under the bounds of their cases."""
    folder = shared / "corpora/hostile"
    for case in json.loads((folder / "expected.json").read_text())["cases"]:
        files = [folder / name for name in (*case.get("base", []), case["file"])]
        if not EVERYTHING and sum(file.stat().st_size for file in files) > HOSTILE_SMALL:
            continue
        here = work / "case"
        here.mkdir()
        limits = case.get("limits", {})
        bounds = {
            "max_entries": limits.get("max_entries", BOUNDS["max_entries"]),
            "max_bytes": limits.get("max_unpacked_bytes", BOUNDS["max_bytes"]),
        }
        tars = [here / f"{number}.tar" for number in range(len(files))]
        try:
            for file, each in zip(files, tars, strict=True):
                inflated(file, each, most=EXPANDED)
        except FastociError:
            pass
        else:
            yield case["case"], Stacked(tars, here, bounds)
        removed(here)


@needs_root
@pytest.mark.timeout(3000)
def test_hostile_layers_are_judged_as_the_extractor_judges_them(shared: Path, work: Path) -> None:
    wrong, refused, count = {}, 0, 0
    for name, stacked in hostile(shared, work):
        count += 1
        refused += stacked.extraction.refused >= 0
        found = stacked.wrong
        if EVERYTHING and ROOT_USER and not found and stacked.extraction.refused < 0:
            found = stacked.mounted() + ([] if stacked.reasons else stacked.overlaid())
        if found:
            wrong[name] = found[:3]
    assert wrong == {}
    assert count >= (220 if EVERYTHING else 150)
    assert refused >= 60


@given(
    layers=st.lists(LAYERS, min_size=1, max_size=4),
    keep=st.sampled_from([False, False, False, True]),
    window=st.sampled_from([511, 4096, 1 << 20]),
)
@settings(max_examples=STACKS, deadline=None)
def test_a_stack_of_layers_is_merged_to_the_tree_of_the_model(
    layers: list[list[Entry]], keep: bool, window: int
) -> None:
    taken, refused, expected = modelled(layers, keep=keep)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        work = Path(folder)
        tars = [work / f"{number}.tar" for number in range(len(taken))]
        for each, entries in zip(tars, taken, strict=True):
            each.write_bytes(b"".join(tar(entries)))
        assert merged(tars, work / "image", window=window).refused == refused
        if refused < 0:
            files = [work / f"{number}.erofs" for number in range(len(tars))]
            for each, file in zip(tars, files, strict=True):
                assert layer_file(each, file, window=window).refused == -1
            assert differences(expected, read_back(work / "image", files)) == []


@needs_root
def test_the_exam_sees_a_wrong_owner(work: Path) -> None:
    layer = work / "0.tar"
    layer.write_bytes(b"".join(tar([Entry("a", data=b"x"), hardlink("b", "a")])))
    stacked = Stacked([layer], work)
    assert stacked.wrong == []
    with stacked.image.open("r+b") as file:
        _, inode = resolve(ErofsReader(file.fileno(), "image"), b"a")
        file.seek(inode.position + 24)
        file.write(b"\x07")
    assert differences(stacked.tree, read_back(stacked.image, stacked.layers)) == [
        "'a': uid is 7, expected 0",
        "'b': uid is 7, expected 0",
    ]


@pytest.fixture
def utils(peer: Callable[[str], str]) -> tuple[str, str]:
    """fsck.erofs and mkfs.erofs."""
    fsck, mkfs = peer("fsck.erofs"), peer("mkfs.erofs")
    said = subprocess.run([mkfs, "--version"], capture_output=True, check=False)
    version = re.search(rb"(\d+)\.(\d+)", said.stdout + said.stderr)
    if version is None or tuple(map(int, version.groups())) < NEW_ENOUGH:
        pytest.skip(f"{mkfs} is older than erofs-utils {'.'.join(map(str, NEW_ENOUGH))}")
    return fsck, mkfs


@pytest.mark.timeout(3000)
def test_erofs_utils_check_and_merge_the_files(shared: Path, work: Path, utils: tuple[str, str]) -> None:
    fsck, mkfs = utils
    wrong = {}
    for name, stacked in images(shared, work, lambda stack: stack.name in MOUNTED):
        if stacked.extraction.refused >= 0:
            continue
        layers = list(map(str, dict.fromkeys(stacked.layers)))
        commands = [[fsck, layer] for layer in layers]
        commands.append([fsck, *(f"--device={layer}" for layer in stacked.layers), str(stacked.image)])
        commands.append([mkfs, str(stacked.work / "rebuilt"), *layers])
        for command in commands:
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode:
                wrong[name] = [command[0], (done.stdout + done.stderr)[-300:]]
    assert wrong == {}
