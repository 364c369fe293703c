"""A store as crowded as a busy node's: sparse blobs by the million, and image references that share layers.

Only names, sizes, documents and references are real; no blob has data. The same counts give the same store.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.mediatype import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from fastoci.store.opening import open_store

STRAY = 0.05  # of the blobs belong to no reference
_SHARED = 3  # layers that an image has in common with its group
_GROUP = 50
_THREADS = 4
_PLATFORM = "linux/amd64"


@dataclass(frozen=True, slots=True)
class Crowd:
    """What was made. ``blobs`` are descriptors that are there, spread over the whole store."""

    path: Path
    blobs: tuple[Descriptor, ...]
    count: int
    references: int


def crowd(path: Path, *, blobs: int, references: int, sample: int = 10_000) -> Crowd:
    """Make the store; ``path`` must not exist."""
    open_store(path).close()
    directory = os.open(path / "blobs" / "sha256", os.O_RDONLY | os.O_DIRECTORY)
    try:
        stray = int(blobs * STRAY)
        each = max(1, (blobs - stray - _SHARED * -(-references // _GROUP)) // references - 2)  # layers of its own
        with ThreadPoolExecutor(_THREADS) as threads:
            chunks = [range(start, min(start + 500, references)) for start in range(0, references, 500)]
            made = list(threads.map(lambda chunk: _images(path, directory, chunk, each), chunks))
            count = sum(number for number, _ in made) + stray
            list(threads.map(lambda chunk: _files(directory, map(_stray, chunk)), _split(stray, 5000)))
    finally:
        os.close(directory)
    all_samples = [blob for _, some in made for blob in some]
    step = max(1, len(all_samples) // sample)
    return Crowd(path, tuple(all_samples[::step][:sample]), count, references)


def _split(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _stray(number: int) -> Descriptor:
    return _blob("stray", number, OCI_LAYER_GZIP)


def _blob(kind: str, number: int, media_type: str) -> Descriptor:
    name = hashlib.sha256(f"{kind} {number}".encode()).hexdigest()
    return Descriptor(media_type, Digest("sha256", name), 1000 + int(name[:5], 16))


def _files(directory: int, blobs: Iterable[Descriptor]) -> int:
    count = 0
    for blob in blobs:
        fd = os.open(blob.digest.hex, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444, dir_fd=directory)
        os.ftruncate(fd, blob.size)
        os.close(fd)
        count += 1
    return count


def _images(path: Path, directory: int, numbers: Sequence[int], each: int) -> tuple[int, list[Descriptor]]:
    count, sample = 0, []
    for number in numbers:
        group, position = divmod(number, _GROUP)
        shared = [_blob("shared", group * _SHARED + index, OCI_LAYER_GZIP) for index in range(_SHARED)]
        own = [_blob("own", number * each + index, OCI_LAYER_GZIP) for index in range(each)]
        config = _blob("config", number, OCI_CONFIG)
        raw = _manifest(config, shared + own)
        manifest = Descriptor.of(raw, OCI_MANIFEST)
        new = [config, *own, *(shared if position == 0 else ())]
        count += _files(directory, new) + 1
        (path / "blobs" / "sha256" / manifest.digest.hex).write_bytes(raw)
        _reference(path, f"registry.example.com/team{group}/app{number}:1.{position}", manifest)
        sample += new
    return count, sample


def _form(blob: Descriptor) -> dict[str, object]:
    return {"mediaType": blob.media_type, "digest": str(blob.digest), "size": blob.size}


def _manifest(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    layer_forms = [_form(layer) for layer in layers]
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": _form(config), "layers": layer_forms}
    return json.dumps(document).encode()


def _reference(path: Path, name: str, manifest: Descriptor) -> None:
    """As ``store.refs`` writes it, without waiting for the disk."""
    key = hashlib.sha256(name.encode()).hexdigest()
    directory = path / "refs" / key[:2]
    directory.mkdir(exist_ok=True)
    image = {**_form(manifest), "platform": {"architecture": "amd64", "os": "linux"}}
    form = {
        "name": name,
        "descriptor": _form(manifest),
        "images": {_PLATFORM: image},
        "pinned": False,
        "pulled_at": "2026-01-01T00:00:00Z",
    }
    (directory / key).write_text(json.dumps(form, indent=1) + "\n")
