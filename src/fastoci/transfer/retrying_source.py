"""A blob source that is asked again: what a registry's client does by itself, for a source of one's own.

Spec: docs/interfaces.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastoci._core import Buffer
from fastoci.errors import FastociError
from fastoci.events import Observer, Retrying
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BlobSource, BufferSource
from fastoci.registry.fetch.retry import Backoff, RetryBudget, RetryPolicy


class RetryingSource:
    """A ``BlobSource`` over another: an error that is ``retryable`` is waited out, and the blob goes on where it was.

    Args:
        source: must go on from any offset.
        policy: how often and how late it is asked again; the budget is shared by all blobs.
        max_wait_s: the longest wait that an error may ask for by ``retry_after_s``; beyond, it is raised.
        observer: receives ``Retrying`` events.
    """

    def __init__(
        self,
        source: BlobSource,
        policy: RetryPolicy | None = None,
        *,
        max_wait_s: float = 60.0,
        observer: Observer | None = None,
    ) -> None:
        self._source = source
        self._policy = policy or RetryPolicy()
        self._max_wait_s = max_wait_s
        self._budget = RetryBudget(self._policy.budget)
        self._observer: Observer = observer or (lambda event: None)

    @property
    def name(self) -> str:
        """The source's."""
        return self._source.name

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the blob's bytes from ``offset`` on, as ``BlobSource`` says.

        Raises:
            FastociError: the last error of the source, when it is not to be tried again, or often enough was.
        """
        backoff = Backoff(self._policy, self._budget)
        begun = time.monotonic()
        fresh = 0  # bytes since the last failure
        while True:
            try:
                async with aclosing(self._source.fetch(blob, offset, buffers)) as arriving:
                    async for buffer in arriving:
                        offset += len(buffer)
                        fresh += len(buffer)
                        yield buffer
                self._budget.earn()
                return
            except FastociError as error:
                if fresh >= self._policy.progress:
                    backoff.renew()
                fresh = 0
                wanted_s: float = getattr(error, "retry_after_s", None) or 0.0
                wait_s = backoff.next_s(unreachable=False)
                if wait_s is None or not error.retryable or wanted_s > self._max_wait_s:
                    error.tries, error.elapsed_s = backoff.attempt, time.monotonic() - begun
                    raise
                wait_s = max(wait_s, wanted_s)
                self._observer(
                    Retrying("", str(blob.digest), self.name, error.cause, backoff.attempt, backoff.attempts, wait_s)
                )
                await asyncio.sleep(wait_s)
