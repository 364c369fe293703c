"""What ``docker save`` wrote, read: each form of it, as manifests and blobs.

``manifest.json`` says which members are config and layers. Where the archive is a layout as well (Docker 25 and later)
and has the manifest that an image was pulled with, that one is the image's, with its digest. All others are given one
of schema 2 here. Its layers are the members as they are, compressed or not. Of those that are not, the config has the
digests, so that nothing is hashed before it is wanted. The oldest form has ``repositories`` and a directory for each v1
image: they become one config, by the rules for schema 1.
Spec: Docker image specification v1, v1.2; docs/archives.md.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec

from fastoci._core import Buffer
from fastoci.errors import FormatError, ReferenceSyntaxError, UnsupportedError
from fastoci.image import config as configs
from fastoci.image import docker_save, index, mediatype, schema1
from fastoci.image import document as documents
from fastoci.image import manifest as manifests
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.docker_save import SavedImage
from fastoci.image.reference import Reference
from fastoci.image_interfaces import NamedImage
from fastoci.interfaces import BufferSource
from fastoci.layouts.archive import Archive, ArchiveBlobs, mismatch, path_of
from fastoci.layouts.oci_archive_source import INDEX
from fastoci.limits import Limits
from fastoci.stream.inflate import sniff

_TYPES: Final = {
    "none": mediatype.DOCKER_LAYER,
    "gzip": mediatype.DOCKER_LAYER_GZIP,
    "zstd": mediatype.DOCKER_LAYER_ZSTD,
}


class _Parent(msgspec.Struct, frozen=True):
    parent: str | None = None


class DockerArchiveSource:
    """``ImageCollection`` and ``BlobSource`` of an archive, which stays the caller's."""

    def __init__(self, archive: Archive, limits: Limits) -> None:
        self.name = archive.name
        self._archive = archive
        self._limits = limits
        self._blobs = ArchiveBlobs(archive)
        self._made = 0  # bytes of manifests and configs that were made
        self._originals: dict[Digest, tuple[Descriptor, manifests.Manifest]] = {}  # by config
        self._names: tuple[NamedImage, ...] | None = None

    async def names(self) -> tuple[NamedImage, ...]:
        """Its images: ``ImageCollection.names``.

        Raises:
            FormatError, UnsupportedError: it is no such archive, or one that cannot be read.
            IntegrityError: a layer that passed by is not what its config says. StoreError: the disk refused.
        """
        if self._names is None:
            self._names = tuple(await self._read_names())
        return self._names

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """A manifest: ``ImageCollection.manifest``."""
        return await self._blobs.document(descriptor, self._limits.manifest_size)

    def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """A blob: ``ArchiveBlobs.fetch``."""
        return self._blobs.fetch(blob, offset, buffers)

    def spooled(self, blob: Descriptor) -> tuple[int, bytes] | None:
        """The file that has just this blob: ``SpoolingSource.spooled``."""
        return self._blobs.spooled(blob)

    async def _read_names(self) -> list[NamedImage]:
        members = self._archive.members
        if docker_save.MANIFEST not in members:
            return await self._read_v1()
        if INDEX in members:
            await self._find_originals()
        found = []
        saved = docker_save.parse_manifest(await self._read(docker_save.MANIFEST))
        self._check_count(len(saved))
        for image in saved:
            top = await self._image(image)
            found.append(_named(top, image.names))
        return found

    def _check_count(self, images: int) -> None:
        if images > self._limits.index_entries:
            raise FormatError(f"{self.name} has {images} images, more than {self._limits.index_entries}")

    async def _read(self, name: str) -> bytes:
        return await self._archive.read(self._archive.members.find(name), self._limits.manifest_size)

    async def _find_originals(self) -> None:
        """The manifests that the archive has as a layout, by their configs; of platforms not saved, nothing."""
        left = [(entry, 0) for entry in index.parse(await self._read(INDEX), mediatype.OCI_INDEX).manifests]
        seen: set[Digest] = set()
        while left and len(seen) <= self._limits.index_entries:
            entry, depth = left.pop()
            if entry.digest in seen or path_of(entry.digest) not in self._archive.members:
                continue
            seen.add(entry.digest)
            if entry.media_type in mediatype.INDEXES and depth < self._limits.index_depth:
                data = await self.manifest(entry)
                left += [(below, depth + 1) for below in index.parse(data, entry.media_type, choosing=True).manifests]
            elif entry.media_type in mediatype.MANIFESTS:
                data = await self.manifest(entry)
                self._count(data)
                manifest = manifests.parse(data, entry.media_type)
                self._originals[manifest.config.digest] = Descriptor.of(data, entry.media_type), manifest

    async def _image(self, saved: SavedImage) -> Descriptor:
        """The manifest of an image, found or made."""
        member = self._archive.members.find(saved.config)
        data = await self._archive.read(member, self._limits.manifest_size)
        config = Descriptor.of(data, mediatype.DOCKER_CONFIG)
        if member.name.startswith("blobs/") and member.name != path_of(config.digest):
            raise mismatch(self.name, member, member.name, str(config.digest))
        original = self._originals.get(config.digest)
        if original is not None and [path_of(layer.digest) for layer in original[1].layers] == list(saved.layers):
            return original[0]
        self._blobs.blobs[config.digest] = member
        diff_ids = configs.parse(data).diff_ids
        if not len(diff_ids) == len(saved.layers) <= self._limits.layers:
            text = f"{self.name}: {len(saved.layers)} layers, of which the config has {len(diff_ids)} diff_ids"
            raise FormatError(f"{text}; {self._limits.layers} are the most")
        layers = [await self._layer(*each) for each in zip(saved.layers, diff_ids, strict=True)]
        return self._keep_manifest(config, layers)

    async def _layer(self, path: str, diff_id: Digest | None) -> Descriptor:
        """A member as a layer: its bytes are kept as they are.

        Args:
            diff_id: what its tar is; None when nobody has said.
        """
        member = self._archive.members.find(path, follow=True)
        try:
            compression = sniff(await self._archive.head(member))
        except UnsupportedError as error:
            raise UnsupportedError(f"{self.name}: {member.name!r}: {error.message}") from error
        if diff_id is None or compression != "none":
            member, digest = await self._archive.hashed(member)
        else:
            digest = diff_id
            if digest.algorithm == "sha256" and member.digest not in (None, digest):
                raise mismatch(self.name, member, digest, str(member.digest))
        self._blobs.blobs.setdefault(digest, member)
        return Descriptor(_TYPES[compression], digest, member.size)

    def _keep_manifest(self, config: Descriptor, layers: Sequence[Descriptor]) -> Descriptor:
        data = docker_save.schema2(config, layers)
        manifests.parse(data, mediatype.DOCKER_MANIFEST)
        return self._keep(data, mediatype.DOCKER_MANIFEST)

    def _keep(self, data: bytes, media_type: str) -> Descriptor:
        """Have a document that the archive does not have."""
        described = Descriptor.of(data, media_type)
        if described.digest not in self._blobs.blobs:
            self._count(data)
            self._blobs.blobs[described.digest] = data
        return described

    def _count(self, data: bytes) -> None:
        self._made += len(data)
        if self._made > self._limits.documents_size:
            raise FormatError(f"{self.name}: its manifests have more than {self._limits.documents_size} bytes")

    async def _read_v1(self) -> list[NamedImage]:
        """The images of ``repositories``."""
        members = self._archive.members
        if docker_save.REPOSITORIES not in members:
            text = f"{self.name} is not of docker save: it has neither manifest.json nor repositories"
            raise FormatError(f"{text}, but an OCI layout, which oci-archive: reads" if INDEX in members else text)
        found = []
        repositories = docker_save.parse_repositories(await self._read(docker_save.REPOSITORIES))
        self._check_count(len(repositories))
        for image, names in repositories.items():
            top = await self._v1_image(image)
            found.append(_named(top, names))
        return found

    async def _v1_image(self, image: str) -> Descriptor:
        """A config and manifest of a v1 image and those below it."""
        history: list[str] = []
        layers: list[Descriptor] = []
        step: str | None = image
        while step:
            if len(layers) >= self._limits.layers:
                raise FormatError(f"{self.name}: {image} has more than {self._limits.layers} layers below it")
            data = await self._read(f"{step}/json")
            self._count(data)
            layers.append(await self._layer(f"{step}/layer.tar", None))
            if layers[-1].media_type != mediatype.DOCKER_LAYER:
                raise UnsupportedError(f"{self.name}: {step}/layer.tar is compressed, in an archive of v1 images")
            history.append(data.decode(errors="replace"))
            step = documents.peek(data, _Parent, what=f"{step}/json").parent
        parsed = schema1.parse(_as_schema1(history, layers))
        kept = {layer.digest: layer for layer in layers}
        diff_ids = parsed.layers
        config = self._keep(parsed.config(diff_ids), mediatype.DOCKER_CONFIG)
        return self._keep_manifest(config, [kept[diff_id] for diff_id in diff_ids])


def _as_schema1(history: Sequence[str], layers: Sequence[Descriptor]) -> bytes:
    """A v1 image as the manifest that a registry of its days had of it; the newest step first."""
    return json.dumps(
        {
            "schemaVersion": 1,
            "fsLayers": [{"blobSum": str(layer.digest)} for layer in layers],
            "history": [{"v1Compatibility": text} for text in history],
        }
    ).encode()


def _named(top: Descriptor, names: Sequence[str]) -> NamedImage:
    name, *also = map(_name, names or ("",))
    return NamedImage(name, top, tuple(also))


def _name(text: str) -> str:
    """A name in full, as whoever asks for it writes it; one that is no reference as it is."""
    try:
        return str(Reference.parse(text)) if text else ""
    except ReferenceSyntaxError:
        return text
