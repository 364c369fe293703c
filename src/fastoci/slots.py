"""Slots by host, and in total: a host that is dead holds only its own.

Whoever waits for a slot of its host holds none of the total, so a queue at one host holds up no other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """At most ``total`` slots, and of these ``per_host`` of one host; first come, first served. Used on one loop."""

    def __init__(self, total: int, per_host: int) -> None:
        self._per_host = per_host
        self._total = asyncio.Semaphore(total)
        self._hosts: dict[str, asyncio.Semaphore] = {}
        self._users = Counter[str]()  # of a host's semaphore, which goes with the last of them

    async def take(self, host: str) -> None:
        """Wait for a slot of the host, then for one of all; ``give_back`` it."""
        semaphore = self._hosts.setdefault(host, asyncio.Semaphore(self._per_host))
        self._users[host] += 1
        try:
            await semaphore.acquire()
            try:
                await self._total.acquire()
            except BaseException:
                semaphore.release()
                raise
        except BaseException:
            self._leave(host)
            raise

    def give_back(self, host: str) -> None:
        """Let the next one have it."""
        self._total.release()
        self._hosts[host].release()
        self._leave(host)

    def _leave(self, host: str) -> None:
        self._users[host] -= 1
        if not self._users[host]:
            del self._users[host], self._hosts[host]

    @asynccontextmanager
    async def held(self, host: str) -> AsyncIterator[None]:
        """Hold a slot."""
        await self.take(host)
        try:
            yield
        finally:
            self.give_back(host)
