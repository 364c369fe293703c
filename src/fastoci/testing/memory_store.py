"""A store in memory: ``BlobStore`` for tests of jobs, and of whoever takes one.

Nothing of it outlives the process, and nobody else sees it; two ``MemoryStore`` over one ``Content`` behave as two
processes over one directory. Verifies nothing: the proof of a commit does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from fastoci._core import Buffer
from fastoci.errors import BlobNotFoundError, SpaceRequirement, StoreBusyError, StoreError, StoreFullError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import IngestStatus
from fastoci.stream.verify import Verified


@dataclass(slots=True)
class Partial:
    """A blob on its way. ``data[:offset]`` is hashed, to ``state``."""

    data: bytearray = field(default_factory=bytearray)
    offset: int = 0
    state: bytes = b""
    corrupt_servers: tuple[str, ...] = ()
    is_held: bool = False


class Content:
    """What is stored: verified blobs, images by name, and what is on its way. ``capacity`` is in bytes."""

    def __init__(self, capacity: int | None = None) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.images: dict[str, StoredImage] = {}
        self.partial: dict[Digest, Partial] = {}
        self.capacity = capacity
        self.reserved: dict[Digest, list[int]] = {}  # sizes of what sessions bring, one for each that does

    def holds(self, blob: Descriptor) -> bool:
        """Whether the blob is there, of this size."""
        data = self.blobs.get(blob.digest)
        return data is not None and len(data) == blob.size

    def free(self) -> int:
        """Bytes that nobody has, and nobody reserved."""
        reserved = sum(sizes[0] for digest, sizes in self.reserved.items() if digest not in self.blobs)
        return (self.capacity or 0) - sum(map(len, self.blobs.values())) - reserved


class MemorySink:
    """``Sink`` that appends to ``data``."""

    def __init__(self, data: bytearray) -> None:
        self._data = data

    def feed(self, buffer: Buffer) -> None:
        """Take the next bytes."""
        self._data += memoryview(buffer)

    def finish(self) -> None:
        """All bytes were fed."""

    def abort(self) -> None:
        """Nothing is open."""


class MemoryIngest:
    """``Ingest`` in memory."""

    def __init__(self, content: Content, blob: Descriptor, partial: Partial) -> None:
        self.blob = blob
        self.offset = partial.offset
        self.hash_state = partial.state
        self.corrupt_servers = partial.corrupt_servers
        self._content = content
        self._partial = partial
        self._is_over = False
        del partial.data[partial.offset :]
        self.sink = MemorySink(partial.data)

    def checkpoint(self, offset: int, hash_state: bytes) -> None:
        """Remember how far the bytes are hashed."""
        if not 0 <= offset <= len(self._partial.data):
            raise ValueError(f"no checkpoint at {offset}: {len(self._partial.data)} bytes are written")
        self._partial.offset, self._partial.state = offset, hash_state

    async def commit(self, proof: Verified) -> None:
        """Give the blob its name."""
        if type(proof) is not Verified or (proof.digest, proof.size) != (self.blob.digest, self.blob.size):
            await self.abort()
            raise ValueError(f"the proof is not of {self.blob.digest}, {self.blob.size} bytes")
        if self._is_over:
            raise ValueError(f"{self.blob.digest}: commit after abort")
        data = bytes(self._partial.data)
        self._end(keep=False)
        if len(data) != self.blob.size:
            raise StoreError(f"{self.blob.digest} has {len(data)} bytes, not {self.blob.size}", path="memory")
        self._content.blobs[self.blob.digest] = data

    async def abort(self, *, discard: bool = False, corrupt: Collection[str] = ()) -> None:
        """Let go of the digest; keep what the last checkpoint covers, or nothing of it."""
        if self._is_over:
            return
        if discard:
            servers = dict.fromkeys((*self._partial.corrupt_servers, *corrupt))
            self._partial.data.clear()
            self._partial.offset, self._partial.state = 0, b""
            self._partial.corrupt_servers = tuple(servers)
        self._end(keep=bool(self._partial.offset or self._partial.corrupt_servers))

    def _end(self, *, keep: bool) -> None:
        self._is_over = True
        self._partial.is_held = False
        del self._partial.data[self._partial.offset :]
        if not keep:
            del self._content.partial[self.blob.digest]


class MemoryWriter:
    """``StoreWriter`` in memory."""

    def __init__(self, content: Content, wanted: frozenset[Digest]) -> None:
        self._content = content
        self._wanted = wanted
        self._is_open = True

    def end(self) -> None:
        """Refuse everything from now on."""
        self._is_open = False

    def begin_small(self, blob: Descriptor) -> None:
        """Nothing is taken as a whole: ``StoreWriter.begin_small``."""

    async def begin(self, blob: Descriptor, *, cached: bool = False) -> MemoryIngest | None:
        """Take hold of a digest."""
        self._demand(blob)
        if self._content.holds(blob):
            return None
        partial = self._content.partial.setdefault(blob.digest, Partial())
        if partial.is_held:
            raise StoreBusyError(f"{blob.digest} is being fetched", path="memory")
        partial.is_held = True
        return MemoryIngest(self._content, blob, partial)

    async def wait(self, blob: Descriptor, progressed: Callable[[int], None]) -> bool:
        """Return when nobody else holds a digest."""
        self._demand(blob)
        seen = -1
        while (partial := self._content.partial.get(blob.digest)) is not None and partial.is_held:
            if len(partial.data) != seen:
                seen = len(partial.data)
                progressed(seen)
            await asyncio.sleep(0.001)
        return self._content.holds(blob)

    async def adopt(self, blob: Descriptor) -> None:
        """Take over what another store over the same content committed."""
        self._demand(blob)
        if not self._content.holds(blob):
            raise BlobNotFoundError(f"the store has no {blob.digest}", path="memory", subject=str(blob.digest))

    async def record(self, image: StoredImage) -> None:
        """Give an image its name."""
        named = (image.descriptor, *image.images.values())
        self._demand(*named)
        for blob in named:
            if not self._content.holds(blob):
                text = f"{image.name} names {blob.digest}, which is not there"
                raise BlobNotFoundError(text, path="memory", subject=str(blob.digest))
        before = self._content.images.get(image.name)
        if before is not None and before.descriptor.digest == image.descriptor.digest:
            image = structs.replace(
                image, images={**before.images, **image.images}, pinned=before.pinned or image.pinned
            )
        self._content.images[image.name] = image

    async def use(self, name: str) -> None:
        """Nothing here is let go."""

    async def flush(self) -> None:
        """Nothing here is durable."""

    def _demand(self, *blobs: Descriptor) -> None:
        if not self._is_open:
            raise ValueError("the session is over")
        for blob in blobs:
            if blob.digest not in self._wanted:
                raise ValueError(f"{blob.digest} is not of this session")


class MemorySession:
    """``StoreSession`` in memory."""

    def __init__(self, content: Content, wanted: Collection[Descriptor]) -> None:
        unique: dict[Digest, Descriptor] = {}
        for blob in wanted:
            if not content.holds(blob):
                unique.setdefault(blob.digest, blob)
        self.missing = tuple(unique.values())
        self._content = content
        self._wanted = frozenset(blob.digest for blob in wanted)

    @asynccontextmanager
    async def reserve(self, *, root: Path | None = None, unpacked: int = 0) -> AsyncIterator[MemoryWriter]:
        """Hold space for what is missing."""
        content = self._content
        needed = sum(blob.size for blob in self.missing if blob.digest not in content.reserved)
        if content.capacity is not None and needed > (free := content.free()):
            room = SpaceRequirement("bytes", "memory", needed, free)
            raise StoreFullError(f"{needed} bytes needed, {free} free", path="memory", requirements=(room,))
        for blob in self.missing:
            content.reserved.setdefault(blob.digest, []).append(blob.size)
        writer = MemoryWriter(content, self._wanted)
        try:
            yield writer
        finally:
            writer.end()
            for blob in self.missing:
                content.reserved[blob.digest].pop()
                if not content.reserved[blob.digest]:
                    del content.reserved[blob.digest]


class MemoryStore:
    """``BlobStore`` in memory.

    Args:
        content: what is stored; others may share it.
    """

    def __init__(self, content: Content | None = None) -> None:
        self.content = content or Content()

    @asynccontextmanager
    async def session(self, blobs: Collection[Descriptor]) -> AsyncIterator[MemorySession]:
        """Begin a job that brings blobs."""
        yield MemorySession(self.content, blobs)

    @asynccontextmanager
    async def keep(self, blobs: Collection[Descriptor], *, name: str = "") -> AsyncIterator[None]:
        """Nothing here collects garbage."""
        yield

    async def missing(self, blobs: Collection[Descriptor]) -> list[Descriptor]:
        """Which of these are absent."""
        return list(MemorySession(self.content, blobs).missing)

    async def read(self, blob: Descriptor) -> bytes:
        """All bytes of a blob."""
        return self._data(blob)

    def open(self, blob: Descriptor) -> int:
        """A descriptor of a file in memory, read-only, which the caller closes."""
        fd = os.memfd_create(blob.digest.hex)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(self._data(blob))
            return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(fd)

    async def mark_corrupt(self, digest: Digest) -> None:
        """Forget the blob."""
        self.content.blobs.pop(digest, None)

    async def image(self, name: str) -> StoredImage:
        """What was recorded last under a name."""
        if name not in self.content.images:
            raise BlobNotFoundError(f"the store has no reference {name}", path="memory")
        return self.content.images[name]

    async def recorded(self, names: Collection[str]) -> dict[str, StoredImage]:
        """What was recorded last under these names."""
        return {name: self.content.images[name] for name in names if name in self.content.images}

    async def ingests(self) -> list[IngestStatus]:
        """All blobs that are on their way."""
        found = [await self.ingest(digest) for digest in list(self.content.partial)]
        return [status for status in found if status is not None]

    async def ingest(self, digest: Digest) -> IngestStatus | None:
        """How far one of them is."""
        partial = self.content.partial.get(digest)
        if partial is None or not (partial.is_held or partial.data):
            return None
        return IngestStatus(digest, len(partial.data), partial.is_held)

    async def discard(self, digest: Digest) -> bool:
        """Delete what an earlier attempt left."""
        partial = self.content.partial.get(digest)
        if partial is None:
            return False
        if partial.is_held:
            raise StoreBusyError(f"{digest} is being fetched", path="memory")
        del self.content.partial[digest]
        return True

    def _data(self, blob: Descriptor) -> bytes:
        if not self.content.holds(blob):
            raise BlobNotFoundError(f"the store has no {blob.digest}", path="memory", subject=str(blob.digest))
        return self.content.blobs[blob.digest]
