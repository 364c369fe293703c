"""An OCI image layout in a directory of the user's as a sink: made, or extended by images.

Blobs of a store are shared with it by hard links where the file system allows it; all others are written. Each is
hashed before it has its name here.
Spec: image-spec v1.1 image-layout.md; docs/store-format.md 10.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final

from fastoci.aio import wait_to_end, when_free
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image_interfaces import Way, WholeImage
from fastoci.interfaces import BlobSource, LinkableSource, SpoolingSource, Streaming
from fastoci.layouts.blob_files import BlobFiles, FindCorrupt, NewBlob
from fastoci.layouts.layout_files import LayoutFiles
from fastoci.threads import Check, Threads

_LOG: Final = logging.getLogger(__name__)

_LOCK_S: Final = 300.0  # for another process that extends the layout, and may copy some gigabytes
_OPEN: Final = 32  # blobs that are open at a time

# Runs work on a thread, with what hashes files there, and with what it calls now and then: that may end it.
RunHashing = Callable[[Callable[[FindCorrupt, Check], None]], Awaitable[None]]


class OciLayout:
    """``ImageSink`` of a directory, made when it is absent or empty. Blobs that are there and right stay.

    Args:
        target: absolute.
        run: runs what hashes files.
        streaming: brings what is written.
        shared: where the blobs go, absolute; by default into the layout.
    """

    def __init__(self, target: Path, run: RunHashing, streaming: Streaming, *, shared: Path | None = None) -> None:
        self._target = target
        self._shared = shared
        self._run = run
        self._streaming = streaming

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[LayoutWriter]:
        """Bring images into the layout: ``ImageSink.begin``. After an error the blobs so far stay.

        Raises:
            StoreError: the directory is neither empty nor an OCI layout, or cannot be written.
            StoreBusyError: as ``ImageSink.begin``.
        """
        layout = await when_free(lambda: Threads.acquire(self.hold, BlobFiles.close), within_s=_LOCK_S)
        with closing(Threads()) as threads:
            writer = LayoutWriter(layout, threads, self._run, self._streaming)
            try:
                yield writer
                await threads.run(partial(layout.finish, writer.images))
            finally:
                await wait_to_end(threads.run(layout.close))
        _LOG.debug("%s: %d images are in the layout", self._target, len(writer.images))

    def hold(self) -> BlobFiles:
        """On a thread: hold the directory, alone."""
        return LayoutFiles(self._target, self._shared)


class LayoutWriter:
    """``ImageWriter`` of a layout that is held."""

    at_once: Final = _OPEN

    def __init__(self, layout: BlobFiles, threads: Threads, run: RunHashing, streaming: Streaming) -> None:
        self.images: list[WholeImage] = []
        self._layout = layout
        self._threads = threads
        self._run = run
        self._streaming = streaming
        self._linking = asyncio.Lock()  # who has it links what others wait for, too: it is hashed in lanes
        self._waiting: dict[Digest, tuple[Descriptor, LinkableSource]] = {}
        self._ways: dict[Digest, Way] = {}
        self._right: set[Digest] = set()  # is not hashed again for another image

    async def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Which of these are not there, or not right: ``ImageWriter.missing``. What is there is hashed."""
        unique = list({blob.digest: blob for blob in blobs if blob.digest not in self._right}.values())

        def work(find_corrupt: FindCorrupt, check: Check) -> None:
            for start in range(0, len(unique), _OPEN):
                check()
                self._right.update(self._layout.right(unique[start : start + _OPEN], find_corrupt))

        await self._run(work)
        return [blob for blob in unique if blob.digest not in self._right]

    async def put_blob(self, blob: Descriptor, source: BlobSource) -> Way:
        """Link or write one blob: ``ImageWriter.put_blob``."""
        if isinstance(source, LinkableSource):
            return await self._link(blob, source)
        if isinstance(source, SpoolingSource) and (spooled := source.spooled(blob)) is not None:
            await self._run(lambda find_corrupt, check: self._layout.adopt(blob, *spooled, check))
            return "sent"
        new, cancelled = await self._threads.run_to_end(partial(NewBlob, self._layout, blob.digest))
        try:
            if cancelled:
                raise asyncio.CancelledError
            await self._streaming.into(blob, source, new)
            await self._threads.run(new.commit)
            self._right.add(blob.digest)
        finally:
            await wait_to_end(self._threads.run(new.abort))
        return "sent"

    async def put_document(self, descriptor: Descriptor, data: bytes) -> None:
        """Write a manifest or index: ``ImageWriter.put_document``."""
        await self._threads.run(partial(self._layout.write, descriptor.digest, data))

    async def name(self, image: WholeImage) -> None:
        """Name an image at the end: ``ImageWriter.name``."""
        self.images.append(image)

    async def _link(self, blob: Descriptor, source: LinkableSource) -> Way:
        self._waiting[blob.digest] = blob, source
        async with self._linking:
            if blob.digest not in self._ways:
                some = {blob.digest: (blob, source), **self._waiting}
                await self._run(partial(self._link_some, list(some.values())[:_OPEN]))
        self._right.add(blob.digest)
        return self._ways[blob.digest]

    def _link_some(
        self, blobs: Sequence[tuple[Descriptor, LinkableSource]], find_corrupt: FindCorrupt, check: Check
    ) -> None:
        """On a thread."""
        for blob, _ in blobs:
            self._waiting.pop(blob.digest, None)
        self._ways |= self._layout.link(blobs, find_corrupt, check)
