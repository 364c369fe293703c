"""What a client learns about the servers it talks to, by scheme, host and port, for as long as it lives.

A server that asked for a pause gets it; one that cannot be connected to is found out once, for all who wait for it.
Nothing is sent from here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from yarl import URL

from fastoci.durations import retry_after_s
from fastoci.errors import RateLimitedError
from fastoci.events import ConnectionLimitChanged, Observer, QuotaSeen
from fastoci.registry.http.connection_limit import ConnectionLimit
from fastoci.registry.http.pace import Pace
from fastoci.registry.http.rate_limit_headers import Quota, quota
from fastoci.registry.http.throughput import SpeedSamples
from fastoci.registry.http.untrusted import parsed
from fastoci.registry.http.urls import Origin
from fastoci.slots import Slots

_LOG: Final = logging.getLogger(__name__)
_JITTER: Final = 0.25  # of a wait that is over for many at the same time
_MAX_JITTER_S: Final = 5.0

AHEAD_S: Final = 0.2
_LEAST_BUFFER: Final = 64 << 10
_TIMEOUTS: Final = 2  # in a row: one may be a connection's, not the server's
_SAMPLE: Final = 1 << 20  # bytes of a body, or
_SAMPLE_S: Final = 1.0  # seconds of it, after which its rate says something


class Server:
    """One server. Used on one event loop.

    Args:
        maximum: connections to it for blobs.
        rng: a number in [0, 1), anew on each call.
        job: the bodies of all servers.
        bandwidth: of all servers; None is no limit. ``request_rate`` is its own: requests a second.
    """

    def __init__(
        self,
        origin: Origin,
        maximum: int,
        *,
        observer: Observer,
        rng: Callable[[], float],
        job: SpeedSamples,
        bandwidth: Pace | None,
        request_rate: float | None,
    ) -> None:
        self.origin = origin
        self._observer = observer
        self._rng = rng
        self.answered = False  # ever
        self.speaks_scheme = False  # it has shown that it speaks TLS, or HTTP without, as its origin says
        self.ranges = True  # it has not failed to honour one
        self.honoured = False  # a range, ever
        self.connect_failed = False  # the last time
        self.unresponsive = False  # it takes connections, and has never answered on one
        self.answers = 0  # since it refused a request because there were too many
        self.answers_before = 0  # that refusal, since the one before
        self.timeouts = 0  # in a row: since a request to it came to a good end
        self.busy = 0  # connections on which blobs come
        self.early = 0  # connections on which what follows was asked for before it is wanted
        self.limit = ConnectionLimit(time.monotonic, maximum)
        self.peers = SpeedSamples()
        self.bandwidth = bandwidth
        self._requests = None if request_rate is None else Pace(request_rate)
        self._rates = SpeedSamples(known=1)
        self._job = job
        self._open_at = 0.0  # the loop's clock
        self._manifests_at = 0.0
        self._quota: Quota | None = None  # as it was told last
        self._reached = False
        self._trial: asyncio.Future[Exception | None] | None = None
        self._received = 0
        self._counters: set[Callable[[], int]] = set()

    @property
    def host(self) -> str:
        """``host[:port]``, for people."""
        return str(self._url.authority)

    @property
    def _url(self) -> URL:
        return URL.build(scheme=self.origin.scheme, host=self.origin.host, port=self.origin.port)

    @property
    def unreachable(self) -> bool:
        """Others are asked before it."""
        return self.connect_failed or self.unresponsive or self.timeouts >= _TIMEOUTS

    @property
    def idle(self) -> bool:
        """Blobs leave a connection to it unused that it has not refused."""
        return self.busy + self.early < self.limit.ceiling

    @property
    def rate(self) -> float | None:
        """Bytes a second of the bodies that it was asked for; None when none was long enough to tell."""
        return self._rates.median()

    def measured(self, size: int, seconds: float) -> None:
        """A body that it was asked for, whoever sent it, is over or broken off."""
        if size >= _SAMPLE or seconds >= _SAMPLE_S:
            self._rates.add(size, seconds)
            self._job.add(size, seconds)

    async def wait_for_turn(self) -> float:
        """Wait until one more request is within the rate, and count it; the seconds that took."""
        if self._requests is None:
            return 0.0
        begun = time.monotonic()
        await self._requests.use(1)
        return time.monotonic() - begun

    def held_back_s(self) -> float:
        """Seconds, so far, in which requests to it, or bodies of any server, waited for a rate of ours."""
        return sum(pace.waited_s() for pace in (self.bandwidth, self._requests) if pace is not None)

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

    def adjust_limit(self) -> None:
        """Let the connection limit follow what has come."""
        received = self._received + sum(counter() for counter in self._counters)
        previous = self.limit.connections
        self._tell_limit(previous, self.limit.update(self.busy, len(self._counters), received))

    def refused(self, status: int) -> None:
        """It answered a request for a blob with 429 or 503; those that were under way beyond the limit count once."""
        if self.busy <= self.limit.connections:
            previous = self.limit.connections
            self.limit.refused()
            self._tell_limit(previous, f"refused ({status})")

    def _tell_limit(self, previous: int, reason: str) -> None:
        connections = self.limit.connections
        if connections != previous:
            _LOG.debug("%s: %d connections instead of %d: %s", self._url, connections, previous, reason)
            self._observer(ConnectionLimitChanged(str(self._url), connections, previous, reason))

    def pause(self, seconds: float) -> None:
        """Ask it nothing for so long."""
        self._open_at = max(self._open_at, _now() + seconds)

    @property
    def closed(self) -> bool:
        """It asked for a pause, and that is not over."""
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
            _LOG.debug("%s: wants no requests for %.1f s", self._url, wait_s)
            await asyncio.sleep(self.jittered(wait_s))

    def jittered(self, wait_s: float) -> float:
        """A wait that is a bit longer for each: all would go on in the same moment."""
        return wait_s + self._rng() * min(_JITTER * wait_s, _MAX_JITTER_S)

    def on_response(self, status: int, header: Callable[[str], str]) -> None:
        """It answered: note what it says about being asked again."""
        self.answered, self.unresponsive = True, False
        if status == 429:
            self.answers, self.answers_before = 0, self.answers
        else:
            self.answers += 1
        self.speaks_scheme |= _proves_scheme(status, header)
        if status in (429, 503) and (wait_s := parsed(retry_after_s, header("Retry-After"), now=datetime.now(UTC))):
            self.pause(wait_s)
        found = parsed(quota, header("RateLimit-Limit"), header("RateLimit-Remaining"))
        if found is None:
            return
        # What counts is manifests, and the window is the latest moment at which they are answered again.
        self._manifests_at = _now() + found.window_s if found.remaining == 0 and found.window_s else 0.0
        if found != self._quota:
            self._quota = found
            self._observer(QuotaSeen(self.host, found.remaining, found.limit, found.window_s))

    @asynccontextmanager
    async def connecting(self, *shared: type[Exception]) -> AsyncIterator[None]:
        """Around an attempt to connect: while nobody knows whether that works, one tries for all who wait.

        Args:
            shared: the errors that say something of the server; any other is that of the one who tried.
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
            self._reached, self.connect_failed = True, False
        except shared as error:
            failed = error
            self._reached, self.connect_failed = False, True
            raise
        finally:
            if trial is not None:
                self._trial = None
                trial.set_result(failed)


