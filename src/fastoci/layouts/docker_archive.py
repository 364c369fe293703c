"""What names the images of an archive for ``docker load``: ``manifest.json``, and a layout's ``index.json`` before it.

All versions of docker since 1.10 read ``manifest.json``: an image for one platform, under any number of names. Docker
25 and later, and containerd, read the layout, and find the very manifest that was copied. So does fastoci. Docker
before 1.10 reads ``repositories`` and image format v1, whose layers are links to blobs here.
Spec: Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format"; docs/archives.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastoci.errors import UnsupportedError
from fastoci.image import docker_save, mediatype
from fastoci.image import manifest as manifests
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.docker_save import SavedImage
from fastoci.image.layout import FULL_NAME, REF_NAME, encode_index, named
from fastoci.image.manifest import Manifest
from fastoci.image_interfaces import WholeImage
from fastoci.layouts.archive import path_of
from fastoci.layouts.archive_writer import Link
from fastoci.layouts.oci_archive_source import INDEX


class DockerForm:
    """The ``Form`` of ``docker-archive:``."""

    def check(self, image: WholeImage, documents: Mapping[Digest, bytes]) -> None:
        """Refuse what docker cannot load.

        Raises:
            UnsupportedError: the image is of several platforms, or is no container image.
        """
        if image.top.media_type in mediatype.INDEXES:
            text = f"{image.name or image.top.digest} is of several platforms: docker-archive: takes one of them"
            raise UnsupportedError(text)
        if not _manifest(image, documents).is_image:
            text = f"{image.name or image.top.digest} is an artifact and no container image: docker loads none"
            raise UnsupportedError(text)

    def documents(
        self, images: Sequence[WholeImage], documents: Mapping[Digest, bytes]
    ) -> Iterator[tuple[str, bytes | Link]]:
        """``index.json``, what is for Docker before 1.10, then ``manifest.json``."""
        yield INDEX, encode_index([_entry(image) for image in images])
        named: dict[Digest, dict[str, None]] = {}
        tops: dict[Digest, Manifest] = {}
        for image in images:
            tops.setdefault(image.top.digest, _manifest(image, documents))
            named.setdefault(image.top.digest, {}).update({image.name: None} if image.name else {})
        yield from _v1(tops, named, documents)
        saved = [_saved(tops[top], names) for top, names in named.items()]
        yield docker_save.MANIFEST, docker_save.encode_manifest(saved)


def _v1(
    tops: Mapping[Digest, Manifest], named: Mapping[Digest, Mapping[str, None]], documents: Mapping[Digest, bytes]
) -> Iterator[tuple[str, bytes | Link]]:
    """Image format v1: a directory for each layer of each image, and ``repositories``."""
    ids: dict[str, str] = {}
    seen: set[str] = set()
    for top, manifest in tops.items():
        config = documents.get(manifest.config.digest)
        if config is None or not manifest.layers:  # of a type that is usual for no config
            continue
        made = docker_save.v1_images(manifest.config, config, manifest.layers)
        for (image, data), layer in zip(made, manifest.layers, strict=True):
            if image not in seen:
                seen.add(image)
                yield f"{image}/VERSION", b"1.0"
                yield f"{image}/json", data
                yield f"{image}/layer.tar", Link(f"../{path_of(layer.digest)}")
        ids |= dict.fromkeys(named[top], made[-1][0])
    yield docker_save.REPOSITORIES, docker_save.encode_repositories(ids)


def _manifest(image: WholeImage, documents: Mapping[Digest, bytes]) -> Manifest:
    return manifests.parse(documents[image.top.digest], image.top.media_type)


def _saved(manifest: Manifest, names: Mapping[str, None]) -> SavedImage:
    layers = tuple(path_of(layer.digest) for layer in manifest.layers)
    return SavedImage(path_of(manifest.config.digest), layers, tuple(names))


def _entry(image: WholeImage) -> Descriptor:
    """An image of the layout: its name as containerd's importer, and so Docker 25, reads it, and the tag."""
    tag = image.name.rpartition(":")[2]
    return named(image.top, {FULL_NAME: image.name, REF_NAME: tag} if image.name else {})
