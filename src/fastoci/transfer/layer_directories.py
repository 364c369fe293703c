"""Make layer directories out of layers: each alone, and one of those that only count together.

A layer whose directory is not exact on every stack makes one tree with all that is below it, in order.
Spec: docs/layer-directories.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial

from fastoci.aio import all_or_first
from fastoci.errors import StoreBusyError, UnpackError, UnsafePathError
from fastoci.image.config import chain_id
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layer_file import DirectoryFacts
from fastoci.image.overlay_options import find_stack, merged_layers, reasons_of
from fastoci.layer_interfaces import DirectoryIngest
from fastoci.stream.verify import Verified, Verifier
from fastoci.transfer.layer_making import Layer, LayerJob, LayerMaking, Reading
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.unpack.layer import LayerWriter
from fastoci.unpack.layer_directory import LayerDirectoryWriter, NewTree


class LayerDirectories(LayerMaking):
    """Makes the layer directories of images."""

    async def make(self, job: LayerJob) -> None:
        """Have all layers of an image as layer directories: ``LayerMaking.make``."""
        owners = os.geteuid() == 0
        totals = UnpackTotals(self._limits, job.image, self._observe, base=False, owners=owners)
        find = partial(self._layers.find_directory, owners=owners)
        diff_ids = [diff_id for _, diff_id in job.layers]
        stack = await self._workers.run(lambda: find_stack(diff_ids, find))

        def is_there(diff_id: Digest) -> bool:
            return stack is not None or find(diff_id) is not None

        refused: dict[Digest, tuple[str, ...]] = {}
        absent = await self._absent(job, is_there, totals)
        await all_or_first([asyncio.create_task(self._directory(layer, owners, refused)) for layer in absent])
        if stack is None:
            await self._merge(job, owners, refused)
        self._end(job, absent, totals)

    async def _directory(self, layer: Layer, owners: bool, refused: dict[Digest, tuple[str, ...]]) -> None:
        """Make one layer directory, or note why the layer is refused alone."""
        begin = partial(self._layers.begin_directory, layer.diff_id, owners=owners)
        wait = partial(self._layers.wait_directory, layer.diff_id, owners=owners)
        await self._once(layer, begin, wait, partial(self._fill, owners=owners, refused=refused))

    async def _fill(
        self,
        layer: Layer,
        ingest: DirectoryIngest,
        reading: Reading,
        *,
        owners: bool,
        refused: dict[Digest, tuple[str, ...]],
    ) -> None:
        made: list[LayerDirectoryWriter] = []

        def make(entries: int, size: int) -> LayerDirectoryWriter:
            made.append(
                LayerDirectoryWriter(
                    ingest.fd,
                    name=str(layer.diff_id),
                    owners=owners,
                    max_entries=entries,
                    max_bytes=size,
                    max_directories=self._limits.layer_directories,
                )
            )
            return made[-1]

        try:
            writer, proof = await self._read(layer, make, reading)
        except UnpackError:
            if not made or not made[0].reasons:
                raise
            refused[layer.diff_id] = made[0].reasons  # only the layers together say it
            await ingest.abort()
        else:
            await ingest.commit(writer.facts, [proof])

    async def _merge(self, job: LayerJob, owners: bool, refused: Mapping[Digest, tuple[str, ...]]) -> None:
        """Have one tree of the layers that only count together.

        Raises:
            UnpackError: they are refused together, too.
        """

        def look() -> tuple[int, bool]:
            found = [self._layers.find_directory(diff_id, owners=owners) for _, diff_id in job.layers]
            merged = merged_layers([reasons_of(layer) for layer in found])
            return merged, merged == 1 and found[0] is not None

        merged, is_refused = await self._workers.run(look)
        lowest = job.layers[:merged]
        if not lowest:
            return
        chain, is_there = chain_id([diff_id for _, diff_id in lowest]), False
        if is_refused:
            raise UnsafePathError(
                f"layer {chain}: a hard link to what is in no layer", path="", layer=str(chain), offset=0
            )
        while not is_there:
            try:
                ingest = await self._layers.begin_directory(chain, owners=owners)
            except StoreBusyError:
                is_there = await self._layers.wait_directory(chain, owners=owners)
            else:
                if ingest is not None:
                    # One layer has its own key, and is found by it also where it is not the lowest.
                    reasons = refused.get(chain, ())
                    await self._held(ingest, self._fill_merged(job, lowest, ingest, owners, reasons))
                return

    async def _fill_merged(
        self,
        job: LayerJob,
        layers: Sequence[tuple[Descriptor, Digest]],
        ingest: DirectoryIngest,
        owners: bool,
        reasons: tuple[str, ...],
    ) -> None:
        """Unpack layers in order into one tree; they are in the store by now."""
        totals = UnpackTotals(self._limits, job.image, lambda event: None, base=False, owners=owners)
        tree = await self._workers.run(partial(NewTree, ingest.fd))
        proofs, writers = [], []
        try:
            for number, (blob, diff_id) in enumerate(layers):
                layer = Layer(job, totals, number, blob, diff_id)
                arrived = self._reader.arrived(None, partial(job.ready, blob), partial(self._open, blob, diff_id))
                async with arrived as reading:
                    writer, proof = await self._read_into(tree.fd, layer, reading)
                proofs.append(proof)
                writers.append(writer)
            await self._workers.run(tree.finish)
        finally:
            tree.close()
        facts = DirectoryFacts(
            entries=sum(writer.entries for writer in writers),
            size=sum(writer.bytes for writer in writers),
            reasons=reasons,
            owners=owners,
            user_xattrs=False,
            names_root=any(writer.names_root for writer in writers),
        )
        await ingest.commit(facts, proofs)

    async def _read_into(self, root_fd: int, layer: Layer, reading: Reading) -> tuple[LayerWriter, Verified]:
        """Unpack one layer on top of those that are in the tree."""
        read, _ = reading
        make = partial(layer.totals.writer, layer.number, root_fd, str(layer.diff_id))
        async with self._reader.sink(make) as writer:
            proof = await read(writer, Verifier(layer.diff_id, None), partial(layer.totals.progress, layer.number))
        assert proof is not None
        return writer, proof