class Servers:
    """All servers of a client.

    Args:
        observer: learns of quotas and connection limits.
        rng: a number in [0, 1), anew on each call.
        maximum: connections to one of them for blobs.
        slots: the connections to all of them; None where nothing limits these.
        bandwidth: bytes a second of all bodies that come, and of all that are sent; None is no limit.
        request_rate: requests a second to one of them; None is no limit.
    """

    def __init__(
        self,
        *,
        observer: Observer = lambda event: None,
        rng: Callable[[], float] = random.random,
        maximum: int = 1,
        slots: Slots | None = None,
        bandwidth: int | None = None,
        request_rate: float | None = None,
    ) -> None:
        self.slots = slots
        self.sending = None if bandwidth is None else Pace(bandwidth)  # a line carries as much each way
        self._bandwidth = None if bandwidth is None else Pace(bandwidth)
        self._request_rate = request_rate
        self._observer = observer
        self._maximum = maximum
        self._rng = rng
        self._servers: dict[Origin, Server] = {}
        self.job = SpeedSamples()  # the bodies of all of them

    @property
    def receive_buffer(self) -> int | None:
        """Bytes that one connection may hold unread beside a bandwidth: all together what comes in ``AHEAD_S``."""
        if self._bandwidth is None:
            return None
        return max(_LEAST_BUFFER, int(self._bandwidth.rate * AHEAD_S / self._maximum))

    def of(self, origin: Origin) -> Server:
        """The server at an origin."""
        server = self._servers.get(origin)
        if server is None:
            server = self._servers[origin] = Server(
                origin,
                self._maximum,
                observer=self._observer,
                rng=self._rng,
                job=self.job,
                bandwidth=self._bandwidth,
                request_rate=self._request_rate,
            )
        return server


def _proves_scheme(status: int, header: Callable[[str], str]) -> bool:
    """Whether an answer shows that its server speaks this scheme.

    Servers that speak TLS answer a request without, too: by 400 or 404, by a redirect to https; never as a registry.
    """
    if status in (401, 429) or not 300 <= status < 500:
        return True
    says = header("Docker-Distribution-Api-Version") or "json" in header("Content-Type").lower()
    return status != 400 and bool(says)


def _now() -> float:
    return asyncio.get_running_loop().time()
