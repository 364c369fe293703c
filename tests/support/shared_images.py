"""The images of the folder beside the repository, as stacks of plain tars: layouts, archives, bare layers."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastoci import _core
from fastoci.errors import FormatError
from fastoci.stream.inflate import Inflate
from fastoci.transfer.layer_source import FileTar

WINDOW = 1 << 30  # bytes that a zstd frame may demand


@dataclass(frozen=True)
class Stack:
    """The layers of one image, lowest first, compressed or not."""

    name: str
    layers: list[Path]

    def tars(self, into: Path) -> list[Path]:
        """The layers as plain tars; one that is there twice is one file."""
        made: dict[Path, Path] = {}
        for layer in self.layers:
            if layer not in made:
                made[layer] = into / f"{len(made)}.tar"
                inflated(layer, made[layer])
        return [made[layer] for layer in self.layers]


def inflated(layer: Path, into: Path, *, most: int | None = None) -> None:
    """Write a layer's plain tar.

    Raises:
        FormatError, UnsupportedError: it is damaged, of a compression that no layer may have, or larger than ``most``.
    """
    pool = _core.Pool(4 << 20)
    source, out = pool.take(), pool.take()
    assert source is not None
    assert out is not None
    tar = FileTar(os.open(layer, os.O_RDONLY), source, Inflate(window=WINDOW))
    try:
        with into.open("wb") as file:
            while not tar.ended:
                if tar.make(out) is not None:
                    file.write(bytes(out))
                out.clear()
                if most is not None and file.tell() > most:
                    raise FormatError(f"{layer} is larger than {most} bytes")
    finally:
        tar.close()
        out.release()


def stacks(images: Path, work: Path) -> Iterator[Stack]:
    """All of ``shared/images`` that has layers; archives are opened below ``work``."""
    for layout in (
        "oci",
        "docker-schema2",
        "edge-cases",
        *(f"layouts/{path.name}" for path in _sorted(images / "layouts")),
    ):
        yield from _layout(images / layout, layout)
    for archive in _sorted(images / "archives"):
        if archive.name.startswith("layer-"):
            yield Stack(f"archives/{archive.name}", [archive])
        elif archive.name != "SOURCES.tsv":
            into = work / archive.name
            with tarfile.open(archive) as tar:
                tar.extractall(into, filter="data")
            yield from _archive(into, f"archives/{archive.name}")


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _archive(folder: Path, name: str) -> Iterator[Stack]:
    if (folder / "manifest.json").exists():
        for number, image in enumerate(json.loads((folder / "manifest.json").read_bytes())):
            yield Stack(f"{name}#{number}", [(folder / layer).resolve() for layer in image["Layers"]])
    else:
        yield from _layout(folder, name)


def _layout(folder: Path, name: str) -> Iterator[Stack]:
    seen: set[str] = set()
    for entry in _read(folder / "index.json").get("manifests", []):
        tag = entry.get("annotations", {}).get("org.opencontainers.image.ref.name", entry["digest"][7:19])
        for number, manifest in enumerate(_manifests(folder, entry["digest"], seen)):
            layers = [_blob(folder, layer["digest"]) for layer in manifest.get("layers", [])]
            types = [layer.get("mediaType", "") for layer in manifest.get("layers", [])]
            image = manifest.get("config", {}).get("mediaType", "").endswith(("image.config.v1+json", "image.v1+json"))
            if image and all(".tar" in each for each in types) and all(layer.exists() for layer in layers):
                yield Stack(f"{name}/{tag}{f'#{number}' if number else ''}", layers)


def _manifests(folder: Path, digest: str, seen: set[str]) -> Iterator[dict[str, Any]]:
    """The manifests that a digest leads to, each once."""
    if digest in seen:
        return
    seen.add(digest)
    document = _read(_blob(folder, digest))
    if "layers" in document:
        yield document
    for entry in document.get("manifests", []):
        yield from _manifests(folder, entry["digest"], seen)


def _blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "/")


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found
