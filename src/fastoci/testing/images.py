"""Images and artifacts made to order: config, manifest, index over platforms, and a layout of them on disk.

Makes what is asked for, also what no puller should accept; verifies nothing.
Spec: image-spec v1.1 manifest.md, config.md, image-index.md, image-layout.md; Docker schema 2.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.layout import OCI_LAYOUT, REF_NAME, encode_index
from fastoci.image.platform import Platform
from fastoci.testing.layers import Layer

AMD64: Final = Platform("linux", "amd64")
EMPTY: Final = "application/vnd.oci.empty.v1+json"  # the config of what has none


@dataclass(frozen=True, slots=True)
class Image:
    """One image for one platform, as a registry holds it."""

    manifest: bytes
    media_type: str
    config: bytes
    config_type: str
    layers: tuple[Layer, ...]
    platform: Platform

    @classmethod
    def build(
        cls,
        layers: Sequence[Layer],
        *,
        platform: Platform = AMD64,
        docker: bool = False,
        command: Sequence[str] = (),
    ) -> Image:
        """An image of these layers, lowest first, with OCI or Docker media types."""
        config = _json(
            {
                "created": "2023-11-14T22:13:20Z",
                **_platform(platform),
                "config": {"Cmd": list(command)} if command else {},
                "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
                "history": [{"created_by": "fastoci.testing.images"} for _ in layers],
            }
        )
        media_type = mediatype.DOCKER_MANIFEST if docker else mediatype.OCI_MANIFEST
        config_type = mediatype.DOCKER_CONFIG if docker else mediatype.OCI_CONFIG
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": media_type,
                "config": encode(Descriptor.of(config, config_type)),
                "layers": [encode(layer.descriptor) for layer in layers],
            }
        )
        return cls(manifest, media_type, config, config_type, tuple(layers), platform)

    @property
    def descriptor(self) -> Descriptor:
        """What an index or a layout says of it."""
        return Descriptor(self.media_type, Digest.of(self.manifest), len(self.manifest), platform=self.platform)

    def documents(self) -> Iterator[tuple[Descriptor, bytes]]:
        """What a registry serves as manifests, the top one last."""
        yield self.descriptor, self.manifest

    def blobs(self) -> Iterator[tuple[Descriptor, bytes | Path]]:
        """The config and the layers, each digest once."""
        yield from {
            descriptor.digest: (descriptor, content)
            for descriptor, content in [
                (Descriptor.of(self.config, self.config_type), self.config),
                *((layer.descriptor, layer.content) for layer in self.layers),
            ]
        }.values()


@dataclass(frozen=True, slots=True)
class Index:
    """Images for several platforms under one name."""

    index: bytes
    media_type: str
    images: tuple[Image, ...]

    @classmethod
    def build(cls, images: Sequence[Image], *, docker: bool = False) -> Index:
        """An index, or a Docker manifest list, of these images in this order."""
        media_type = mediatype.DOCKER_LIST if docker else mediatype.OCI_INDEX
        rows = [encode(image.descriptor) for image in images]
        return cls(_json({"schemaVersion": 2, "mediaType": media_type, "manifests": rows}), media_type, tuple(images))

    @property
    def descriptor(self) -> Descriptor:
        """What a layout says of it."""
        return Descriptor.of(self.index, self.media_type)

    def documents(self) -> Iterator[tuple[Descriptor, bytes]]:
        """What a registry serves as manifests, the top one last."""
        for image in self.images:
            yield from image.documents()
        yield self.descriptor, self.index

    def blobs(self) -> Iterator[tuple[Descriptor, bytes | Path]]:
        """The configs and layers of all images; a digest may come more than once."""
        for image in self.images:
            yield from image.blobs()


@dataclass(frozen=True, slots=True)
class Artifact:
    """What is no image, in the form of one: a signature or an SBOM that hangs on a ``subject``, a chart, a model."""

    manifest: bytes
    content: tuple[tuple[Descriptor, bytes], ...]

    @classmethod
    def build(
        cls,
        kind: str,
        content: bytes = b"",
        *,
        subject: Descriptor | None = None,
        config: tuple[bytes, str] = (b"{}", EMPTY),
    ) -> Artifact:
        """An artifact of this type with one layer of it.

        Args:
            config: its bytes and their type; by default the empty one of the image-spec.
        """
        form: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "artifactType": kind,
            "config": encode(Descriptor.of(*config)),
            "layers": [encode(Descriptor.of(content, kind))],
        }
        if subject is not None:
            form["subject"] = encode(Descriptor(subject.media_type, subject.digest, subject.size))
        layer = Descriptor.of(content, kind)
        return cls(_json(form), ((Descriptor.of(*config), config[0]), (layer, content)))

    @property
    def descriptor(self) -> Descriptor:
        """What a list of referrers says of it."""
        kind = json.loads(self.manifest)["artifactType"]
        return replace(Descriptor.of(self.manifest, mediatype.OCI_MANIFEST), artifact_type=kind)

    def documents(self) -> Iterator[tuple[Descriptor, bytes]]:
        """What a registry serves as manifests."""
        yield self.descriptor, self.manifest

    def blobs(self) -> Iterator[tuple[Descriptor, bytes | Path]]:
        """The config and the layer."""
        yield from self.content


def write_layout(images: Mapping[str, Image | Index | Artifact], target: Path) -> None:
    """Write an OCI layout that holds these images by name. Big layers are linked when they are on its file system."""
    blobs = target / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    (target / "oci-layout").write_bytes(OCI_LAYOUT)
    entries: list[Descriptor] = []
    for name, image in images.items():
        for descriptor, content in [*image.documents(), *image.blobs()]:
            path = blobs / descriptor.digest.algorithm / descriptor.digest.hex
            path.parent.mkdir(exist_ok=True)
            if path.exists():
                continue
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                _link(content, path)
        entries.append(replace(image.descriptor, annotations={REF_NAME: name}))
    (target / "index.json").write_bytes(encode_index(entries))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _platform(platform: Platform) -> dict[str, str]:
    variant = {"variant": platform.variant} if platform.variant else {}
    return {"architecture": platform.architecture, "os": platform.os, **variant}


def _json(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
