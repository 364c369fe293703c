"""Layer files with content of no meaning: what a store keeps, without who writes them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence

from fastoci.image import mediatype
from fastoci.image.descriptor import encode
from fastoci.image.digest import Digest
from fastoci.image.layer_file import TAR_OFFSET, DirectoryFacts, Form, LayerFacts, LayerInfo
from fastoci.image.stored_image import StoredImage
from fastoci.layer_interfaces import LayerIngest, LayerStore
from fastoci.testing.suites.filling import proof_of
from support.store_shelf import Shelf

_METADATA = b"metadata" * 512


def tar_of(seed: int = 0, size: int = 10_240) -> bytes:
    """The tar of a layer, as far as a store cares."""
    return random.Random(seed).randbytes(size)


def file_of(tar: bytes) -> bytes:
    """A file of the tar form."""
    return b"\1" * TAR_OFFSET + tar + bytes(-len(tar) % 4096) + _METADATA


def facts_of(tar: bytes, *, reasons: Sequence[str] = (), form: Form = "tar") -> LayerFacts:
    """What is known of that file."""
    size = len(file_of(tar))
    return LayerFacts(
        form=form,
        tar_size=len(tar),
        metadata_offset=size - len(_METADATA),
        size=size,
        entries=3,
        reasons=tuple(reasons),
    )


def write(ingest: LayerIngest, tar: bytes) -> None:
    """As the writer does: block 0 last."""
    data = file_of(tar)
    os.pwrite(ingest.fd, data[TAR_OFFSET:], TAR_OFFSET)
    os.pwrite(ingest.fd, data[:TAR_OFFSET], 0)


async def put(layers: LayerStore, tar: bytes, *, reasons: Sequence[str] = (), form: Form = "tar") -> LayerInfo:
    """Make the layer file of a tar, which must be absent."""
    ingest = await layers.begin(Digest.of(tar), form=form)
    assert ingest is not None
    write(ingest, tar)
    return await ingest.commit(facts_of(tar, reasons=reasons, form=form), proof_of(tar))


async def put_merged(layers: LayerStore, manifest: Digest, devices: Sequence[Digest]) -> None:
    """Make merged metadata, which must be absent."""
    ingest = await layers.begin_merged(manifest)
    assert ingest is not None
    os.write(ingest.fd, b"merged metadata")
    await ingest.commit(devices)


TREE = DirectoryFacts(entries=3, size=0, owners=True, user_xattrs=False, names_root=False)


async def put_tree(layers: LayerStore, tar: bytes) -> None:
    """Make a layer directory with two files, which must be absent."""
    ingest = await layers.begin_directory(Digest.of(tar), owners=True)
    assert ingest is not None
    for name in ("tree", "tree/etc"):
        os.mkdir(name, dir_fd=ingest.fd)
    for name in ("tree/etc/passwd", "tree/app"):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=ingest.fd))
    await ingest.commit(TREE, [proof_of(tar)])


async def image(shelf: Shelf, name: str, *tars: bytes, unpack: bool = True, layers_only: bool = False) -> StoredImage:
    """An image whose layers have these tars, with their layer files and merged metadata."""
    ids = [Digest.of(tar) for tar in tars]
    text = json.dumps({"name": name, "rootfs": {"type": "layers", "diff_ids": list(map(str, ids))}})
    config = await shelf.put(text.encode(), media_type=mediatype.OCI_CONFIG)
    blobs = [await shelf.put(compressed(tar), media_type=mediatype.OCI_LAYER_GZIP) for tar in tars]
    form = {"schemaVersion": 2, "config": encode(config), "layers": [encode(blob) for blob in blobs]}
    manifest = await shelf.put(json.dumps(form).encode(), media_type=mediatype.OCI_MANIFEST)
    ref = StoredImage(
        f"registry.test/{name}:1",
        manifest,
        {"linux/amd64": manifest},
        "2023-11-14T22:13:20Z",
        layers_only=layers_only,
    )
    await shelf.record(ref)
    if unpack:
        for tar in tars:
            if shelf.store.layers.find(Digest.of(tar)) is None:
                await put(shelf.store.layers, tar)
        await put_merged(shelf.store.layers, manifest.digest, ids)
    return ref


def compressed(tar: bytes) -> bytes:
    """A layer's blob, as far as a store cares."""
    return b"compressed" + tar[::2]
