"""Make layer files out of layers, and merged metadata out of layer files.

Spec: docs/store-format.md 9.
"""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import NAMESPACE_URL, uuid5

import msgspec

from fastoci import files
from fastoci.aio import all_or_first
from fastoci.errors import BlobNotFoundError, StoreBusyError
from fastoci.events import Warned
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layer_file import Form
from fastoci.layer_interfaces import LayerIngest, MergedIngest
from fastoci.transfer.layer_making import Layer, LayerJob, LayerMaking, Reading
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.unpack.erofs import LayerFileWriter, MergedWriter
from fastoci.unpack.measured_layer import MeasuredLayerFile
from fastoci.verity.dm_verity import append


class LayerFiles(LayerMaking):
    """Makes the layer files and the merged metadata of images."""

    _form: Form = "tar"

    async def make(self, job: LayerJob) -> None:
        """Have all layers of an image as layer files, and its merged metadata: ``LayerMaking.make``."""
        totals = UnpackTotals(self._limits, job.image, self._observe, base=False, owners=True)
        absent = await self._absent(job, self._is_there, totals)
        await all_or_first([asyncio.create_task(self._file(layer)) for layer in absent])
        await self._complete(job)
        self._end(job, absent, totals)

    def _is_there(self, diff_id: Digest) -> bool:
        info = self._layers.find(diff_id)
        return info is not None and info.form == self._form

    async def _complete(self, job: LayerJob) -> None:
        """All layer files are there."""
        await self._merge(job)
        if job.verity:
            await self._enforce(job)

    async def _enforce(self, job: LayerJob) -> None:
        """Have the kernel hold all files of an image against their digests; say it where it cannot."""
        unique = dict.fromkeys(diff_id for _, diff_id in job.layers)
        held = [await self._layers.enforce(diff_id) for diff_id in unique]
        if not all([*held, await self._layers.enforce_merged(job.manifest)]):
            text = f"no fs-verity: the kernel, or the file system of {job.root}, has none; nothing is enforced"
            self._observe(Warned(job.image, text))

    async def _file(self, layer: Layer) -> None:
        begin = partial(self._layers.begin, layer.diff_id, form=self._form)
        wait = partial(self._layers.wait, layer.diff_id, _unheard, form=self._form)
        await self._once(layer, begin, wait, self._fill)

    async def _fill(self, layer: Layer, ingest: LayerIngest, reading: Reading) -> None:
        kind = MeasuredLayerFile if layer.job.verity else LayerFileWriter
        writer, proof = await self._read(layer, partial(self._writer, kind, layer, ingest), reading)
        digest = writer.fs_verity if isinstance(writer, MeasuredLayerFile) else ""
        await ingest.commit(writer.facts, proof, fs_verity=digest)

    def _writer(
        self, kind: type[LayerFileWriter], layer: Layer, ingest: LayerIngest, entries: int, size: int
    ) -> LayerFileWriter:
        return kind(
            ingest.fd,
            layer=layer.diff_id,
            form=self._form,
            max_entries=entries,
            max_bytes=size,
            max_memory=self._limits.memory,
        )

    async def _merge(self, job: LayerJob) -> None:
        """Have the merged metadata of an image."""
        is_there = False
        while not is_there:
            try:
                ingest = await self._layers.begin_merged(job.manifest)
            except StoreBusyError:
                is_there = await self._layers.wait_merged(job.manifest)
            else:
                if ingest is not None:
                    await self._held(ingest, self._fill_merged(job, ingest))
                return

    async def _fill_merged(self, job: LayerJob, ingest: MergedIngest) -> None:
        devices, limits = [diff_id for _, diff_id in job.layers], self._limits

        def make() -> MergedWriter:
            return MergedWriter(
                ingest.fd,
                manifest=job.manifest,
                max_entries=limits.unpacked_entries,
                max_bytes=limits.unpacked_size,
                max_memory=limits.memory,
            )

        async with self._reader.sink(make) as writer:
            with self._reader.names() as names:
                for blob, diff_id in job.layers:
                    await self._workers.run(partial(self._add, writer, blob, diff_id), stop=writer.stop)
                    names.hold(writer.memory)
                await self._workers.run(writer.finish, stop=writer.stop)
        await ingest.commit(devices)

    def _add(self, writer: MergedWriter, blob: Descriptor, diff_id: Digest) -> None:
        """On a thread: the next layer, from the tar in its file."""
        layer = self._open(blob, diff_id)
        try:
            if layer.size is None:
                raise BlobNotFoundError(f"the store has no layer file of {diff_id}", path=str(diff_id))
            writer.begin(diff_id)
            writer.read(layer.fd, layer.offset, layer.size)
            writer.end()
        finally:
            files.close(layer.fd)


class BlockLayerFiles(LayerFiles):
    """Makes layer files in blocks of 4096 bytes, which hold the content of files and not the tar: each for itself."""

    _form: Form = "4k"

    async def _complete(self, job: LayerJob) -> None:
        """Merged metadata points into tars: there is none."""

    async def _fill(self, layer: Layer, ingest: LayerIngest, reading: Reading) -> None:
        writer, proof = await self._read(layer, partial(self._writer, LayerFileWriter, layer, ingest), reading)
        facts, sidecar = writer.facts, b""
        if layer.job.verity:
            uuid = uuid5(NAMESPACE_URL, f"dm-verity:{layer.diff_id}")
            appended = await self._workers.run(partial(append, ingest.fd, str(layer.diff_id), uuid))
            facts, sidecar = msgspec.structs.replace(facts, size=appended.size), appended.sidecar()
        await ingest.commit(facts, proof, dm_verity=sidecar)


def _unheard(size: int) -> None:
    """Nobody shows how far another process is with a layer."""
