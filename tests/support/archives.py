"""Archives of images made by hand, as docker has written them and as nobody should, and the way to read them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastoci import _core
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layout import OCI_LAYOUT, REF_NAME, encode_index
from fastoci.interfaces import BufferSource
from fastoci.layouts.archive import Archive
from fastoci.layouts.archive_opening import open_archive
from fastoci.limits import Limits
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.transfer.buffers import Buffers

Members = Sequence[tuple[str | tarfile.TarInfo, bytes]]


def image_of(*texts: str, name: str = "", compression: str = "none") -> Image:
    """An image of a layer a text."""
    layers = [Layer.build([Entry(name or "file", data=text.encode())], compression) for text in texts]  # type: ignore[arg-type]
    return Image.build(layers, docker=True)


def write_tar(path: Path, members: Members) -> Path:
    """A tar of these members, in this order."""
    path.write_bytes(tar_bytes(members))
    return path


def tar_bytes(members: Members) -> bytes:
    """The same in memory."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    """A link as a member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def saved(images: Mapping[str, Image], *, layers_first: bool = True) -> list[tuple[str | tarfile.TarInfo, bytes]]:
    """What docker 1.10 to 24 saved: a directory for each layer, configs, ``manifest.json``; a layer twice is a link."""
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    entries, where = [], dict[str, str]()
    for name, image in images.items():
        paths = []
        for position, layer in enumerate(image.layers):
            directory = hashlib.sha256(f"{name} {position}".encode()).hexdigest()
            paths.append(f"{directory}/layer.tar")
            members += [(f"{directory}/VERSION", b"1.0"), (f"{directory}/json", b"{}")]
            first = where.setdefault(str(layer.descriptor.digest), paths[-1])
            assert isinstance(layer.content, bytes)
            members.append((paths[-1], layer.content) if first == paths[-1] else link(paths[-1], f"../{first}"))
        config = f"{hashlib.sha256(image.config).hexdigest()}.json"
        members.append((config, image.config))
        entries.append({"Config": config, "RepoTags": [name] if name else None, "Layers": paths})
    manifest: tuple[str | tarfile.TarInfo, bytes] = ("manifest.json", json.dumps(entries).encode())
    return [*members, manifest] if layers_first else [manifest, *members]


def saved_v1(name: str, texts: Sequence[str]) -> list[tuple[str | tarfile.TarInfo, bytes]]:
    """What docker before 1.10 saved: image format v1, a layer a text, the lowest first."""
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    parent = ""
    for text in texts:
        image = hashlib.sha256(f"{parent} {text}".encode()).hexdigest()
        form: dict[str, object] = {
            "id": image,
            "created": "2014-05-01T12:00:00Z",
            "os": "linux",
            "architecture": "amd64",
        }
        form |= {"parent": parent} if parent else {}
        form["container_config"] = {"Cmd": ["/bin/sh", "-c", f"#(nop) ADD {text}"]}
        form["config"] = {"Cmd": ["/bin/sh"]}
        layer = Layer.build([Entry(f"file-{text}", data=text.encode())], "none")
        assert isinstance(layer.content, bytes)
        members += [(f"{image}/VERSION", b"1.0"), (f"{image}/json", json.dumps(form).encode())]
        members.append((f"{image}/layer.tar", layer.content))
        parent = image
    repository, _, tag = name.partition(":")
    return [*members, ("repositories", json.dumps({repository: {tag: parent}}).encode())]


def layout(images: Mapping[str, Image | Index]) -> list[tuple[str | tarfile.TarInfo, bytes]]:
    """A layout as one tar."""
    blobs: dict[str, bytes] = {}
    for image in images.values():
        for blob, data in (*image.documents(), *image.blobs()):
            assert isinstance(data, bytes)
            blobs[f"blobs/{blob.digest.algorithm}/{blob.digest.hex}"] = data
    entries = [_named(image.descriptor, name) for name, image in images.items()]
    return [("oci-layout", OCI_LAYOUT), *blobs.items(), ("index.json", encode_index(entries))]


def hybrid(images: Mapping[str, Image], top: Index | None = None) -> Members:
    """What Docker 25 saves: a layout, and ``manifest.json``."""
    paths = {name: [f"blobs/sha256/{layer.descriptor.digest.hex}" for layer in images[name].layers] for name in images}
    entries = [
        {
            "Config": f"blobs/sha256/{Digest.of(image.config).hex}",
            "RepoTags": [name] if name else None,
            "Layers": paths[name],
        }
        for name, image in images.items()
    ]
    members = layout(images if top is None else {"all:1": top})
    return [*members, ("manifest.json", json.dumps(entries).encode())]


def _named(top: Descriptor, name: str) -> Descriptor:
    annotations = {REF_NAME: name} if name else {}
    return Descriptor(top.media_type, top.digest, top.size, annotations=annotations)


async def make_file() -> int:
    """A file without a name."""
    return os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)


@asynccontextmanager
async def opened(path: Path, limits: Limits | None = None) -> AsyncIterator[tuple[Archive, BufferSource]]:
    """An archive, and buffers to fetch into; all of them are there in the end."""
    buffers = Buffers(_core.Pool(8 << 20, poison=True))
    async with open_archive(path, make_file, buffers, limits or Limits()) as archive:
        yield archive, buffers
    assert buffers.pool.in_use == 0
