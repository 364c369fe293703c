"""What the suites share: blobs to order, their way into a store, and errors that must come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Collection, Coroutine, Iterator
from contextlib import contextmanager

from fastoci._core import Buffer, Pool
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BlobStore, Ingest, StoreWriter
from fastoci.stream.verify import Verified, Verifier, hash_buffers

NOWHERE = Digest("sha256", "0" * 64)  # no bytes are known that have it

TIMEOUT_S = 60.0  # for one test, which takes milliseconds: what waits for ever fails


def finish(test: Coroutine[None, None, None]) -> None:
    """Run a test to its end, in an event loop of its own."""

    async def within() -> None:
        await asyncio.wait_for(test, TIMEOUT_S)

    asyncio.run(within())


def blob_of(size: int, seed: int = 0) -> tuple[Descriptor, bytes]:
    """A layer of ``size`` random bytes, the same for the same ``seed``."""
    data = random.Random(f"{seed} {size}").randbytes(size)
    return Descriptor.of(data, "application/vnd.oci.image.layer.v1.tar"), data


@contextmanager
def raises(kind: type[Exception] | tuple[type[Exception], ...], why: str) -> Iterator[None]:
    """Fail when the body does not raise ``kind``."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{why}: nothing was raised")


def feed(ingest: Ingest, data: bytes, *, until: int | None = None, verifier: Verifier | None = None) -> Verifier:
    """Hash and write ``data`` as a worker does, from where the ingest, or the verifier, is."""
    if verifier is None:
        verifier = Verifier(ingest.blob.digest, ingest.blob.size, offset=ingest.offset, state=ingest.hash_state)
    pool = Pool(1 << 20, poison=True)
    end = len(data) if until is None else until
    offset = verifier.offset
    while offset < end:
        buffer = pool.take()
        assert buffer is not None, "a sink keeps a buffer that was lent to it"
        try:
            offset += buffer.append(data[offset:end])
            hash_buffers([(verifier, buffer)])
            ingest.sink.feed(buffer)
        finally:
            buffer.release()
    return verifier


def proof_of(data: bytes) -> Verified:
    """The proof that these bytes are what they are."""
    verifier = Verifier(Digest.of(data), len(data))
    pool = Pool(1 << 20)
    offset = 0
    while offset < len(data):
        buffer = pool.take()
        assert buffer is not None
        offset += buffer.append(data, offset)
        hash_buffers([(verifier, buffer)])
        buffer.release()
    return verifier.proof()


async def bring(writer: StoreWriter, blob: Descriptor, data: bytes) -> None:
    """Commit a blob, unless it is there."""
    ingest = await writer.begin(blob)
    if ingest is not None:
        verifier = feed(ingest, data)
        ingest.sink.finish()
        await ingest.commit(verifier.proof())


async def put(store: BlobStore, blobs: Collection[tuple[Descriptor, bytes]]) -> None:
    """Commit blobs in a session of their own."""
    async with store.session([blob for blob, _ in blobs]) as session, session.reserve() as writer:
        for blob, data in blobs:
            await bring(writer, blob, data)
        await writer.flush()


async def collect(buffers: AsyncGenerator[Buffer, None], *, until: int | None = None) -> bytes:
    """All bytes that come, or the first buffers that have ``until`` of them; then the transfer is ended."""
    data = bytearray()
    try:
        async for buffer in buffers:
            data += memoryview(buffer)
            buffer.release()
            if until is not None and len(data) >= until:
                break
    finally:
        await buffers.aclose()
    return bytes(data)
