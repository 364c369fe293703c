"""A store of another puller, filled by fastoci: its own directory of blobs, with the steps that jobs take.

python examples/other_store.py DIRECTORY REGISTRY/REPOSITORY DIGEST SIZE

The suites of ``fastoci.testing.suites`` hold it to what ``fastoci.interfaces`` says of a ``BlobStore``: see the tests
in docs/interfaces.md. Locks are ``flock`` on the unfinished file, so other processes are kept out too.
"""

import asyncio
import fcntl
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastoci import Digest, _core
from fastoci._core import Buffer
from fastoci.errors import BlobNotFoundError, SpaceRequirement, StoreBusyError, StoreError, StoreFullError
from fastoci.events import Event
from fastoci.image.descriptor import Descriptor
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import IngestStatus
from fastoci.limits import Limits
from fastoci.registry.auth.credentials import load
from fastoci.registry.client import Registry
from fastoci.stream.verify import Verified
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.scheduler import Scheduler
from fastoci.transfer.workers import WorkerPool


class FileSink:
    """Writes buffers one behind the other."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def feed(self, buffer: Buffer) -> None:
        os.write(self.fd, memoryview(buffer))

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass


class PartFile:
    """An ``Ingest``: ``HEX.part`` under its lock, and ``HEX.json`` beside it, which says how far it is hashed."""

    def __init__(self, blob: Descriptor, directory: Path, fd: int) -> None:
        self.blob = blob
        self.part, self.state = (directory / f"{blob.digest.hex}.{kind}" for kind in ("part", "json"))
        known = json.loads(self.state.read_text()) if self.state.exists() else {}
        self.offset: int = known.get("offset", 0)
        self.hash_state = bytes.fromhex(known.get("hash_state", ""))
        self.corrupt_servers: tuple[str, ...] = tuple(known.get("corrupt", ()))
        os.ftruncate(fd, self.offset)
        os.lseek(fd, self.offset, os.SEEK_SET)
        self.sink = FileSink(fd)

    def checkpoint(self, offset: int, hash_state: bytes) -> None:
        if not 0 <= offset <= os.fstat(self.sink.fd).st_size:
            raise ValueError(f"no checkpoint at {offset}")
        self.save(offset, hash_state, self.corrupt_servers)

    def save(self, offset: int, hash_state: bytes, corrupt: Collection[str]) -> None:
        value = {"offset": offset, "hash_state": hash_state.hex(), "corrupt": list(corrupt)}
        new = self.state.with_suffix(".new")
        new.write_text(json.dumps(value))
        new.replace(self.state)

    async def commit(self, proof: Verified) -> None:
        if (proof.digest, proof.size) != (self.blob.digest, self.blob.size):
            await self.abort()
            raise ValueError(f"the proof is not of {self.blob.digest}")
        if self.sink.fd < 0:
            raise ValueError("commit after abort")
        try:
            if os.fstat(self.sink.fd).st_size != self.blob.size:
                self.remove()
                raise StoreError(f"{self.part} was not written whole", path=str(self.part))
            os.fsync(self.sink.fd)
            os.fchmod(self.sink.fd, 0o444)
            self.part.rename(self.part.with_suffix(""))
            self.state.unlink(missing_ok=True)
        finally:
            self.close()

    async def abort(self, *, discard: bool = False, corrupt: Collection[str] = ()) -> None:
        if self.sink.fd < 0:
            return
        servers = list(dict.fromkeys((*self.corrupt_servers, *corrupt)))
        if discard and servers:
            os.ftruncate(self.sink.fd, 0)
            self.save(0, b"", servers)
        elif discard or not self.state.exists():
            self.remove()
        self.close()

    def remove(self) -> None:
        self.state.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self.sink.fd)
        self.sink.fd = -1


class Writer:
    """A ``StoreWriter``: only for blobs of its session, and only until that ends."""

    def __init__(self, store: "DirectoryStore", wanted: frozenset[Digest]) -> None:
        self.store = store
        self.wanted = wanted

    def demand(self, *blobs: Descriptor) -> None:
        for blob in blobs:
            if blob.digest not in self.wanted:
                raise ValueError(f"{blob.digest} is not of this session, or that is over")

    def begin_small(self, blob: Descriptor) -> None:
        """Every blob is begun by ``begin``."""

    async def begin(self, blob: Descriptor, *, cached: bool = False) -> PartFile | None:
        self.demand(blob)
        while not self.store.holds(blob):
            path = self.store.directory / f"{blob.digest.hex}.part"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with suppress(FileNotFoundError, BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), path.stat()):  # it was not committed before it was locked
                    return PartFile(blob, self.store.directory, fd)
                os.close(fd)
                continue
            os.close(fd)
            if self.store.is_held(blob.digest):
                raise StoreBusyError(f"{blob.digest} is being fetched", path=str(path))
        return None

    async def wait(self, blob: Descriptor, progressed: Callable[[int], None]) -> bool:
        self.demand(blob)
        while self.store.is_held(blob.digest):  # a lock wakes nobody  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return self.store.holds(blob)

    async def adopt(self, blob: Descriptor) -> None:
        self.demand(blob)
        if not self.store.holds(blob):
            raise BlobNotFoundError(f"nobody has brought {blob.digest}", path=str(self.store.directory))

    async def record(self, image: StoredImage) -> None:
        named = (image.descriptor, *image.images.values())
        self.demand(*named)
        for blob in named:
            if not self.store.holds(blob):
                raise BlobNotFoundError(f"{image.name} names {blob.digest}", path=str(self.store.directory))
        before = self.store.images.get(image.name)
        if before is not None and before.descriptor == image.descriptor:
            image = StoredImage(image.name, image.descriptor, {**before.images, **image.images}, image.pulled_at)
        self.store.images[image.name] = image

    async def use(self, name: str) -> None:
        pass  # nothing is let go here

    async def flush(self) -> None:
        pass  # every commit has synced


class Session:
    """A ``StoreSession``."""

    def __init__(self, store: "DirectoryStore", blobs: Collection[Descriptor]) -> None:
        unique = {blob.digest: blob for blob in blobs}
        self.store = store
        self.wanted = frozenset(unique)
        self.missing = tuple(blob for blob in unique.values() if not store.holds(blob))

    @asynccontextmanager
    async def reserve(self, *, root: Path | None = None, unpacked: int = 0) -> AsyncIterator[Writer]:
        mine = {blob.digest: blob.size for blob in self.missing}
        others = {digest: size for each in self.store.reserved for digest, size in each.items()}
        needed = sum({**others, **mine}.values())
        if needed > (free := self.store.free()):
            room = SpaceRequirement("bytes", str(self.store.directory), needed, free)
            raise StoreFullError(f"{needed} bytes needed, {free} free", path=room.path, requirements=(room,))
        self.store.reserved.append(mine)
        writer = Writer(self.store, self.wanted)
        try:
            yield writer
        finally:
            self.store.reserved.remove(mine)
            writer.wanted = frozenset()


class DirectoryStore:
    """A ``BlobStore``: finished blobs are files named by their hex digits, read-only. Names live in memory.

    Its owner never deletes a blob that is in use, so that sessions need no lease.
    """

    def __init__(self, directory: Path, images: dict[str, StoredImage], size: int = 1 << 40) -> None:
        self.directory = directory
        self.images = images
        self.size = size
        self.reserved: list[dict[Digest, int]] = []

    def holds(self, blob: Descriptor) -> bool:
        with suppress(FileNotFoundError):
            return self.path(blob.digest).stat().st_size == blob.size
        return False

    def path(self, digest: Digest) -> Path:
        return self.directory / digest.hex

    def free(self) -> int:
        return self.size - sum(path.stat().st_size for path in self.directory.iterdir() if not path.suffix)

    def is_held(self, digest: Digest) -> bool:
        status = self.status(digest)
        return status is not None and status.held

    def status(self, digest: Digest) -> IngestStatus | None:
        try:
            fd = os.open(self.path(digest).with_suffix(".part"), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            held = False
        except BlockingIOError:
            held = True
        finally:
            size = os.fstat(fd).st_size
            os.close(fd)
        return IngestStatus(digest, size, held) if held or size else None

    @asynccontextmanager
    async def session(self, blobs: Collection[Descriptor]) -> AsyncIterator[Session]:
        yield Session(self, blobs)

    @asynccontextmanager
    async def keep(self, blobs: Collection[Descriptor], *, name: str = "") -> AsyncIterator[None]:
        yield

    async def missing(self, blobs: Collection[Descriptor]) -> list[Descriptor]:
        return list(Session(self, blobs).missing)

    async def read(self, blob: Descriptor) -> bytes:
        fd = self.open(blob)
        try:
            return os.pread(fd, blob.size, 0)  # small, so all of it comes at once
        finally:
            os.close(fd)

    def open(self, blob: Descriptor) -> int:
        if not self.holds(blob):
            raise BlobNotFoundError(f"{blob.digest} is not there", path=str(self.path(blob.digest)))
        return os.open(self.path(blob.digest), os.O_RDONLY | os.O_CLOEXEC)

    async def mark_corrupt(self, digest: Digest) -> None:
        self.path(digest).unlink(missing_ok=True)

    async def image(self, name: str) -> StoredImage:
        if name not in self.images:
            raise BlobNotFoundError(f"no image {name}", path=str(self.directory))
        return self.images[name]

    async def recorded(self, names: Collection[str]) -> dict[str, StoredImage]:
        return {name: self.images[name] for name in names if name in self.images}

    def parts(self) -> Iterator[Digest]:
        return (Digest("sha256", path.stem) for path in self.directory.glob("*.part"))

    async def ingests(self) -> list[IngestStatus]:
        return [status for digest in self.parts() if (status := self.status(digest)) is not None]

    async def ingest(self, digest: Digest) -> IngestStatus | None:
        return self.status(digest)

    async def discard(self, digest: Digest) -> bool:
        if self.is_held(digest):
            raise StoreBusyError(f"{digest} is being fetched", path=str(self.path(digest)))
        there = self.path(digest).with_suffix(".part").exists()
        for suffix in (".json", ".part"):
            self.path(digest).with_suffix(suffix).unlink(missing_ok=True)
        return there


async def main(directory: str, repository: str, digest: str, size: str) -> None:
    blob = Descriptor("", Digest.parse(digest), int(size))
    limits, workers = Limits(), WorkerPool(2)
    buffers = Buffers(_core.Pool(limits.memory))

    def observe(event: Event) -> None:
        print(type(event).__name__)

    store = DirectoryStore(Path(directory), {})
    scheduler = Scheduler(workers, buffers, limits, observe)  # fetches each digest once, whoever asks
    try:
        async with Registry(credentials=load()) as registry:
            source = registry.repository(Reference.parse(repository))
            async with store.session([blob]) as session, session.reserve() as writer:
                for each in session.missing:
                    await scheduler.fetch(writer, each, source)
    finally:
        await scheduler.close()
        workers.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
