"""A blob over several connections against servers that do anything, in virtual time: right bytes, in bounded steps."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch import parallel_ranges
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.http.servers import Server
from fastoci.registry.http.urls import Origin
from support import virtual_time
from support.scripted_server import Buffers

MIB = 1 << 20
CONNECTIONS = 6
STEPS = 100_000  # some 20 times what they take
DATA = random.Random(1).randbytes(12 * MIB)
FAULTS = ("429", "500", "503", "cut", "stall", "whole", "other range")


class Rng:
    """What happens, by a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        # Fewer in all than any one request is tried, and no more silences than it bears.
        self.faults = self.random.sample(FAULTS, k=self.random.randint(0, 4))
        self.rate = self.random.choice([0.3, 1.0, 4.0, 50.0]) * MIB

    def fault(self) -> str:
        """What is wrong with the next answer; mostly nothing."""
        return self.faults.pop() if self.faults and self.random.random() < 0.3 else ""


class Moody:
    """A server of blobs, each a part of ``DATA``, that refuses, cuts, stalls, and answers other ranges than asked."""

    def __init__(self, rng: Rng, blobs: dict[str, bytes]) -> None:
        self.rng = rng
        self.blobs = blobs
        self.answers = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self.talk(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                blob = self.blobs[head.split(" ")[1].rpartition("/")[2]]
                wanted = [line[13:] for line in head.split("\r\n") if line.lower().startswith("range: bytes=")]
                first, last = map(int, wanted[0].split("-")) if wanted else (0, len(blob) - 1)
                assert 0 <= first <= last < len(blob)
                self.answers += 1
                await self.answer(writer, blob, first, last, ranged=bool(wanted))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, blob: bytes, first: int, last: int, *, ranged: bool) -> None:
        await asyncio.sleep(self.rng.random.choice([0, 0.001, 0.05]))
        fault = self.rng.fault()
        if fault.isdigit():
            writer.write(b"HTTP/1.1 %s X\r\nContent-Length: 0\r\n\r\n" % fault.encode())
            return
        if not ranged or fault == "whole":
            first, last, ranged = 0, len(blob) - 1, False
        if fault == "other range" and ranged:
            last = max(first, last - self.rng.random.randint(1, MIB))
        status = b"206 X\r\nContent-Range: bytes %d-%d/%d" % (first, last, len(blob)) if ranged else b"200 OK"
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, last + 1 - first))
        stop = last + 1
        if fault in ("cut", "stall"):
            stop = self.rng.random.randint(first, last)
        await self.send(writer, memoryview(blob)[first:stop])
        if fault == "cut":
            raise ConnectionError
        if fault == "stall":
            await asyncio.sleep(3600)

    async def send(self, writer: asyncio.StreamWriter, data: memoryview) -> None:
        step = self.rng.random.choice([50_000, 1 << 18])
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await writer.drain()
            await asyncio.sleep(step / self.rng.rate)


@asynccontextmanager
async def client(server: Moody, buffers: Buffers) -> AsyncIterator[tuple[Repository, Server]]:
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    registry = Registry(
        credentials=Credentials(),
        limits=Limits(connections=CONNECTIONS, read_s=5.0),
        retry=RetryPolicy(rng=server.rng.random.random),
    )
    async with listener:
        try:
            async with registry:
                repository = registry.repository(Reference.parse(f"{host}:{port}/a:1"))
                yield repository, repository._session.server(Origin("http", host, port))
        finally:
            for task in server.tasks:
                task.cancel()
            await asyncio.gather(*server.tasks, return_exceptions=True)
    assert buffers.pool.in_use == 0
    buffers.pool.on_release = None


async def meddle(server: Server, buffers: Buffers, rng: Rng) -> None:
    """Let more connections be worth having, and less, at any time; and more bytes be held ahead, and less."""
    while True:
        await asyncio.sleep(rng.random.random() * MIB / rng.rate)
        server.limit.connections = rng.random.randint(1, CONNECTIONS)
        if rng.random.random() < 0.5:
            buffers.ahead = rng.random.choice([0, 2 * MIB, 8 * MIB])
            for shed in list(buffers.pressed):
                shed()
            if rng.random.random() < 0.5:
                buffers.ahead = 8 * MIB  # before those that were given up have ended


async def read(source: Repository, blob: Descriptor, offset: int, buffers: Buffers, rng: Rng) -> bytes:
    data = bytearray()
    async for buffer in source.fetch(blob, offset, buffers):
        data += buffer
        buffer.release()
        if rng.random.random() < 0.2:
            await asyncio.sleep(rng.random.choice([0, 0.02, 0.5]))
    return bytes(data)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_server_does_the_bytes_are_right_after_bounded_steps(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Rng(seed)
    monkeypatch.setattr(parallel_ranges, "RANGE_SIZE", rng.random.choice([MIB, MIB + 4321, 2 * MIB, 3 * MIB]))

    async def work() -> None:
        wanted = []
        for _ in range(rng.random.randint(1, 3)):
            data = DATA[rng.random.randint(0, MIB) : -rng.random.randint(1, MIB)]
            digest = Digest("sha256", hashlib.sha256(data).hexdigest())
            wanted.append((Descriptor(mediatype.OCI_LAYER, digest, len(data)), data))
        server = Moody(rng, {str(blob.digest): data for blob, data in wanted})
        buffers = Buffers(20 * MIB, ahead=8 * MIB)
        async with client(server, buffers) as (source, learned):
            meddler = asyncio.create_task(meddle(learned, buffers, rng))
            offsets = [rng.random.choice([0, 1, MIB + 17]) for _ in wanted]
            fetches = [
                read(source, blob, offset, buffers, rng) for (blob, _), offset in zip(wanted, offsets, strict=True)
            ]
            try:
                got = await asyncio.gather(*fetches)
            finally:
                meddler.cancel()
                with suppress(asyncio.CancelledError):
                    await meddler
            assert got == [data[offset:] for (_, data), offset in zip(wanted, offsets, strict=True)]
            assert learned.busy == 0

    virtual_time.run(work(), monkeypatch, steps=STEPS)
