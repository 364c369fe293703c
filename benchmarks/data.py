"""The images that benchmarks pull, built once and kept as OCI layouts in a work directory.

``one``, ``img2``, ``img4`` and ``img8`` hold real files of /usr, topped up from a seed: 950 MB, 22,000 files, in one
layer and in several.
``small`` is one layer of 78,000 small files, ``big`` one layer of one file of 1 GB that does not compress, ``pair`` has
two of those, ``node-app`` is a real image from the folder ``shared`` beside the repository. ``scale`` multiplies sizes
and counts.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from benchmarks.report import ROOT
from fastoci.image.layout import REF_NAME
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, write_layout
from fastoci.testing.layers import Entry, Layer, Seeded, from_directory, from_seed

LAYERED = {"one": 1, "img2": 2, "img4": 4, "img8": 8}  # the same files, in so many layers
NAMES = (*LAYERED, "small", "node-app", "big", "pair")
_FEW_BYTES = 100 << 20
_SHARED = ROOT.parent / "shared" / "images" / "oci"


@dataclass(frozen=True, slots=True)
class Sample:
    """An image in a layout on disk. ``layers`` are its compressed layers' files, lowest first."""

    name: str
    layout: Path
    manifest: Path
    config: Path
    layers: tuple[Path, ...]
    size: int  # compressed, with the config

    @property
    def blobs(self) -> tuple[Path, ...]:
        """Every blob but the manifest, each once."""
        return tuple(dict.fromkeys([self.config, *self.layers]))


def prepare(name: str, work: Path, *, scale: float = 1.0) -> Sample:
    """Build the image, or take the one that an earlier call left in ``work``.

    Raises:
        FileNotFoundError: ``node-app`` is asked for and the folder ``shared`` is absent.
    """
    if name == "node-app":
        return _sample(name, _SHARED)

    def build(parts: Path) -> dict[str, Image]:
        layers = [Layer.build(entries, into=parts) for entries in _entries(name, scale)]
        return {name: Image.build(layers, platform=Platform.host())}

    return _sample(name, kept(work, f"{name}-{scale:g}", build))


def kept(work: Path, name: str, build: Callable[[Path], Mapping[str, Image]]) -> Path:
    """The layout of images by name: built, or what an earlier call left in ``work``.

    Args:
        build: is given a directory for layers.
    """
    layout = work / "images" / name
    if not (layout / "index.json").exists():  # written last
        shutil.rmtree(layout, ignore_errors=True)
        layout.mkdir(parents=True)
        parts = layout / "parts"
        parts.mkdir()
        write_layout(build(parts), layout)
        shutil.rmtree(parts)
    return layout


def samples(layout: Path) -> list[Sample]:
    """All images of a layout."""
    return [_read(row["annotations"][REF_NAME], layout, row) for row in _rows(layout)]


def _entries(name: str, scale: float) -> Iterator[Iterator[Entry]]:
    if name == "small":
        yield from_seed(78, files=round(78_000 * scale), size=4000)
    elif name in ("big", "pair"):
        for seed in (1,) if name == "big" else (1, 2):
            yield iter([Entry("big", data=Seeded(seed, round(scale * (1 << 30)), 0.0))])
    else:
        count = LAYERED[name]
        entries = list(_real_files(round(950e6 * scale), round(22_000 * scale)))
        share = sum(entry.size for entry in entries) / count
        layer, filled = list[Entry](), 0
        for entry in entries:
            layer.append(entry)
            filled += entry.size
            if filled >= share and count > 1:
                yield iter(layer)
                layer, filled, count = [], 0, count - 1
        yield iter(layer)


def _real_files(size: int, files: int) -> Iterator[Entry]:
    """Every so many files of /usr, with the directories they are in; then files from a seed, up to ``size`` bytes."""
    at = "usr" if size > _FEW_BYTES else "usr/bin"  # to list all of /usr takes seconds
    found = [entry for entry in from_directory(Path("/", at), at=at, skip={"local"}) if entry.kind != "hardlink"]
    step = max(1, round(sum(entry.size for entry in found) / size))
    folders = {entry.path: entry for entry in found if entry.kind == "directory"}
    left, count = size, files
    for entry in found:
        if (
            entry.kind == "directory"
            or zlib.crc32(os.fsencode(entry.path)) % step
            or entry.size > min(left, size // 16)
        ):
            continue
        parents = [str(parent) for parent in reversed(PurePath(entry.path).parents)]
        yield from [folders.pop(parent) for parent in parents if parent in folders]
        yield entry
        left, count = left - entry.size, count - 1
    if left > size // 50:
        yield from from_seed(22, files=max(100, count), size=left // max(100, count), at="seeded")


def _rows(layout: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((layout / "index.json").read_bytes())["manifests"]
    return rows


def _sample(name: str, layout: Path) -> Sample:
    return _read(name, layout, next(row for row in _rows(layout) if row["annotations"][REF_NAME] == name))


def _read(name: str, layout: Path, row: Mapping[str, str]) -> Sample:
    def blob(row: Mapping[str, str]) -> Path:
        return layout / "blobs" / row["digest"].replace(":", "/")

    manifest = blob(row)
    document = json.loads(manifest.read_bytes())
    layers = tuple(blob(row) for row in document["layers"])
    size = sum(row["size"] for row in [document["config"], *document["layers"]])
    return Sample(name, layout, manifest, blob(document["config"]), layers, size)
