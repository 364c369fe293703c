"""Unpack an image's layers into a rootfs, in order, each as soon as it is in the store.

A layer is read back from the store (from the page cache, as a rule), span by span: a span is one unit of work for the
worker, so fetches of other blobs go on beside it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
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
_AHEAD = 8  # inflated spans that may wait for the extractor: enough to keep both threads busy


class Unpacker:
    """Turns layers into files on the worker. At most as many trees grow at once as there are threads."""

    def __init__(self, worker: Worker, spans: Spans, limits: Limits, observer: Observer) -> None:
        self._worker = worker
        self._spans = spans
        self._limits = limits
        self._observe = observer
        # a layer needs two spans to go on: the budget must not be spent on layers that have one and wait for another
        self._turns = asyncio.Semaphore(max(1, min(limits.workers, limits.memory // _LEAST)))

    async def tap(self) -> Tap | None:
        """A tap for the first layer, to unpack it while it arrives; None while the threads have layers enough.

        It holds one of the turns until ``rootfs`` or ``close_tap`` gives it back.
        """
        if self._turns.locked():
            return None
        await self._turns.acquire()
        return Tap()

    def close_tap(self, tap: Tap) -> None:
        """Give the turn back; once."""
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
                    await self._apply_arriving(tap, lambda: ready(layer), rootfs.fd, verifier, tree)  # noqa: B023
                else:
                    await ready(layer)
                    async with self._turns:
                        spans = self._read(lambda: store.open(layer))  # noqa: B023
                        await self._apply(spans, rootfs.fd, verifier, str(diff_id), tree)
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
                spans = self._read(lambda: _open_layer(path))  # noqa: B023
                await self._apply(spans, root_fd, None, str(path), tree)
                tree.layer_done(_size(path))
        finally:
            os.close(root_fd)
        tree.done(str(directory))

    async def _apply_arriving(
        self, tap: Tap, ready: Callable[[], Awaitable[None]], root_fd: int, verifier: Verifier, tree: _Tree
    ) -> None:
        """Apply a layer while it is fetched; it counts only when its digest held too."""
        try:
            await self._apply(tap.spans(), root_fd, verifier, str(verifier.digest), tree)
        except FastociError:
            tap.close()
            await ready()  # wrong bytes are the better reason than what they look like as a layer
            raise
        await ready()

    async def _read(self, open_layer: Callable[[], int]) -> AsyncGenerator[Span, None]:
        """The spans of a layer's file, each with its reference."""
        fd, offset = open_layer(), 0
        try:
            while True:
                span = await self._spans.take()
                try:
                    count = await self._worker.run(lambda at=offset, span=span: span.pread(fd, at))  # type: ignore[misc]
                except BaseException:
                    span.release()
                    raise
                if count <= 0:
                    span.release()
                    if count:
                        raise UnpackError(f"cannot read the layer: {os.strerror(-count)}")
                    return
                offset += count
                yield span
        finally:
            os.close(fd)

    async def _apply(
        self,
        spans: AsyncGenerator[Span, None],
        root_fd: int,
        verifier: Verifier | None,
        name: str,
        tree: _Tree,
    ) -> None:
        """Send a layer's spans through inflate and make its files.

        Two stages: a thread inflates, and hands span after span to a pipeline that hashes and makes files.
        """
        writer = tree.layer(root_fd, name)
        pipeline = Pipeline(self._worker, writer, verifier, depth=_AHEAD, progressed=lambda _: None)
        inflate = Inflate(history=self._limits.zstd_window)
        offset = 0
        try:
            async with aclosing(spans):
                async for source in spans:
                    offset += len(source)
                    await self._feed(source, inflate, pipeline)
                    tree.progress(offset)
            inflate.finish()
            await pipeline.finish()
        except FastociError as error:
            if name not in str(error):
                error.args = (f"layer {name}: {error.message}", *error.args[1:])
            raise
        finally:
            await pipeline.abort()

    async def _feed(self, source: Span, inflate: Inflate, pipeline: Pipeline) -> None:
        """Send one span through inflate and on; its reference passes here."""
        try:
            more = inflate.take(source)
            if not more:
                await pipeline.feed(source.retain())
            while more:
                outs = await self._take_some()
                try:
                    more = await self._worker.run(lambda outs=outs: _inflate(inflate, outs))  # type: ignore[misc]
                    while outs:
                        span = outs.pop(0)
                        await pipeline.feed(span)
                finally:
                    for span in outs:
                        span.release()
        finally:
            source.release()

    async def _take_some(self) -> list[Span]:
        """One span as soon as there is one, and a few more when they are free: fewer turns of the loop."""
        spans = [await self._spans.take()]
        while len(spans) < _AHEAD and (span := self._spans.pool.take()) is not None:
            spans.append(span)
        return spans


def _inflate(inflate: Inflate, outs: list[Span]) -> bool:
    """Fill spans, on a thread; whether the source has more. Those that stayed empty are given back."""
    more = True
    for number, span in enumerate(outs):
        if not (more := inflate.fill(span)):
            while len(outs) > number + 1:
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
