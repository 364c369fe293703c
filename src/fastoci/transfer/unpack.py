"""Unpack an image's layers into a rootfs, in order: the first while it arrives, the others when they are in the store.

A thread inflates a few spans at a time, from a tap on the fetch or from the store's file (in the page cache, as a
rule), and a pipeline hashes them and makes files: so two threads work on one layer, and fetches go on beside it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

from fastoci._core import Span
from fastoci.errors import FastociError, UnpackError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BlobStore
from fastoci.stream.inflate import Inflate
from fastoci.stream.verify import Verifier
from fastoci.transfer.events import Observer, UnpackDone, UnpackProgress, UnpackStarted
from fastoci.transfer.limits import Limits
from fastoci.transfer.tap import Tap
from fastoci.transfer.worker import Pipeline, Spans, Worker
from fastoci.unpack.layer import LayerWriter
from fastoci.unpack.rootfs import Rootfs, open_directory

_LEAST = 4 << 20  # bytes of the budget for each layer that is unpacked at a time
_AHEAD = 8  # spans inflated at a time; twice as many may wait, so that neither thread waits for the other


_Tar = AsyncGenerator[tuple[Span, int], None]  # spans of a tar, and the compressed bytes that went into them so far


class Unpacker:
    """Turns layers into files on the worker. At most as many trees grow at once as there are threads."""

    def __init__(self, worker: Worker, spans: Spans, limits: Limits, observer: Observer) -> None:
        self._worker = worker
        self._spans = spans
        self._limits = limits
        self._observe = observer
        # A layer needs two spans to go on, a tapped one four: the budget must not be spent on layers that have some and
        # wait for another. And while a tap is full its flight has a connection: one is left, for what its reader needs.
        turns = min(limits.workers, limits.memory // _LEAST, limits.connections - 1)
        self._taps = turns > 0
        self._turns = asyncio.Semaphore(max(1, turns))

    async def tap(self) -> Tap | None:
        """A tap for the first layer, to unpack it while it arrives; None while layers enough are unpacked.

        It holds one of the turns until ``rootfs`` or ``close_tap`` gives it back.
        """
        if self._turns.locked() or not self._taps:
            return None
        await self._turns.acquire()
        return Tap()

    def close_tap(self, tap: Tap) -> None:
        """Give the turn back. Idempotent."""
        if not tap.closed:
            tap.close()
            self._turns.release()

    async def rootfs(
        self,
        target: Path,
        layers: Sequence[tuple[Descriptor, Digest]],
        store: BlobStore,
        *,
        image: str,
        ready: Callable[[Descriptor], Awaitable[None]],
        tap: Tap | None = None,
    ) -> None:
        """Make ``target`` out of layers and their diff_ids; it has its name only when all of them held.

        Args:
            ready: returns when a layer is in the store, or raises why it will not be.
            tap: on the first layer while it is fetched.
        Raises:
            UnpackError, FormatError, IntegrityError, StoreError: nothing is left under ``target``.
        """
        self._observe(UnpackStarted(image, str(target), len(layers), sum(layer.size for layer, _ in layers)))
        tree = _Tree(self._limits, image, self._observe)
        rootfs = await self._worker.acquire(lambda: Rootfs.begin(target), Rootfs.discard)
        try:
            for number, (layer, diff_id) in enumerate(layers):
                verifier = Verifier(diff_id, None)
                if number == 0 and tap is not None and await tap.begins():
                    await self._apply_arriving(tap, partial(ready, layer), rootfs.fd, verifier, tree)
                else:
                    if tap is not None:
                        self.close_tap(tap)  # whoever waits for a turn must not hold one
                    await ready(layer)
                    async with self._turns:
                        tar = partial(self._from_file, partial(store.open, layer))
                        await self._apply(tar, rootfs.fd, verifier, str(diff_id), tree)
                tree.layer_done(layer.size)
            await self._worker.run(rootfs.publish)
        except BaseException:
            await self._worker.finish(rootfs.discard)
            raise
        tree.done(str(target))

    async def apply(self, directory: Path, layers: Sequence[Path]) -> None:
        """Apply layer files in order onto a directory, in place.

        Raises:
            UnpackError, FormatError, StoreError: the directory holds what was extracted before.
        """
        size = sum(_size(path) for path in layers)
        self._observe(UnpackStarted(str(directory), str(directory), len(layers), size))
        tree = _Tree(self._limits, str(directory), self._observe)
        root_fd, tree.base = await self._worker.acquire(
            lambda: open_directory(directory), lambda opened: os.close(opened[0])
        )
        try:
            for path in layers:
                tar = partial(self._from_file, partial(_open_layer, path))
                await self._apply(tar, root_fd, None, str(path), tree)
                tree.layer_done(_size(path))
        finally:
            os.close(root_fd)
        tree.done(str(directory))

    async def _apply_arriving(
        self, tap: Tap, ready: Callable[[], Awaitable[None]], root_fd: int, verifier: Verifier, tree: _Tree
    ) -> None:
        """Apply a layer while it is fetched; it counts only when its digest held too."""
        try:
            await self._apply(partial(self._from_tap, tap), root_fd, verifier, str(verifier.digest), tree)
        except FastociError:
            self.close_tap(tap)
            await ready()  # wrong bytes are the better reason than what they look like as a layer
            raise
        self.close_tap(tap)
        await ready()

    async def _apply(
        self, tar: Callable[[Inflate], _Tar], root_fd: int, verifier: Verifier | None, name: str, tree: _Tree
    ) -> None:
        """Make the files of a layer.

        Two stages: a thread inflates (``tar``), and hands span after span to a pipeline that hashes and makes files.
        """
        writer = tree.layer(root_fd, name)
        pipeline = Pipeline(self._worker, writer, verifier, depth=2 * _AHEAD, progressed=lambda _: None)
        inflate = Inflate(history=self._limits.zstd_window)
        try:
            async with aclosing(tar(inflate)) as spans:
                async for span, offset in spans:
                    await pipeline.feed(span)
                    tree.progress(offset)
            inflate.finish()
            await pipeline.finish()
        except BaseException as error:
            await pipeline.abort()
            if isinstance(error, FastociError) and name not in str(error):
                error.args = (f"layer {name}: {error.message}", *error.args[1:])
            raise

    async def _from_tap(self, tap: Tap, inflate: Inflate) -> _Tar:
        """The tar of a layer that is being fetched."""
        offset = 0
        async for source in tap.spans():
            offset += len(source)
            try:
                more = inflate.take(source)
                if not more:
                    yield source.retain(), offset
                while more:
                    outs = await self._take_some()
                    try:
                        more = await self._worker.run(lambda outs=outs: _fill(outs, inflate.fill))  # type: ignore[misc]
                        while outs:
                            yield outs.pop(0), offset
                    finally:
                        for span in outs:
                            span.release()
            finally:
                source.release()

    async def _from_file(self, open_layer: Callable[[], int], inflate: Inflate) -> _Tar:
        """The tar of a layer's file, which a thread reads and inflates in one go."""
        source = await self._spans.take()
        try:
            reader = _Reader(open_layer(), source, inflate)
        except BaseException:
            source.release()
            raise
        try:
            more = True
            while more:
                outs = await self._take_some()
                try:
                    more = await self._worker.run(lambda outs=outs: _fill(outs, reader.fill))  # type: ignore[misc]
                    while outs:
                        yield outs.pop(0), reader.offset
                finally:
                    for span in outs:
                        span.release()
        finally:
            source.release()
            os.close(reader.fd)

    async def _take_some(self) -> list[Span]:
        """One span as soon as there is one, and a few more when they are free: fewer turns of the loop."""
        spans = [await self._spans.take()]
        while len(spans) < _AHEAD and (span := self._spans.spare()) is not None:
            spans.append(span)
        return spans


