"""Before an image is fetched: is there room for it, beside all that is still to come of other images?

What is planned is held against what is free now, against the store's own limit, and, when the image is unpacked,
against the room for its files. Bytes of blobs are exact. What a layer unpacks to is not known before: twice the
compressed size is demanded, which nearly every layer takes (2 to 4 times are common), so that a refusal is hardly ever
wrong, and a disk may all the same turn out to be too small. The inodes of those files are not guessed at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fastoci.errors import Room, StoreFullError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.store.free_space import allocated, space
from fastoci.store.store import Store
from fastoci.transfer.workers import WorkerPool

_PLAIN: Final = frozenset(
    {mediatype.OCI_LAYER, mediatype.OCI_FOREIGN, mediatype.DOCKER_LAYER, mediatype.DOCKER_FOREIGN}
)
_RATIO: Final = 2
_INGEST: Final = 3  # files of a blob under way beside its data: the directory, the lock, the state
_BESIDE: Final = 4  # beside the blobs: a reference, its directory, a lease, a new index.json


class Preflight:
    """The room that an engine's images are going to take."""

    def __init__(self, store: Store, worker: WorkerPool, limits: Limits) -> None:
        self._store = store
        self._worker = worker
        self._limit = limits.store_size
        self._connections = limits.connections
        self._turn = asyncio.Lock()
        self._coming: dict[Digest, tuple[int, int]] = {}  # size, and how many images wait for it
        self._size = 0  # of all that is coming
        self._held: int | None = None  # bytes in the store, when there is a limit

    @asynccontextmanager
    async def room(
        self,
        missing: Sequence[Descriptor],
        *,
        documents: int = 0,
        layers: Sequence[Descriptor] = (),
        root: Path | None = None,
    ) -> AsyncIterator[None]:
        """Count blobs in while they are fetched, if there is room for them.

        Args:
            documents: how many manifests and indexes are written, too.
            layers: what is unpacked when ``root`` is given.
        Raises:
            StoreFullError: there is not; ``rooms`` has the numbers.
        """
        async with self._turn:
            new = {blob.digest: blob.size for blob in missing if blob.digest not in self._coming}
            files = None if root is None else (root, _unpacked(layers))
            if self._limit and new and self._held is None:
                self._held = await self._store.size()
            await self._worker.run(lambda: self._check(new, documents, files))
            for blob in missing:
                _, users = self._coming.get(blob.digest, (0, 0))
                self._coming[blob.digest] = (blob.size, users + 1)
            self._size += sum(new.values())
        try:
            yield
        except BaseException:
            for blob in missing:
                self._leave(blob.digest)
            raise
        for blob in missing:
            if self._leave(blob.digest, fetched=True) and self._held is not None:
                self._held += blob.size

    def _leave(self, digest: Digest, *, fetched: bool = False) -> bool:
        """An image is done with a blob; whether it was the one that is. Others may want it when it was given up."""
        size, users = self._coming.pop(digest, (0, 0))
        if users > 1 and not fetched:
            self._coming[digest] = (size, users - 1)
        else:
            self._size -= size
        return users > 0

    def _check(self, new: Mapping[Digest, int], documents: int, files: tuple[Path, int] | None) -> None:
        """On a thread: hold what is to come against what is free."""
        rooms = self._rooms(new, documents, files)
        if self._held is not None and new:
            free = max(0, self._limit - self._held)
            at, wanted = str(self._store.path), self._size + sum(new.values())
            rooms.append(Room(f"bytes within the limit of {self._limit}", at, wanted, free))
        short = next((room for room in rooms if room.needed > room.free), None)
        if short is not None:
            text = f"no room at {short.path}: {short.needed} {short.what} needed, {short.free} free"
            raise StoreFullError(text, path=short.path, rooms=tuple(rooms))

    def _rooms(self, new: Mapping[Digest, int], documents: int, files: tuple[Path, int] | None) -> list[Room]:
        at = str(self._store.path)
        here = space(self._store.paths.top)
        wanted, blobs = self._size + sum(new.values()), len(self._coming) + len(new)
        inodes = blobs + _INGEST * min(self._connections, blobs) + documents + _BESIDE if new else 0
        rooms = []
        if files is not None:
            root, unpacked = os.path.abspath(files[0]), files[1]
            there = space(root)
            if there.device == here.device:
                wanted += unpacked
            else:
                rooms.append(Room("bytes, by estimate,", root, unpacked, there.size))
        if wanted > here.size:  # only then it pays to look at what has its blocks already
            wanted -= self._allocated(new)
        return [Room("bytes", at, wanted, here.size), Room("inodes", at, inodes, here.inodes), *rooms]

    def _allocated(self, new: Mapping[Digest, int]) -> int:
        coming = {**{digest: size for digest, (size, _) in self._coming.items()}, **new}
        return sum(min(allocated(self._store.paths, digest), size) for digest, size in coming.items())


def _unpacked(layers: Sequence[Descriptor]) -> int:
    return sum(layer.size * (1 if layer.media_type in _PLAIN else _RATIO) for layer in layers)
