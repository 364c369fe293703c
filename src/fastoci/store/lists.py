"""The images of a list: which references know that it wants them, and what becomes of those that it does not any more.

A reference says itself which lists want it, so that both are written at once: a job that is killed anywhere leaves
no image that a list brought and does not know. One job of a list is at work at a time. Spec: docs/store-format.md 6.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import msgspec

from fastoci import files, locks
from fastoci.errors import BlobNotFoundError, StoreBusyError, StoreError
from fastoci.image import membership
from fastoci.image.stored_image import StoredImage
from fastoci.store.refs import Refs
from fastoci.store.store import Store
from fastoci.threads import Check

_LISTS: Final = "lists"


class Leaving(msgspec.Struct, frozen=True):
    """Names that a list gives up: what of it is ``removed``, what is only ``unpinned``.

    ``broken`` are files that should be references: nobody knows whose they are, so they stay.
    """

    removed: tuple[str, ...] = ()
    unpinned: tuple[str, ...] = ()
    broken: tuple[StoreError, ...] = ()


class Lists:
    """The lists of a store, by their names. ``wanted`` is what one wants: canonical references, and whether pinned."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._paths = store.paths

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[None]:
        """Be the only job of a list: of two with other images each would take away what the other one brought.

        Raises:
            StoreBusyError: another one is at work.
            StoreError: the disk refused.
        """
        threads = self.store.blobs.threads
        await threads.run(self.store.blobs.probe)
        held, cancelled = await threads.run_to_end(partial(self._lock, name))
        try:
            if cancelled:
                raise asyncio.CancelledError
            yield
        finally:
            await threads.run(partial(self._unlock, name, held))

    async def join(self, name: str, wanted: Mapping[str, bool]) -> None:
        """Note of the images that are there that the list wants them; pin those that it wants pinned.

        Raises:
            StoreError: the disk refused.
        """

        def work(check: Check) -> None:
            for image, pinned in wanted.items():
                check()
                _join(self.store.refs, image, name, pinned)

        await self.store.blobs.threads.run_stoppable(work)

    async def names(self, name: str) -> frozenset[str]:
        """The images that the list wants, as references remember it.

        Raises:
            StoreError: the disk refused.
        """
        images, _ = await self.store.blobs.threads.run_stoppable(partial(self._of, name))
        return frozenset(image.name for image in images)

    async def leaving(self, name: str, wanted: Mapping[str, bool]) -> Leaving:
        """What ``leave`` would do.

        Raises:
            StoreError: the disk refused.
        """
        return await self.store.blobs.threads.run_stoppable(partial(self._leaving, name, wanted))

    async def leave(self, name: str, wanted: Mapping[str, bool]) -> Leaving:
        """Give up the images that the list does not want any more, and the pins of those that it wants without.

        Raises:
            StoreError: the disk refused.
        """

        def work(check: Check) -> Leaving:
            images, broken = self._of(name, check)
            removed, unpinned = [], []
            for image in images:
                check()
                with suppress(BlobNotFoundError):
                    change = partial(_without, name=name, wanted=wanted)
                    after = self.store.refs.change(image.name, change)
                    if after is None:
                        removed.append(image.name)
                    elif image.pinned and not after.pinned:
                        unpinned.append(image.name)
            return Leaving(tuple(removed), tuple(unpinned), broken)

        return await self.store.blobs.threads.run_stoppable(work)

    def _leaving(self, name: str, wanted: Mapping[str, bool], check: Check) -> Leaving:
        images, broken = self._of(name, check)
        after = [(image, _without(image, name=name, wanted=wanted)) for image in images]
        return Leaving(
            removed=tuple(image.name for image, rest in after if rest is None),
            unpinned=tuple(image.name for image, rest in after if rest and image.pinned and not rest.pinned),
            broken=broken,
        )

    def _of(self, name: str, check: Check) -> tuple[list[StoredImage], tuple[StoreError, ...]]:
        images, broken = self.store.refs.list(check=check)
        return [image for image in images if name in image.lists], broken

    def _lock(self, name: str) -> int:
        with files.translated("lock", f"{self._paths.root}/{_LISTS}"):
            directory = self._paths.make(_LISTS, 0o700)
            held = locks.acquire(directory, _key(name), wait=False)
        if held is None:
            path = directory.at(_key(name))
            raise StoreBusyError(f"another job of the list {name} is at work ({path})", path=path)
        return held

    def _unlock(self, name: str, held: int) -> None:
        try:
            with suppress(OSError):  # a file too many harms nobody
                self._paths.directory(_LISTS).unlink(_key(name))
        finally:
            os.close(held)


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _join(refs: Refs, image: str, name: str, pinned: bool) -> None:
    try:
        known = refs.get(image)
        if membership.joined(known, name, pinned=pinned) != known:
            refs.change(image, partial(membership.joined, name=name, pinned=pinned))
    except BlobNotFoundError:
        return
    except StoreError as error:
        if error.errno is not None:  # else the file is broken: the job replaces it
            raise


def _without(image: StoredImage, *, name: str, wanted: Mapping[str, bool]) -> StoredImage | None:
    """What is left of an image when the list gives up what it does not want."""
    if image.name not in wanted:
        return membership.left(image, name)
    return image if wanted[image.name] else membership.released(image, name)
