"""The judgement of the EROFS writer: what the extractor makes of the same layers, and what reads its files.

The tree that the extractor makes is the measure, and the reader (``unpack/erofs_reader.py``), the kernel and the
programs of erofs-utils are the witnesses.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from fastoci import _erofs, _extract, _mount
from fastoci.image.layer_file import Form
from fastoci.mount import erofs
from fastoci.testing.trees import Node, differences, listing
from fastoci.unpack.erofs_reader import ErofsReader
from support.erofs_listing import erofs_listing
from support.scratch import opened

WINDOW = 1 << 20
TAR_AT = 4096
MEMORY = 1 << 30
BOUNDS = {"max_entries": 1_000_000, "max_bytes": 1 << 44}
CLOCK_NS = 1_000_000_000  # by which the time of files may be behind
OF_LOWER = {"implied-parent", "opaque-root"}  # reasons that do not matter to the lowest layer
UUID = bytes(range(16))
ROOT_USER = os.geteuid() == 0
TAGS = [f"{number:064x}" for number in range(4096)]  # of layers, by their numbers


class Fed(Protocol):
    """What takes a tar and says a code."""

    def feed(self, data: bytes, /) -> int:
        """The next bytes."""


@dataclass
class Verdict:
    """What became of a stack: ``refused`` is the layer that was, or -1; ``why`` the kind of the code."""

    refused: int = -1
    why: str = ""
    path: str = ""
    reasons: list[tuple[str, ...]] = field(default_factory=list)  # of each layer: why it is not standalone


def pieces(tar: Path, window: int = WINDOW) -> Iterator[bytes]:
    with tar.open("rb") as file:
        while piece := file.read(window):
            yield piece


def feed(sink: Fed, tar: Path, window: int = WINDOW) -> int:
    """Feed a whole tar; the first code that is none of success."""
    return next((code for piece in pieces(tar, window) if (code := sink.feed(piece))), 0)


def refusal(sink: object, number: int) -> Verdict:
    code, path = getattr(sink, "code"), getattr(sink, "path")  # noqa: B009
    return Verdict(number, _extract.TAR_CODES[code][0], os.fsdecode(path))


def extracted(root: Path, tars: Sequence[Path], bounds: Mapping[str, int] = BOUNDS) -> Verdict:
    """Make the tree of a stack in ``root``, as the extractor does."""
    with opened(root) as fd:
        for number, tar in enumerate(tars):
            extractor = _extract.Extractor(
                fd, owners=ROOT_USER, privileged=ROOT_USER, base=number > 0, max_directories=1_000_000, **bounds
            )
            try:
                if feed(extractor, tar) or extractor.finish():
                    return refusal(extractor, number)
            finally:
                extractor.close()
    return Verdict()


def tree_of(root: Path, since_ns: int) -> list[Node]:
    """What the extractor made; a time since then is none that a layer gave."""
    return [
        replace(node, mtime_ns=None if node.mtime_ns is not None and node.mtime_ns >= since_ns else node.mtime_ns)
        for node in listing(root)
    ]


@contextmanager
def made(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def layer_file(
    tar: Path, into: Path, form: Form = "tar", *, window: int = WINDOW, bounds: Mapping[str, int] = BOUNDS
) -> Verdict:
    """Make the layer file of a tar; the facts of the writer are held against the file."""
    with made(into) as fd:
        layer = _erofs.LayerFile(fd, form=form, uuid=UUID, max_memory=MEMORY, **bounds)
        try:
            if feed(layer, tar, window) or layer.finish():
                return refusal(layer, 0)
            assert layer.file_size == os.fstat(fd).st_size
            assert layer.tar_size == tar.stat().st_size
            if form == "tar":
                assert os.pread(fd, layer.tar_size, TAR_AT) == tar.read_bytes()
            return Verdict(reasons=[tuple(layer.reasons)])
        finally:
            layer.close()


def merged(tars: Sequence[Path], into: Path, *, window: int = WINDOW, bounds: Mapping[str, int] = BOUNDS) -> Verdict:
    """Make the merged metadata of a stack out of plain tars."""
    return _merged(into, tars, lambda merging, tar: feed(merging, tar, window), bounds)


def merged_of_files(
    tars: Sequence[Path], layers: Sequence[Path], into: Path, *, bounds: Mapping[str, int] = BOUNDS
) -> Verdict:
    """The same out of layer files, by their headers alone."""
    sizes = {layer: tar.stat().st_size for tar, layer in zip(tars, layers, strict=True)}

    def read(merging: _erofs.MergedMetadata, layer: Path) -> int:
        with layer.open("rb") as file:
            return merging.read(file.fileno(), TAR_AT, sizes[layer])

    return _merged(into, layers, read, bounds)


def _merged(
    into: Path,
    sources: Sequence[Path],
    give: Callable[[_erofs.MergedMetadata, Path], int],
    bounds: Mapping[str, int],
) -> Verdict:
    with made(into) as fd:
        merging = _erofs.MergedMetadata(fd, uuid=UUID, max_memory=MEMORY, **bounds)
        try:
            for number, source in enumerate(sources):
                if merging.begin(TAGS[number].encode()) or give(merging, source) or merging.end():
                    return refusal(merging, number)
            return refusal(merging, len(sources)) if merging.finish() else Verdict()
        finally:
            merging.close()


def removed(folder: Path) -> None:
    """Remove a folder, however deep it is."""
    with opened(folder.parent) as fd:
        assert _extract.remove_tree(fd, os.fsencode(folder.name)) == 0


@contextmanager
def descriptors(paths: Sequence[Path]) -> Iterator[list[int]]:
    with ExitStack() as files:
        yield [files.enter_context(path.open("rb")).fileno() for path in paths]


def read_back(image: Path, layers: Sequence[Path]) -> list[Node]:
    """What the reader finds in merged metadata; its device slots are those of the layers."""
    with descriptors([image, *layers]) as (fd, *devices):
        reader = ErofsReader(fd, "image")
        assert [slot.tag for slot in reader.devices] == TAGS[: len(layers)]
        return erofs_listing(fd, devices)


class Stacked:
    """One stack below ``work``: its tars, the extractor's tree, layer files and merged metadata; and what is wrong."""

    def __init__(self, tars: Sequence[Path], work: Path, bounds: Mapping[str, int] = BOUNDS) -> None:
        self.tars = tars
        self.work = work
        self.root = work / "root"
        self.image = work / "merged.erofs"
        self.wrong: list[str] = []
        self.root.mkdir()
        since = time.time_ns() - CLOCK_NS
        self.extraction = extracted(self.root, tars, bounds)
        self.layers: list[Path] = []
        self.alone: list[Verdict] = []
        for tar in tars:
            self.layers.append(work / f"{tar.name}.erofs")
            self.alone.append(layer_file(tar, self.layers[-1], bounds=bounds))
        self.merging = merged(tars, self.image, bounds=bounds)
        self._judge(bounds)
        self.tree = [] if self.extraction.refused >= 0 else tree_of(self.root, since)
        if not self.wrong and self.extraction.refused < 0:
            self._hold(bounds)

    @property
    def reasons(self) -> set[str]:
        """Why a mount of each layer is not exact in an overlay; what the lowest one hides is nothing."""
        found = [{reason for each in verdict.reasons for reason in each} for verdict in self.alone]
        return set().union(*found[1:], *(reasons - OF_LOWER for reasons in found[:1]))

    def mounted(self) -> list[str]:
        """What is wrong with a mount of the merged metadata."""
        with descriptors([self.image, *self.layers]) as (fd, *devices):
            mount, _ = erofs.make(fd, devices)
            return self._against(mount)

    def overlaid(self) -> list[str]:
        """What is wrong with an overlay of a mount for each layer."""
        below = self.work / "below"
        below.mkdir(exist_ok=True)
        with ExitStack() as mounts, descriptors(self.layers) as files, opened(below) as nothing:
            lowers = [nothing]
            for fd in files:
                lowers.append(erofs.make(fd, [])[0])
                mounts.callback(os.close, lowers[-1])
            layers = [("lowerdir+", fd) for fd in reversed(lowers)]
            return self._against(_mount.create("overlay", [("source", "exam"), *layers, ("xino", "on")]))

    def _against(self, mount: int) -> list[str]:
        try:
            return differences(self.tree, listing(Path(f"/proc/self/fd/{mount}")))
        finally:
            os.close(mount)

    def _judge(self, bounds: Mapping[str, int]) -> None:
        """Refused by both, or by none; for the same kind of reason, at the same layer."""
        want, got = self.extraction, self.merging
        if (want.refused, want.why) != (got.refused, got.why):
            self.wrong.append(f"judgement: the extractor says {want}, the merger {got}")
        for number, verdict in enumerate(self.alone):
            if verdict.refused >= 0 and want.refused != number:
                self.wrong.append(f"judgement: layer {number} alone is {verdict}, the extractor says {want}")

    def _hold(self, bounds: Mapping[str, int]) -> None:
        found = read_back(self.image, self.layers)
        self.wrong += [f"merged: {line}" for line in differences(self.tree, found, owners=ROOT_USER)]
        with descriptors([self.image]) as (fd,):
            top, facts = ErofsReader(fd, "image").root, os.stat(self.root)
            if ROOT_USER and (top.mode, top.uid, top.gid) != (facts.st_mode, facts.st_uid, facts.st_gid):
                self.wrong.append(f"merged: the root is {stat.filemode(top.mode)} {top.uid}:{top.gid}")
        other = self.work / "again.erofs"
        if merged_of_files(self.tars, self.layers, other, bounds=bounds).refused >= 0:
            self.wrong.append("merged out of layer files: refused")
        elif other.read_bytes() != self.image.read_bytes():
            self.wrong.append("merged out of layer files: other bytes")
        for tar, layer in dict(zip(self.tars, self.layers, strict=True)).items():
            blocks = self.work / "blocks.erofs"
            assert layer_file(tar, blocks, "4k", bounds=bounds).refused < 0
            with descriptors([layer, blocks]) as (fd, fd_of_blocks):
                lines = differences(erofs_listing(fd), erofs_listing(fd_of_blocks))
            self.wrong += [f"{tar.name} in blocks: {line}" for line in lines]
