"""``index.json`` after pulls: brought up to date once, by the last of those that are under way together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastoci.errors import StoreError
from fastoci.store.store import Store


class IndexUpdates:
    """Counts the pulls of one engine."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pulls = 0
        self._is_old = False

    @asynccontextmanager
    async def after(self) -> AsyncIterator[None]:
        """A pull: when it records a name, ``index.json`` is old.

        Raises:
            StoreError: the disk refused; not when the pull failed: then its own error is the one to know of.
        """
        self._pulls += 1
        try:
            yield
            self._is_old = True
        except BaseException:
            with suppress(StoreError):
                await self._leave()
            raise
        await self._leave()

    async def _leave(self) -> None:
        self._pulls -= 1
        if self._pulls or not self._is_old:
            return
        self._is_old = False  # before the update: what is recorded while it runs may be too late for it
        try:
            await self._store.update_index()
        except BaseException:
            self._is_old = True
            raise
