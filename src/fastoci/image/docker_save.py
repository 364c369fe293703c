"""The documents of ``docker save``: ``manifest.json``, ``repositories``, and the manifest that an image has from them.

An archive says which files a config and layers are, and nothing of manifests: that of schema 2 is made here, the same
each time. Paths are what the archive calls its members. Pure.
Spec: Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format"; v1, for ``repositories``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from fastoci.errors import FormatError
from fastoci.image import document, mediatype
from fastoci.image.descriptor import Descriptor

MANIFEST: Final = "manifest.json"
REPOSITORIES: Final = "repositories"
_OF_V2: Final = ("rootfs", "history")  # what no v1 image has
_NO_TIME: Final = "1970-01-01T00:00:00Z"
_ID: Final = re.compile(r"[0-9a-f]{64}")


class SavedImage(msgspec.Struct, frozen=True):
    """One image of an archive: the files of its config and layers, the lowest first, and its names."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


class _Entry(msgspec.Struct, frozen=True):
    config: str = msgspec.field(name="Config")
    layers: tuple[str, ...] | None = msgspec.field(name="Layers")
    tags: tuple[str, ...] | None = msgspec.field(name="RepoTags", default=None)


def parse_manifest(data: bytes) -> tuple[SavedImage, ...]:
    """The images of an archive, in their order: those of ``manifest.json``.

    Raises:
        FormatError: not strict JSON, or no list of images.
    """
    entries = document.decode(data, tuple[_Entry, ...], what=MANIFEST)
    return tuple(SavedImage(each.config, each.layers or (), each.tags or ()) for each in entries)


def parse_repositories(data: bytes) -> dict[str, list[str]]:
    """The names of each v1 image, by its id, in the order of ``repositories``.

    Raises:
        FormatError: not strict JSON, or an id is none: it would be the name of a directory.
    """
    found: dict[str, list[str]] = {}
    repositories = document.decode(data, dict[str, dict[str, str]], what=REPOSITORIES)
    for repository, tags in repositories.items():
        for tag, image in tags.items():
            if not _ID.fullmatch(image):
                raise FormatError(f"{REPOSITORIES}: the id of an image is 64 hex digits, not {image[:100]!r}")
            found.setdefault(image, []).append(f"{repository}:{tag}")
    return found


def encode_manifest(images: Sequence[SavedImage]) -> bytes:
    """``manifest.json`` of these images."""
    entries = [
        {"Config": image.config, "RepoTags": list(image.names) or None, "Layers": list(image.layers)}
        for image in images
    ]
    return json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()


def encode_repositories(images: Mapping[str, str]) -> bytes:
    """``repositories``: the ids of v1 images by their names, each with a tag."""
    found: dict[str, dict[str, str]] = {}
    for name, image in images.items():
        repository, _, tag = name.rpartition(":")
        found.setdefault(repository, {})[tag] = image
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()


def v1_images(config: Descriptor, data: bytes, layers: Sequence[Descriptor]) -> list[tuple[str, bytes]]:
    """The v1 images that an image is for Docker before 1.10, the lowest first: the id and the JSON of each.

    Args:
        data: the config; all it says is of the last of them.
    Raises:
        FormatError: the config is not JSON, or no object.
    """
    form = document.peek(data, dict[str, Any], what="config")
    found: list[tuple[str, bytes]] = []
    parent = ""
    for layer in layers:
        last = len(found) + 1 == len(layers)
        said = f"{parent} {layer.digest} {config.digest}" if last else f"{parent} {layer.digest}"
        image = hashlib.sha256(said.encode()).hexdigest()
        kept = {key: value for key, value in form.items() if key not in _OF_V2} if last else {"created": _NO_TIME}
        kept |= {"id": image, **({"parent": parent} if parent else {})}
        found.append((image, json.dumps(kept, separators=(",", ":"), ensure_ascii=False).encode()))
        parent = image
    return found


def schema2(config: Descriptor, layers: Sequence[Descriptor]) -> bytes:
    """The manifest of an image that has none, as docker and skopeo write theirs."""
    form = {
        "schemaVersion": 2,
        "mediaType": mediatype.DOCKER_MANIFEST,
        "config": _described(config),
        "layers": [_described(layer) for layer in layers],
    }
    return json.dumps(form, separators=(",", ":")).encode()


def _described(blob: Descriptor) -> dict[str, object]:
    return {"mediaType": blob.media_type, "size": blob.size, "digest": str(blob.digest)}
