"""What must hold before an image is mounted whose files the kernel is to verify at each read. docs/verity.md."""

from __future__ import annotations

from typing import Final

from fastoci import mountinfo
from fastoci.errors import BlobNotFoundError, MountError
from fastoci.image.digest import Digest
from fastoci.jobs.mounting import LayerFiles
from fastoci.jobs.mounts import shared_mounts
from fastoci.layer_interfaces import LayerStore
from fastoci.mount.way import Way, way_of
from fastoci.store.layers.verity import demand

_BY_FILES: Final[frozenset[Way | None]] = frozenset({"file-backed", "loop", "fuse"})  # read what the kernel holds


def demand_verity(layers: LayerStore, manifest: Digest, sources: LayerFiles) -> None:
    """Refuse files of an image that the kernel does not hold against their digests. Synchronous, for threads.

    Raises:
        MountError: it holds one against none; or the image is mounted already, out of something else.
        DigestMismatchError: it holds one against another digest.
        BlobNotFoundError: a record went meanwhile.
    """
    shared = shared_mounts(mountinfo.mounts()).get(manifest.hex)
    if shared is not None and way_of(shared) not in _BY_FILES:
        text = f"the image is mounted already, as {way_of(shared)}, which no kernel verifies: umount it first"
        raise MountError(text, path=shared.point)
    merged = layers.find_merged(manifest)
    infos = None if merged is None else [merged, *map(layers.find, merged.devices)]
    if infos is None or len(infos) != 1 + len(sources.devices):
        raise BlobNotFoundError(f"the store lost the merged metadata of {manifest}", path=str(manifest))
    for fd, info in zip((sources.metadata, *sources.devices), infos, strict=True):
        if info is None:
            raise BlobNotFoundError(f"the store lost a layer file of {manifest}", path=str(manifest))
        demand(fd, info)
