"""The way of one request over the places that may answer it: in order, again when that may help, and when not, why not.

It decides and waits; it sends nothing.

Rules:
1. A final answer (401, 403, 404, a certificate, another type than was asked for) rules a place out for this request.
   So does an exception that nobody expected: it is a fault of fastoci that this place's answer has set off.
2. Trouble that may pass (connections, timeouts, 408, 425, 429, 5xx, cuts) moves on to the next place, and after the
   last one waits (``patience``) and begins again. A manifest that is wrong (another digest or size, no document) may
   pass once: a byte may have been lost on the way. Whether a blob is fetched again is for whoever hashes it.
3. A place that cannot be connected to, that never answers or fell silent twice in a row, or that wants to be let alone
   for a while is asked last. One that sent wrong bytes of the blob before is asked when the others are at their end,
   with all their tries: what may pass at them must not let it have another go.
4. A place that sends far more slowly than others could is left for the rest of the blob: for one of which nobody knows
   how fast it is, or that is known to be faster, and until that has had all its tries. When all have been tried, the
   fastest is gone back to, and kept.
5. What is raised at the end is the origin's own error, when it was asked.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from yarl import URL

from fastoci.errors import (
    FastociError,
    FormatError,
    IntegrityError,
    RateLimitedError,
    RegistryError,
    TimedOutError,
    TransportError,
)
from fastoci.registry.config.endpoints import Endpoint
from fastoci.registry.fetch.retry import Backoff, RetryBudget, RetryPolicy
from fastoci.registry.http import throughput
from fastoci.registry.http.servers import Server, Servers
from fastoci.registry.http.untrusted import unexpected
from fastoci.registry.http.urls import Origin, redact

_PASSING: Final = frozenset({408, 421, 425, 429, 500, 502, 503, 504})
_EXPIRED: Final = frozenset({400, 401, 403, 404, 410})  # what a signed URL says that is not valid any more
_SIGNED_TRIES: Final = 2
_WRONG_TRIES: Final = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint by one scheme."""

    endpoint: Endpoint
    base: URL

    @property
    def origin(self) -> Origin:
        return Origin.of(self.base)

    @property
    def server(self) -> str:
        """Whom it asks, as a text that is the same in every process: ``https://mirror.local:5000/v2``."""
        return redact(self.base)


def candidates(endpoints: Sequence[Endpoint], servers: Servers) -> tuple[Candidate, ...]:
    """The endpoints in order; those that may be asked by plain http too, twice, until they have answered by one."""
    found = []
    for endpoint in endpoints:
        secure = Candidate(endpoint, endpoint.base)
        plain = Candidate(endpoint, endpoint.base.with_scheme("http"))
        if not endpoint.plain_too or endpoint.base.scheme != "https" or servers.of(secure.origin).answered:
            found.append(secure)
        elif servers.of(plain.origin).answered:
            found.append(plain)
        else:
            found += [secure, plain]
    return tuple(found)


def _distrust_of(place: Candidate, corrupt: Collection[str]) -> int:
    """How much is against asking a place: that it sent wrong bytes, and then that it is not the origin."""
    return (place.server in corrupt) * (1 + (not place.endpoint.origin))


# The digest that is wanted (may be empty), the server that is left, the one that is asked instead, and why.
Left = Callable[[str, str, str, str], None]


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """How a client behaves towards servers, over all its requests."""

    retry_policy: RetryPolicy
    budget: RetryBudget
    rng: Callable[[], float]  # a number in [0, 1), anew on each call
    left: Left = lambda blob, server, following, reason: None


