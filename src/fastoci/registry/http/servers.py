"""What a client learns about the servers it talks to, by scheme, host and port, for as long as it lives.

A server is let alone for as long as it asked to be; one that cannot be connected to is found out once, for all who
wait for it. Nothing is sent from here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from yarl import URL

from fastoci.durations import retry_after_s
from fastoci.errors import RateLimitedError
from fastoci.registry.http.connection_limit import ConnectionLimit
from fastoci.registry.http.rate_limit_headers import Quota, quota
from fastoci.registry.http.throughput import SpeedSamples
from fastoci.registry.http.untrusted import parsed
from fastoci.registry.http.urls import Origin

_JITTER: Final = 0.25  # of a wait that is over for many at the same time
_JITTER_MOST_S: Final = 5.0

_TIMEOUTS: Final = 2  # in a row: one may be a connection's, not the server's
_TELLING: Final = 1 << 20  # bytes of a body, or
_TELLING_S: Final = 1.0  # seconds of it, after which its rate says something

QuotaObserver = Callable[[str, Quota], None]  # host, and what it says is left


class Server:
    """One server. Used on one event loop."""

    def __init__(
        self, origin: Origin, on_quota: QuotaObserver | None, rng: Callable[[], float], maximum: int, job: SpeedSamples
    ) -> None:
        self.origin = origin
        self._rng = rng
        self.answered = False  # ever
        self.ranges = True  # it has not failed to honour one
        self.unreachable = False  # the last attempt to connect failed
        self.unresponsive = False  # it takes connections, and has never answered on one
        self.timeouts = 0  # in a row: since a request to it came to a good end
        self.busy = 0  # connections on which blobs come
        self.pace = ConnectionLimit(time.monotonic, maximum)
        self.peers = SpeedSamples()
        self._rates = SpeedSamples(known=1)
        self._job = job
        self._on_quota = on_quota
        self._open_at = 0.0  # the loop's clock
        self._manifests_at = 0.0
        self._reached = False
        self._trial: asyncio.Future[Exception | None] | None = None
        self._received = 0
        self._counters: set[Callable[[], int]] = set()

    @property
    def host(self) -> str:
        """``host[:port]``, for people."""
        return str(URL.build(scheme=self.origin.scheme, host=self.origin.host, port=self.origin.port).authority)

    @property
    def doubtful(self) -> bool:
        """Others are asked before it."""
        return self.unreachable or self.unresponsive or self.timeouts >= _TIMEOUTS

    @property
    def rate(self) -> float | None:
        """Bytes a second of the bodies that it was asked for; None when none was long enough to tell."""
        return self._rates.median()

    def measured(self, size: int, seconds: float) -> None:
        """A body that it was asked for, whoever sent it, is over or broken off."""
        if size >= _TELLING or seconds >= _TELLING_S:
            self._rates.add(size, seconds)
            self._job.add(size, seconds)

    def on_timeout(self) -> None:
        """It was asked, and no headers came in time."""
        self.unresponsive = not self.answered

    def begin(self, counter: Callable[[], int]) -> None:
        """A body begins; ``counter`` says at any time how many bytes of it have come."""
        self._counters.add(counter)

    def end(self, counter: Callable[[], int]) -> None:
        """That body is over."""
        if counter in self._counters:
            self._counters.remove(counter)
            self._received += counter()

    def look(self) -> None:
        """Let the pace judge how it goes."""
        received = self._received + sum(counter() for counter in self._counters)
        self.pace.look(self.busy, len(self._counters), received)

    def refused(self) -> None:
        """It answered a request for a blob with 429 or 503. Those that were under way beyond the pace are one event."""
        if self.busy <= self.pace.target:
            self.pace.refused()

    def pause(self, seconds: float) -> None:
        """Ask it nothing for so long."""
        self._open_at = max(self._open_at, _now() + seconds)

    @property
    def closed(self) -> bool:
        """It asked to be let alone, and that is not over."""
        return self.wait_s(manifest=False) > 0

    def wait_s(self, *, manifest: bool) -> float:
        """How long it is yet until it may be asked; not above 0 when it may be now."""
        return (max(self._open_at, self._manifests_at) if manifest else self._open_at) - _now()

    async def wait_until_allowed(self, max_wait_s: float, *, manifest: bool) -> None:
        """Wait until it may be asked.

        Raises:
            RateLimitedError: that is later than in ``max_wait_s``.
        """
        while (wait_s := self.wait_s(manifest=manifest)) > 0:
            if wait_s > max_wait_s:
                when = datetime.fromtimestamp(datetime.now(UTC).timestamp() + wait_s, UTC)
                raise RateLimitedError(
                    f"{self.host} wants no requests for {wait_s:.0f} s: come back at {when:%Y-%m-%d %H:%M:%S} UTC",
                    url=f"{self.origin.scheme}://{self.host}",
                    retry_after_s=wait_s,
                )
            # All who wait here would go on in the same moment.
            await asyncio.sleep(wait_s + self._rng() * min(_JITTER * wait_s, _JITTER_MOST_S))

    def on_response(self, status: int, header: Callable[[str], str]) -> None:
        """It answered: note what it says about being asked again."""
        self.answered, self.unresponsive = True, False
        if status in (429, 503) and (wait_s := parsed(retry_after_s, header("Retry-After"), now=datetime.now(UTC))):
            self.pause(wait_s)
        found = parsed(quota, header("RateLimit-Limit"), header("RateLimit-Remaining"))
        if found is None:
            return
        # What counts is manifests, and the window is the latest moment at which there is room again.
        self._manifests_at = _now() + found.window_s if found.remaining == 0 and found.window_s else 0.0
        if self._on_quota is not None:
            self._on_quota(self.host, found)

    @asynccontextmanager
    async def connecting(self) -> AsyncIterator[None]:
        """Around an attempt to connect: while nobody knows whether that works, one tries for all who wait.

        Raises: what the one who tried got.
        """
        failed: Exception | None = None
        while not self._reached and self._trial is not None:
            failed = await asyncio.shield(self._trial)
            if failed is not None:
                raise failed
        trial: asyncio.Future[Exception | None] | None = None
        if not self._reached:
            trial = self._trial = asyncio.get_running_loop().create_future()
        try:
            yield
            self._reached, self.unreachable = True, False
        except Exception as error:
            failed = error
            self._reached, self.unreachable = False, True
            raise
        finally:
            if trial is not None:
                self._trial = None
                trial.set_result(failed)


class Servers:
    """All servers of a client.

    Args:
        told: learns what a server says about its quota.
        chance: a number in [0, 1), anew on each call.
        most: connections to one of them for blobs.
    """

    def __init__(
        self, *, on_quota: QuotaObserver | None = None, rng: Callable[[], float] = random.random, maximum: int = 1
    ) -> None:
        self._on_quota = on_quota
        self._maximum = maximum
        self._rng = rng
        self._servers: dict[Origin, Server] = {}
        self.job = SpeedSamples()  # the bodies of all of them

    def of(self, origin: Origin) -> Server:
        """The server at an origin."""
        server = self._servers.get(origin)
        if server is None:
            server = self._servers[origin] = Server(origin, self._on_quota, self._rng, self._maximum, self.job)
        return server


def _now() -> float:
    return asyncio.get_running_loop().time()