class _Reader:
    """Fills spans with the tar of a layer's file, on threads, one at a time."""

    def __init__(self, fd: int, source: Span, inflate: Inflate) -> None:
        self.fd = fd
        self.offset = 0  # compressed bytes read
        self._source = source
        self._inflate = inflate
        self._left = False  # the source has bytes that are not inflated yet
        self._compressed = True

    def fill(self, out: Span) -> bool:
        """Append to ``out`` until it is full, or the file ends: then False."""
        while out.room:
            if self._left:
                self._left = self._inflate.fill(out)
            elif not self._read(self._source if self._compressed else out):
                return False
        return True

    def _read(self, span: Span) -> bool:
        """The next bytes of the file; a plain tar goes straight to where it belongs, but for its first span."""
        if span is self._source:
            span.clear()
        count = span.pread(self.fd, self.offset)
        if count < 0:
            raise UnpackError(f"cannot read the layer: {os.strerror(-count)}")
        if span is self._source and count:
            self._left = self._compressed = self._inflate.take(span)
            if not self._compressed:
                return True  # a plain tar: this was only a look at it
        self.offset += count
        return count > 0


def _fill(outs: list[Span], fill: Callable[[Span], bool]) -> bool:
    """Fill spans in turn, on a thread; whether there is more. Those that stay empty are given back."""
    more = True
    for number, span in enumerate(outs):
        if not (more := fill(span)):
            while len(outs) > number + (len(span) > 0):
                outs.pop().release()
            break
    return more


def _size(path: Path) -> int:
    fd = _open_layer(path)  # a layer that is not there is found before the first is applied
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _open_layer(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UnpackError(f"{path}: {error.strerror}", path=str(path)) from error


class _Tree:
    """The running totals of one tree, its limits, and its events."""

    def __init__(self, limits: Limits, image: str, observer: Observer) -> None:
        self.base = False
        self._limits = limits
        self._image = image
        self._observe = observer
        self._layers = self._read = self._entries = self._bytes = 0
        self._skipped: dict[str, int] = {}

    def layer(self, root_fd: int, name: str) -> LayerWriter:
        """The writer of the next layer, with what the limits leave it."""
        self._writer = LayerWriter(
            root_fd,
            name=name,
            base=self.base or self._layers > 0,
            max_entries=self._limits.unpacked_entries - self._entries,
            max_bytes=self._limits.unpacked_size - self._bytes,
        )
        return self._writer

    def progress(self, offset: int) -> None:
        """``offset`` compressed bytes of the layer are on their way to files."""
        entries = self._entries + self._writer.entries
        self._observe(UnpackProgress(self._image, self._layers, self._read + offset, entries))

    def layer_done(self, size: int) -> None:
        """The layer of ``size`` compressed bytes is complete."""
        self._layers += 1
        self._read += size
        self._entries += self._writer.entries
        self._bytes += self._writer.bytes
        for kind, count in self._writer.skipped.items():
            self._skipped[kind] = self._skipped.get(kind, 0) + count
        self._observe(UnpackProgress(self._image, self._layers, self._read, self._entries))

    def done(self, root: str) -> None:
        skipped = {kind: count for kind, count in self._skipped.items() if count}
        self._observe(UnpackDone(self._image, root, self._entries, self._bytes, skipped))