class Failover:
    """The way of one request, or of one blob with all its requests.

    Args:
        blob: the digest that is wanted, for whoever is told of places that are left.
        manifest: the request is one of those that registries count.
        corrupt: servers that sent wrong bytes before; asked last.
    Raises:
        RegistryError: nobody may be asked.
    """

    def __init__(
        self,
        found: Sequence[Candidate],
        servers: Servers,
        manners: ClientPolicy,
        *,
        blob: str = "",
        manifest: bool = False,
        corrupt: Collection[str] = (),
    ) -> None:
        self._places = sorted(found, key=lambda place: _distrust_of(place, corrupt))
        self._distrust = [_distrust_of(place, corrupt) for place in self._places]
        self._servers = servers
        self._policy = manners.retry_policy
        self._budget = manners.budget
        self._backoff = Backoff(manners.retry_policy, manners.budget, manners.rng)
        self._manners = manners
        self._blob = blob
        self._manifest = manifest
        self._errors: dict[int, FastociError] = {}
        self._wrong = Counter[int]()
        self._out: set[int] = set()
        self._left: dict[int, float] = {}  # because they are slow; bytes a second
        self._settled = False
        self._received = 0
        self._signed = 0
        self._at = self._next(-1) or 0

    @property
    def place(self) -> Candidate:
        """Whom to ask now."""
        return self._places[self._at]

    def progressed(self, size: int) -> None:
        """Bytes of a body have come."""
        self._received += size
        if self._received >= self._policy.progress:
            self._backoff.renew()
            self._signed = 0

    def done(self) -> None:
        """It worked."""
        self._budget.earn()
        self._servers.of(self.place.origin).timeouts = 0

    def slow(self, place: Candidate, rate: float, rest: int | None = None) -> str:
        """Leave a place that sends far more slowly than others could: ``place`` is another one from then on.

        Args:
            rate: bytes a second of the blob, over some seconds.
            rest: bytes that are still to come, when that is known; what is soon here is worth no new request.
        Returns: why the body is to be broken off, in words; empty when it goes on.
        """
        at = self._places.index(place)
        reason = throughput.lags(rate, self._servers.job.median())
        if not reason or (rest is not None and rest < rate * throughput.LAG_S):
            return ""
        if at == self._at and not self._settled:
            better = self._better(rate)
            if better is None:
                return ""
            self._settled = better in self._left  # all have been tried by then, and it was the fastest
            self._left[at] = rate
            self._at = better
            self._manners.left(self._blob, place.server, self.place.server, reason)
        return reason if self._at != at and at in self._left else ""

    def _better(self, rate: float) -> int | None:
        """The place that may send more than ``rate``: the first that nobody has tried, or that is known to."""
        ring = [(self._at + step) % len(self._places) for step in range(1, len(self._places))]
        for index in sorted(ring, key=lambda index: (index in self._left, index in self._errors)):
            place = self._places[index]
            if (
                index in self._out
                or self._distrust[index]
                or place.endpoint is self.place.endpoint
                or any(self._delay(index))
            ):
                continue
            known = self._left.get(index) or self._servers.of(place.origin).rate
            if known is None or known > throughput.BETTER * rate:
                return index
        return None

    async def failed(self, reason: Exception, place: Candidate) -> None:
        """Note that a place failed, and wait until the next may be asked.

        What is broken off at a place that was left for another is no failure.

        Raises:
            FastociError: nobody is left.
            MemoryError: that was the reason, which is no place's fault.
        """
        if place is not self.place:
            return
        server = self._servers.of(place.origin)
        error = self._errors[self._at] = self._typed(reason)
        server.timeouts += isinstance(error, TimedOutError)
        told_s: float = getattr(error, "retry_after_s", None) or 0.0
        if told_s and isinstance(error, RegistryError) and error.status and (at := Origin.named(error.url)):
            self._servers.of(at).pause(told_s)  # in words it may be: its reader alone knows
        fresh = self._received  # since the last MiB: cuts that come a bit sooner are progress, too
        if fresh >= self._policy.progress:
            self._received = 0
        if self._is_final(error, place):
            self._out.add(self._at)
        elif fresh >= self._policy.progress and not isinstance(error, RegistryError):
            self._budget.earn()
            return  # it works, with cuts
        following = self._next(self._at)
        if following is not None and following <= self._at and not await self._pause(error, server, told_s):
            self._out |= {index for index in range(len(self._places)) if self._rank(index) <= self._rank(following)}
            self._backoff.renew()
            following = self._next(self._at)
        if following is None:
            raise self._reason()
        self._at = following

    def _typed(self, reason: Exception) -> FastociError:
        if isinstance(reason, FastociError):
            return reason
        if isinstance(reason, MemoryError):
            raise reason
        error = unexpected(reason, self.place.server)
        error.__cause__ = reason
        return error

    async def _pause(self, error: FastociError, server: Server, told_s: float) -> bool:
        """Wait before those are asked again that were asked already; False when they were asked often enough."""
        # Silence has cost its whole timeout already.
        doubtful = not server.answered or isinstance(error, TimedOutError)
        wait_s = self._backoff.next_s(doubtful=doubtful)
        if wait_s is None:
            return False
        if wait_s > told_s:  # else whoever asks waits as long as it was told
            await asyncio.sleep(wait_s)
        return True

    def _is_final(self, error: FastociError, place: Candidate) -> bool:
        if isinstance(error, RateLimitedError) and (error.retry_after_s or 0) > self._policy.max_wait_s:
            return True
        if isinstance(error, RegistryError):
            if error.status in _EXPIRED and Origin.named(error.url) != place.origin:
                self._signed += 1  # the place may name a new address
                return self._signed >= _SIGNED_TRIES
            return error.status not in _PASSING
        if self._manifest and isinstance(error, (FormatError, IntegrityError)):
            self._wrong[self._at] += 1
            return self._wrong[self._at] >= _WRONG_TRIES
        return error.final if isinstance(error, TransportError) else True

    def _next(self, after: int) -> int | None:
        """The place to ask after one: those that cannot be asked now come last, and after all those that sent wrong.

        What may pass at one that a slow one was left for brings the slow one back no sooner than its tries are over.
        """
        count = len(self._places)
        left = [i % count for i in range(after + 1, after + 1 + count) if i % count not in self._out]
        return min(
            left,
            key=lambda index: (self._distrust[index], *self._delay(index), index in self._left),
            default=None,
        )

    def _rank(self, index: int) -> tuple[int, bool]:
        """Places of one rank share their tries; those of the next are asked when these are over."""
        return self._distrust[index], index in self._left

    def _delay(self, index: int) -> tuple[bool, float]:
        """What it costs to ask a place now: a timeout, as far as is known, and the wait that it asked for."""
        server = self._servers.of(self._places[index].origin)
        return server.doubtful, max(0.0, server.wait_s(manifest=self._manifest))

    def _reason(self) -> FastociError:
        """The error that says most: the origin's, one of a server that answered before one that did not.

        What another place said is its cause, when it has none of its own.
        """

        def weight(index: int) -> tuple[bool, bool]:
            return (not self._places[index].endpoint.origin, isinstance(self._errors[index], TransportError))

        reason = self._errors[min(self._errors, key=weight)]
        if reason.__cause__ is None:
            reason.__cause__ = next((each for each in self._errors.values() if each is not reason), None)
        return reason
