"""The files of an image in the store, seen and read without unpacking it.

Merged metadata are the store's, or made for the moment in an unnamed file. Data come out of layer files; of a layer
without one, what is needed is copied out of its blob into an unnamed file, where it would be in the layer file. Before
anything is seen of a layer that is read for this, all of it was hashed. Spec: docs/browsing.md.
"""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

from fastoci import files
from fastoci._core import Buffer
from fastoci.aio import all_or_first
from fastoci.errors import BlobNotFoundError, FormatError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layer_file import TAR_OFFSET
from fastoci.jobs.layers import Arriving, Layering, Pairs
from fastoci.jobs.merging import Merging, Turn, scratch, temporary
from fastoci.stream.verify import Verifier
from fastoci.transfer.layer_reading import LayerSink, Progressed
from fastoci.transfer.tee import Tee
from fastoci.unpack.erofs import MergedWriter
from fastoci.unpack.erofs_files import FileData, ImageFiles, Opened, close_all, data_of, extent
from fastoci.unpack.erofs_reader import ErofsReader
from fastoci.unpack.erofs_tar import TarStream, needed

_AHEAD: Final = 1 << 20  # bytes that are read ahead of who reads
TAG: Final = 64  # characters of a diff_id that name a device

if TYPE_CHECKING:
    from fastoci.jobs.base_tree import ImageTree

T = TypeVar("T")
S = TypeVar("S", bound=LayerSink)
_Extents = Mapping[int, tuple[int, int]]  # by the number of a device: the first byte that is needed, and the end


def go_on(offset: int, size: int) -> None:
    """The layer was within the limits when its metadata were merged."""


