"""Space for what a job fetches: is there enough, beside all that is still to come for other jobs of this process?

What is planned is held against what is free now, against the store's own limit, and, when the image is unpacked,
against what is free for its files. Bytes of blobs are exact; what an image unpacks to is the caller's estimate. The
inodes of those files are not guessed at. Spec: docs/store-format.md 8.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from fastoci.errors import SpaceRequirement, StoreError, StoreFullError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.store.blobs import Blobs
from fastoci.store.free_space import allocated, space

_INGEST: Final = 3  # files of a blob under way beside its data: the directory, the lock, the state
_BESIDE: Final = 4  # beside the blobs: a reference, its directory, a lease, a new index.json


class Reservations:
    """The space that one process's jobs are going to take in a store, for one event loop.

    Args:
        stored: bytes in the store, as dear as ``usage``; asked once, and only when the limits have a ``store_size``.
    """

    def __init__(self, blobs: Blobs, limits: Limits, stored: Callable[[], Awaitable[int]]) -> None:
        self._blobs = blobs
        self._paths = blobs.paths
        self._limit = limits.store_size
        self._flights = limits.flights
        self._stored = stored
        self._checking = asyncio.Lock()
        self._coming: dict[Digest, tuple[int, int]] = {}  # size, and how many jobs wait for it
        self._size = 0  # of all that is coming
        self._held: int | None = None  # bytes in the store, when there is a limit
        self._is_stale = False  # something came that was not counted in

    @asynccontextmanager
    async def reserve(
        self, missing: Sequence[Descriptor], *, root: Path | None = None, unpacked: int = 0
    ) -> AsyncIterator[None]:
        """Count blobs in while they are fetched, if there is space for them.

        Args:
            root: a directory, made or not, that the job fills with ``unpacked`` bytes of files; the store's own
                directory, when these are unpacked layers.
        Raises:
            StoreFullError: there is not; ``requirements`` has the numbers.
        """
        is_inside = self._inside(None if root is None else (root, 1)) > 0
        async with self._checking:
            new = {blob.digest: blob.size for blob in missing if blob.digest not in self._coming}
            files = None if root is None else (root, unpacked)
            if self._limit and new and (self._held is None or (self._is_stale and not self._coming)):
                self._held, self._is_stale = await self._stored(), False
            replaced = await self._blobs.threads.run(lambda: self._check(new, files))
            for blob in missing:
                _, users = self._coming.get(blob.digest, (0, 0))
                self._coming[blob.digest] = (blob.size, users + 1)
            self._size += sum(new.values())
        try:
            yield
        finally:
            await self._end(missing, replaced)
            self._is_stale |= is_inside  # nobody knows what the layers take but ``stored``

    async def _end(self, missing: Sequence[Descriptor], replaced: frozenset[Digest]) -> None:
        """Count what a job has brought as stored, and what it gave up as free again."""
        if not missing:
            return
        absent = {blob.digest for blob in missing}
        try:
            with suppress(StoreError):  # a disk that refuses to tell has brought nothing
                found = await self._blobs.threads.run(lambda: self._blobs.find_missing(missing))
                absent = {blob.digest for blob in found}
        finally:
            for blob in missing:
                fetched = blob.digest not in absent
                first = self._leave(blob.digest, fetched=fetched)
                if fetched and first and self._held is not None and blob.digest not in replaced:
                    self._held += blob.size

    def _leave(self, digest: Digest, *, fetched: bool) -> bool:
        """A job is done with a blob; whether it is the first. Others may want it when it was given up."""
        size, users = self._coming.pop(digest, (0, 0))
        if users > 1 and not fetched:
            self._coming[digest] = (size, users - 1)
        else:
            self._size -= size
        return users > 0

    def _check(self, new: Mapping[Digest, int], files: tuple[Path, int] | None) -> frozenset[Digest]:
        """On a thread: hold what is to come against what is free; the blobs that replace corrupt ones."""
        replaced: frozenset[Digest] = frozenset()
        requirements = self._requirements(new, files)
        inside = self._inside(files)
        if self._held is not None and new:
            replaced = frozenset(filter(self._paths.holds, new))
            wanted = self._size + sum(size for digest, size in new.items() if digest not in replaced) + inside
            free = max(0, self._limit - self._held)
            requirements.append(
                SpaceRequirement(f"bytes within the limit of {self._limit}", self._paths.root, wanted, free)
            )
        short = next((each for each in requirements if each.needed > each.free), None)
        if short is not None:
            text = f"not enough space at {short.path}: {short.needed} {short.what} needed, {short.free} free"
            raise StoreFullError(text, path=short.path, requirements=tuple(requirements))
        return replaced

    def _inside(self, files: tuple[Path, int] | None) -> int:
        """Bytes of files that the store itself gets."""
        return files[1] if files is not None and os.path.abspath(files[0]) == self._paths.root else 0

    def _requirements(self, new: Mapping[Digest, int], files: tuple[Path, int] | None) -> list[SpaceRequirement]:
        at = self._paths.root
        here = space(self._paths.top)
        wanted, blobs = self._size + sum(new.values()), len(self._coming) + len(new)
        inodes = blobs + _INGEST * min(self._flights, blobs) + _BESIDE if new else 0
        requirements = []
        if files is not None:
            root, unpacked = os.path.abspath(files[0]), files[1]
            there = space(root)
            if there.device == here.device:
                wanted += unpacked
            else:
                requirements.append(SpaceRequirement("bytes, by estimate,", root, unpacked, there.size))
        if wanted > here.size:  # only then it pays to stat what has its blocks already
            wanted -= self._allocated(new)
        return [
            SpaceRequirement("bytes", at, wanted, here.size),
            SpaceRequirement("inodes", at, inodes, here.inodes),
            *requirements,
        ]

    def _allocated(self, new: Mapping[Digest, int]) -> int:
        coming = {**{digest: size for digest, (size, _) in self._coming.items()}, **new}
        return sum(min(allocated(self._paths, digest), size) for digest, size in coming.items())
