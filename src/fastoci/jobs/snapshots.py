"""Snapshots of a job's images in containerd: made while layers arrive, and of what the store has.

Spec: containerd core/unpack/unpacker.go for what is labelled; docs/garbage-collection.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fastoci.containerd import labels
from fastoci.containerd.snapshots import Snapshots
from fastoci.image.config import ImageConfig, chain_id
from fastoci.image.digest import Digest
from fastoci.jobs.layers import Arriving, layers_of
from fastoci.jobs.plan import Resolved
from fastoci.jobs.pull import PullContext
from fastoci.jobs.resolve import read_config
from fastoci.jobs.stored import Mending
from fastoci.transfer.layer_making import LayerJob
from fastoci.transfer.snapshot_layers import SnapshotLayers
from fastoci.transfer.tee import Tee


class Unpacking:
    """Unpacks the images of one job with one snapshotter. An artifact has nothing to be unpacked.

    ``tees`` is how many of an image's lowest layers are read while they arrive, None: all. ``root`` is the directory
    whose disk is filled, None when it is not known.
    """

    def __init__(self, snapshots: Snapshots, context: PullContext) -> None:
        layering = context.layering
        self._snapshots = snapshots
        self._context = context
        self._maker = SnapshotLayers(snapshots, layering.workers, layering.reader, context.limits, context.observer)
        self.tees = self._maker.tees
        self.root = snapshots.root
        self._done: dict[Digest, dict[Digest, dict[str, str]]] = {}  # by manifest: labels of its blobs

    async def unpack(self, resolved: Resolved, config: ImageConfig, arriving: Arriving) -> None:
        """Have the snapshots of an image; the job's lease holds them.

        Raises:
            UnsupportedError: a layer of a type that cannot be unpacked.
            ContainerdError, UnpackError, FormatError, IntegrityError, StoreError: nothing of it is left but snapshots
                of whole layers.
        """
        layering, image = self._context.layering, arriving.mending.image
        pairs = layers_of(resolved.manifest, config)
        open_blob = partial(layering.open, mending=arriving.mending)

        async def work(tees: Mapping[Digest, Tee]) -> None:
            root = f"containerd/{self._snapshots.name}"
            job = LayerJob(image, root, resolved.descriptor.digest, pairs, arriving.ready, tees)
            await self._maker.make(job, open_blob)

        await layering.until_right(work, pairs, arriving)
        given = {blob.digest: {labels.UNCOMPRESSED: str(diff_id)} for blob, diff_id in pairs}
        if pairs:
            top = chain_id([diff_id for _, diff_id in pairs])
            given[resolved.manifest.config.digest] = labels.keeps_snapshot(self._snapshots.name, top)
        self._done[resolved.descriptor.digest] = given

    async def labels_of(self, asked: str, resolved: Resolved) -> Mapping[Digest, Mapping[str, str]]:
        """The labels of an image's blobs; what of it was not unpacked in this job is unpacked from the store.

        Args:
            asked: what the user called it, in events.
        Raises: as ``unpack``.
        """
        if resolved.descriptor.digest not in self._done:
            config = await read_config(self._context.store, resolved.manifest, self._context.limits)
            if config is not None:
                await self.unpack(resolved, config, Arriving(Mending(asked, None)))
        return self._done.get(resolved.descriptor.digest, {})
