"""The metadata of an image's layers, merged into one EROFS file out of their tars, wherever these come from.

Spec: docs/layer-files.md, "Merged metadata".
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import UnpackError
from fastoci.image.digest import Digest
from fastoci.jobs.layers import Pairs
from fastoci.limits import Limits
from fastoci.transfer.layer_reading import LayerReader
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.transfer.workers import WorkerPool
from fastoci.unpack.erofs import MergedWriter


class MergedLayer:
    """A sink for the tar of one layer whose metadata are merged with others'; ends that layer, and not the whole."""

    def __init__(self, writer: MergedWriter, diff_id: Digest, max_entries: int, max_bytes: int) -> None:
        """The bounds are held by the totals, over all layers."""
        self.name = str(diff_id)
        self.entries = self.bytes = self.size = 0  # so far
        self.skipped: dict[str, int] = {}
        self._writer = writer
        writer.begin(diff_id)

    def feed(self, buffer: Buffer) -> None:
        """Take the next bytes of the tar. Raises: as ``MergedWriter.feed``."""
        writer = self._writer
        writer.feed(buffer)
        self.entries, self.bytes, self.size = writer.entries, writer.bytes, writer.size

    def finish(self) -> None:
        """The layer ends here. Raises: as ``MergedWriter.end``."""
        self._writer.end()

    def stop(self) -> None:
        """From any thread: end soon."""
        self._writer.stop()

    def abort(self) -> None:
        """Whoever has the writer aborts it."""


class Turn(msgspec.Struct, frozen=True):
    """One layer's turn in a merge: its number, the writer of all, and how its tar is fed: into ``sink``, watched."""

    number: int
    writer: MergedWriter
    sink: Callable[[], MergedLayer]
    progressed: Callable[[int, int], UnpackError | None]


class Merging(msgspec.Struct, frozen=True):
    """What merges layers, in one engine."""

    workers: WorkerPool
    reader: LayerReader
    limits: Limits

    async def merge(
        self, file: io.FileIO, image: str, manifest: Digest, pairs: Pairs, read: Callable[[Turn], Awaitable[object]]
    ) -> None:
        """Merge the metadata of layers into an empty file.

        Args:
            image: in messages.
            read: feeds one layer's tar, whose diff_id it holds against the bytes.
        Raises:
            FormatError, UnsupportedError, UnpackError: layers that cannot be merged.
            FastociError: as ``read``.
        """
        totals = UnpackTotals(self.limits, image, _unheard, base=False, owners=True)

        def make() -> MergedWriter:
            return MergedWriter(
                file.fileno(),
                manifest=manifest,
                max_entries=self.limits.unpacked_entries,
                max_bytes=self.limits.unpacked_size,
                max_memory=self.limits.memory,
            )

        async with self.reader.sink(make) as writer:
            for number, (_, diff_id) in enumerate(pairs):
                sink = partial(totals.counted, number, partial(MergedLayer, writer, diff_id))
                await read(Turn(number, writer, sink, partial(totals.progress, number)))
            await self.workers.run(writer.finish, stop=writer.stop)


def temporary(directory: str) -> io.FileIO:
    """On a thread: an unnamed file.

    Raises:
        StoreError: the disk refused.
    """
    with files.translated("make a temporary file in", directory):
        file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115
    assert isinstance(file, io.FileIO)
    return file


def scratch(layers: str) -> str:
    """The directory for files without a name: beside the layers that a store keeps, or where temporary files go."""
    beside = os.path.dirname(layers)
    return beside if os.access(beside, os.W_OK | os.X_OK) else tempfile.gettempdir()


def _unheard(event: object) -> None:
    """Nobody watches what is only looked at."""