class Browsing:
    """Opens the files of one image, whose parts the caller keeps from gc. What it opens outlives it.

    Every method raises ``FormatError``, ``UnsupportedError``, ``UnpackError`` for layers that cannot be merged,
    ``IntegrityError`` for a damaged one that nobody can be asked for, and ``StoreError``.
    """

    def __init__(self, layering: Layering, pairs: Pairs, manifest: Digest, arriving: Arriving) -> None:
        self._layering = layering
        self._workers = layering.workers
        self._pairs = pairs
        self._manifest = manifest
        self._arriving = arriving
        self._open = partial(layering.open, mending=arriving.mending)
        self._open_file = partial(layering.open_file, mending=arriving.mending)
        self._name = f"the merged metadata of {arriving.mending.image}"

    async def files(self) -> ImageFiles:
        """The names and metadata of all files."""
        metadata = await self.metadata()
        return await self._made({0: metadata}, lambda: ImageFiles(metadata, self._name))

    async def open(self, path: str) -> BinaryIO:
        """The data of the file at a path.

        Raises:
            ImagePathError: nothing is there, or something without data.
        """
        metadata = await self.metadata()
        opened = {0: metadata}
        inode, pieces = await self._made(opened, lambda: data_of(ErofsReader(metadata.fileno(), self._name), path))
        extents: dict[int, tuple[int, int]] = {}
        extent(iter(pieces), extents)
        await self._open_devices(opened, extents)
        return io.BufferedReader(FileData(pieces, inode.size, opened, self._name))

    async def tar(self, path: str) -> BinaryIO:
        """A tar of a path and all that is below it, which is made while it is read.

        Raises:
            ImagePathError: nothing is there.
        """
        reader, opened = await self._opened(path)
        return io.BufferedReader(TarStream(reader, os.fsencode(path), opened, self._name), _AHEAD)

    async def tree(self) -> ImageTree:
        """All files, to be compared with others. Its root is to be closed."""
        from fastoci.jobs.base_tree import ImageTree  # with what packs directories

        return ImageTree(*await self._opened("/"), self._name)

    async def read(self, number: int, make: Callable[[], S], progressed: Progressed = go_on) -> S:
        """A new sink that has all of one layer's tar."""
        blob, diff_id = pair = self._pairs[number]
        made: list[S] = []

        async def work(tees: Mapping[Digest, Tee]) -> None:
            made.append(make())
            await self._read(blob, diff_id, made[-1], progressed)

        await self._layering.until_right(work, [pair], self._arriving)
        return made[-1]

    async def _opened(self, path: str) -> tuple[ErofsReader, Opened]:
        """The metadata, and all that data of a path and of what is below it are in."""
        metadata = await self.metadata()
        opened, stop = {0: metadata}, threading.Event()

        def look() -> tuple[ErofsReader, dict[int, tuple[int, int]]]:
            reader = ErofsReader(metadata.fileno(), self._name)
            return reader, needed(reader, os.fsencode(path), stop)

        reader, extents = await self._made(opened, look, stop=stop.set)
        await self._open_devices(opened, extents)
        return reader, opened

    async def _made(
        self, opened: Mapping[int, io.FileIO], work: Callable[[], T], *, stop: Callable[[], object] | None = None
    ) -> T:
        """What work on a thread returns; what was opened for it is closed when it fails."""
        try:
            return await self._workers.run(work, stop=stop)
        except BaseException:
            close_all(opened)
            raise

    async def metadata(self) -> io.FileIO:
        """The store's merged metadata, or others; with a device for each layer. The caller closes it."""
        metadata = await self._workers.acquire(self._stored_metadata, _close)
        if metadata is None:
            metadata = await self._unnamed(self._merge, self._pairs)
        found = metadata

        def check() -> None:
            tags = [slot.tag for slot in ErofsReader(found.fileno(), self._name).devices]
            if tags != [diff_id.hex[:TAG] for _, diff_id in self._pairs]:
                raise FormatError(f"{self._name} is damaged: it names other layers")

        await self._made({0: metadata}, check)
        return metadata

    def _stored_metadata(self) -> io.FileIO | None:
        """On a thread: what the store has, when it has all layer files, too."""
        with suppress(BlobNotFoundError):
            if os.path.isdir(self._layering.root):
                return io.FileIO(self._layering.layers.open_merged(self._manifest))
        return None

    async def _unnamed(self, fill: Callable[[io.FileIO], Awaitable[None]], pairs: Pairs) -> io.FileIO:
        """An unnamed file that is filled out of layers; when one of them turns out damaged, anew."""
        filled: list[io.FileIO] = []

        async def work(tees: Mapping[Digest, Tee]) -> None:
            file = await self._workers.acquire(partial(temporary, scratch(self._layering.root)), io.FileIO.close)
            try:
                await fill(file)
            except BaseException:
                file.close()
                raise
            filled.append(file)

        await self._layering.until_right(work, pairs, self._arriving)
        return filled[0]

    async def _merge(self, file: io.FileIO) -> None:
        """Merge the layers' metadata into a file."""

        async def read(turn: Turn) -> None:
            blob, diff_id = self._pairs[turn.number]
            if await self._workers.run(partial(self._merge_file, turn.writer, blob, diff_id), stop=turn.writer.stop):
                return
            await self._read(blob, diff_id, turn.sink(), turn.progressed)

        layering = self._layering
        merging = Merging(layering.workers, layering.reader, layering.limits)
        await merging.merge(file, self._arriving.mending.image, self._manifest, self._pairs, read)

    async def _read(self, blob: Descriptor, diff_id: Digest, sink: LayerSink, progressed: Progressed) -> None:
        ready, open_layer = partial(self._arriving.ready, blob), partial(self._open, blob, diff_id)
        async with self._layering.reader.arrived(None, ready, open_layer) as (read, _):
            await read(sink, Verifier(diff_id, None), progressed)

    def _merge_file(self, writer: MergedWriter, blob: Descriptor, diff_id: Digest) -> bool:
        """On a thread: merge a layer out of its layer file, by its headers alone; False when there is none."""
        layer = self._open_file(blob, diff_id)
        if layer is None:
            return False
        try:
            writer.begin(diff_id)
            writer.read(layer.fd, layer.offset, layer.size or 0)
            writer.end()
        finally:
            files.close(layer.fd)
        return True

    async def _open_devices(self, opened: dict[int, io.FileIO], extents: _Extents) -> None:
        """Open what data are in, beside what is open; all of it is closed when that fails."""
        try:
            tasks = [asyncio.create_task(self._open_device(opened, *each)) for each in extents.items()]
            if tasks:
                await all_or_first(tasks)
        except BaseException:
            close_all(opened)
            raise

    async def _open_device(self, opened: dict[int, io.FileIO], number: int, needed: tuple[int, int]) -> None:
        blob, diff_id = pair = self._pairs[number - 1]
        file = await self._workers.acquire(partial(self._layer_file, blob, diff_id), _close)
        if file is None:

            async def copy(into: io.FileIO) -> None:
                await self._read(blob, diff_id, _Copy(into, scratch(self._layering.root), str(diff_id), needed), go_on)

            file = await self._unnamed(copy, [pair])
        opened[number] = file

    def _layer_file(self, blob: Descriptor, diff_id: Digest) -> io.FileIO | None:
        """On a thread: a layer's file, when the store has it with the tar in it."""
        layer = self._open_file(blob, diff_id)
        return None if layer is None else io.FileIO(layer.fd)


class _Copy:
    """A sink for the tar of one layer that keeps a part of it, where that is in a layer file.

    Args:
        directory: where the file is, for messages.
        part: its begin and end, as offsets in the layer file.
    """

    def __init__(self, file: io.FileIO, directory: str, name: str, part: tuple[int, int]) -> None:
        self.name = name
        self._file = file
        self._directory = directory
        self._start, self._end = part
        self._at = TAR_OFFSET

    def feed(self, buffer: Buffer) -> None:
        """Keep what of these bytes is in the part.

        Raises:
            StoreError: the disk refused; ``StoreFullError``: it is full.
        """
        with memoryview(buffer) as view:
            first, end = max(self._start - self._at, 0), min(self._end - self._at, len(view))
            wanted = view[first : max(first, end)]
            at = self._at + first
            with files.translated("copy a layer to", self._directory, wanted=len(wanted)):
                while wanted:
                    count = os.pwrite(self._file.fileno(), wanted, at)
                    wanted, at = wanted[count:], at + count
            self._at += len(view)

    def finish(self) -> None:
        """The layer ends here.

        Raises:
            FormatError: it is shorter than the metadata say.
        """
        if self._at < self._end:
            raise FormatError(f"layer {self.name} ends at byte {self._at - TAR_OFFSET} of its tar, inside of a file")

    def stop(self) -> None:
        """It never takes long."""

    def abort(self) -> None:
        """The file is its owner's."""


def _close(file: io.FileIO | None) -> None:
    if file is not None:
        file.close()
