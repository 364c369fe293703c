"""Puts blobs into a store as the engine does: hashed and written through buffers."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

from fastoci import _core
from fastoci.errors import StoreBusyError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import Ingest
from fastoci.limits import Level, Limits
from fastoci.store.ingest.ingest import StoreIngest
from fastoci.store.store import Store
from fastoci.stream.verify import Verifier, hash_buffers


class Shelf:
    """A store and the hands to fill it."""

    def __init__(self, path: Path, durability: Level = "commit") -> None:
        self.path = path
        self.store = Store.at(path, limits=Limits(durability=durability))

    def random(self, size: int, seed: int = 0) -> bytes:
        return random.Random(seed).randbytes(size)

    def describe(self, data: bytes, algorithm: str = "sha256") -> Descriptor:
        return Descriptor("application/octet-stream", Digest.of(data, algorithm), len(data))

    async def begin(self, blob: Descriptor, *, cached: bool = False) -> StoreIngest | None:
        """``Blobs.begin``, waiting while somebody else has the digest."""
        while True:
            with suppress(StoreBusyError):
                return await self.store.blobs.begin(blob, cached=cached)
            if await self.store.blobs.wait(blob, lambda offset: None):
                return None

    def feed(
        self, ingest: Ingest, data: bytes, *, until: int | None = None, verifier: Verifier | None = None
    ) -> Verifier:
        """Hash and write ``data`` from the ingest's or the verifier's offset on, through buffers as a worker does."""
        if verifier is None:
            verifier = Verifier(ingest.blob.digest, ingest.blob.size, offset=ingest.offset, state=ingest.hash_state)
        pool = _core.Pool(1 << 20, poison=True)
        end = len(data) if until is None else until
        offset = verifier.offset
        while offset < end:
            buffer = pool.take()
            assert buffer is not None
            try:
                offset += buffer.append(data[offset:end])
                hash_buffers([(verifier, buffer)])
                ingest.sink.feed(buffer)
            finally:
                buffer.release()
        return verifier

    async def put(
        self, data: bytes, algorithm: str = "sha256", *, media_type: str = "", cached: bool = False
    ) -> Descriptor:
        blob = self.describe(data, algorithm)
        ingest = await self.begin(blob, cached=cached)
        if ingest is not None:
            verifier = self.feed(ingest, data)
            ingest.sink.finish()
            await ingest.commit(verifier.proof())
        return Descriptor(media_type, blob.digest, blob.size) if media_type else blob

    async def record(self, image: StoredImage) -> None:
        """Record an image whose documents are here, as a pull does."""
        named = [image.descriptor, *image.images.values()]
        async with self.store.session(named) as session, session.reserve() as writer:
            await writer.record(image)

    def file(self, blob: Descriptor) -> Path:
        return self.path / "blobs" / blob.digest.algorithm / blob.digest.hex

    def ingest(self, blob: Descriptor) -> Path:
        return self.path / "ingest" / blob.digest.hex
