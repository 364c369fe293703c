"""The way of one request over the candidates that may answer it: in order, again when that may help, else why not.

It decides and waits, and says so; it sends nothing.

Rules:
1. An error that is not ``retryable`` (401, 403, 404, a certificate, another type than was asked for) rules a candidate
   out for this request. So does an exception that nobody expected: it is a fault of fastoci that this answer set off.
2. Trouble that may pass (connections, timeouts, 408, 425, 429, 5xx, cuts) moves on to the next candidate, and after the
   last one waits (``RetryPolicy``) and begins again. A manifest that is wrong (another digest or size, no document) may
   pass once: a byte may have been lost on the way. Whether a blob is fetched again is for whoever hashes it.
3. A candidate that cannot be connected to, that never answers or fell silent twice in a row, or that asked for a pause
   is asked last. One that sent wrong bytes of the blob before is asked when the others are at their end, with all their
   tries: what may pass at them must not let it have another go.
4. A candidate that sends far more slowly than others could is left for the rest of the blob: for one of which nobody
   knows how fast it is, or that is known to be faster, and until that has had all its tries. When all have been tried,
   the fastest is gone back to, and kept.
5. What is raised at the end is the origin's own error, when it was asked; it says how often and how long that was
   tried, and what the others said.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import lru_cache
from typing import Final, TypeVar

import msgspec
from yarl import URL

from fastoci.errors import (
    ConfigError,
    FastociError,
    FormatError,
    IntegrityError,
    RateLimitedError,
    RegistryError,
    TimedOutError,
    TransportError,
)
from fastoci.events import CandidateSwitched, FirstByteAwaited, Observer, Retrying
from fastoci.registry.config.endpoints import Endpoint
from fastoci.registry.fetch.retry import Backoff, RetryBudget, RetryPolicy
from fastoci.registry.http import throughput
from fastoci.registry.http.first_byte import Patience
from fastoci.registry.http.servers import Server, Servers
from fastoci.registry.http.untrusted import unexpected
from fastoci.registry.http.urls import Origin, redact

_LOG: Final = logging.getLogger(__name__)
_SIGNED_TRIES: Final = 2
_PATIENCE_S: Final = 300.0  # for the first byte of a server that is alive
_WRONG_TRIES: Final = 2

T = TypeVar("T")


_origin_of: Final = lru_cache(256)(Origin.of)  # of bases, which are few, and asked for at every request
_server_of: Final = lru_cache(256)(redact)


class Candidate(msgspec.Struct, frozen=True):
    """An endpoint by one scheme."""

    endpoint: Endpoint
    base: URL

    @property
    def origin(self) -> Origin:
        """What credentials and trust belong to."""
        return _origin_of(self.base)

    @property
    def server(self) -> str:
        """Whom it asks, as a text that is the same in every process: ``https://mirror.local:5000/v2``."""
        return _server_of(self.base)


def candidates(endpoints: Sequence[Endpoint], servers: Servers) -> tuple[Candidate, ...]:
    """The endpoints in order; those that may speak either scheme, twice, until it is known which."""
    found = []
    for endpoint in endpoints:
        first = Candidate(endpoint, endpoint.base)
        other = Candidate(endpoint, endpoint.base.with_scheme("http" if endpoint.base.scheme == "https" else "https"))
        if not endpoint.either_scheme or servers.of(first.origin).speaks_scheme:
            found.append(first)
        elif servers.of(other.origin).speaks_scheme:
            found.append(other)
        else:
            found += [first, other]
    return tuple(found)


def _distrust_of(candidate: Candidate, corrupt: Collection[str]) -> int:
    """How much is against asking a candidate: that it sent wrong bytes, and then that it is not the origin."""
    return (candidate.server in corrupt) * (1 + (not candidate.endpoint.origin))


class ClientPolicy(msgspec.Struct, frozen=True):
    """How a client behaves towards servers, over all its requests, and who learns of it."""

    retry: RetryPolicy
    budget: RetryBudget
    observer: Observer
    max_wait_s: float = 60.0  # a longer wait that a server asks for is an error
    first_byte_s: float | None = None  # before an answer; None: 5 minutes at a server that has answered before


class Failover:
    """The way of one request, or of one blob with all its requests.

    Args:
        found: whom to ask, in order.
        image, blob: what is wanted, for the observer.
        manifest: the request is one of those that registries count.
        corrupt: servers that sent wrong bytes before; asked last.
    """

    def __init__(
        self,
        found: Sequence[Candidate],
        servers: Servers,
        policy: ClientPolicy,
        *,
        image: str = "",
        blob: str = "",
        manifest: bool = False,
        corrupt: Collection[str] = (),
    ) -> None:
        self._candidates = sorted(found, key=lambda candidate: _distrust_of(candidate, corrupt))
        self._distrust = [_distrust_of(candidate, corrupt) for candidate in self._candidates]
        self._servers = servers
        self._policy = policy
        self._backoff = Backoff(policy.retry, policy.budget)
        self._image = image
        self._blob = blob
        self._manifest = manifest
        self._errors: dict[int, FastociError] = {}
        self._tries = Counter[int]()  # without progress in between
        self._wrong = Counter[int]()
        self._out: set[int] = set()
        self._slow: dict[int, float] = {}  # those that were left; bytes a second
        self._decided = False
        self._received = 0
        self._signed = 0
        self._patient = True
        self._begun = time.monotonic()
        self._at = self._next(-1) or 0
        if _LOG.isEnabledFor(logging.DEBUG):
            self._log_order()
        if found[0].server in corrupt and found[0] is not self.candidate:
            self._switched(found[0], "it sent wrong bytes of this blob")

    @property
    def candidate(self) -> Candidate:
        """Whom to ask now."""
        return self._candidates[self._at]

    @property
    def patience(self) -> Patience | None:
        """For the first byte of whom is asked now: long once, when there is nobody else who might have it sooner."""
        asked, chosen_s = self.candidate, self._policy.first_byte_s
        others = (i for i, each in enumerate(self._candidates) if each.endpoint is not asked.endpoint)
        longer = self._patient and all(i in self._out or i in self._errors for i in others)
        if chosen_s is None and not longer:
            return None
        total_s = _PATIENCE_S if chosen_s is None else chosen_s

        def tell(waited_s: float) -> None:
            self._patient = False
            self._policy.observer(FirstByteAwaited(self._image, self._blob, asked.server, waited_s, total_s))

        return Patience(total_s, longer, chosen_s is not None, tell)

    async def begin(self) -> None:
        """Wait while the first to be asked wants no requests yet."""
        wait_s = self._wanted_s(self._at)
        if wait_s > 0:
            self._retrying(self.candidate, "it wants no requests yet", 0, wait_s)
            await asyncio.sleep(wait_s)

    async def run(self, ask: Callable[[Candidate], Awaitable[T]]) -> T:
        """What the first candidate says that has an answer.

        Raises:
            FastociError: none has.
        """
        await self.begin()
        while True:
            candidate = self.candidate
            try:
                found = await ask(candidate)
            except Exception as error:
                if isinstance(error, (FormatError, IntegrityError)) and not isinstance(error, ConfigError):
                    error.retryable = True  # a byte may have been lost on the way
                await self.failed(error, candidate)
            else:
                self.done()
                return found

    def progressed(self, size: int) -> None:
        """Bytes of a body have come."""
        self._received += size
        if self._received >= self._policy.retry.progress:
            self._renew()
            self._signed = 0

    def _renew(self) -> None:
        self._backoff.renew()
        self._tries.clear()
        self._patient = True
        self._begun = time.monotonic()

    def done(self) -> None:
        """It worked."""
        self._policy.budget.earn()
        self._servers.of(self.candidate.origin).timeouts = 0

    def slow(self, candidate: Candidate, rate: float, rest: int | None = None) -> str:
        """Leave a candidate that sends far more slowly than others could: ``candidate`` is another one from then on.

        Args:
            rate: bytes a second of the blob, over some seconds.
            rest: bytes that are still to come, when that is known; what is soon here is worth no new request.
        Returns: why the body is to be broken off, in words; empty when it goes on.
        """
        at = self._candidates.index(candidate)
        reason = throughput.lags(rate, self._servers.job.median())
        if not reason or (rest is not None and rest < rate * throughput.LAG_S):
            return ""
        if at == self._at and not self._decided:
            better = self._better(rate)
            if better is None:
                return ""
            self._decided = better in self._slow  # all have been tried by then, and it was the fastest
            self._slow[at] = rate
            self._at = better
            self._switched(candidate, reason)
        return reason if self._at != at and at in self._slow else ""

    def _better(self, rate: float) -> int | None:
        """The candidate that may send more than ``rate``: the first that nobody has tried, or that is known to."""
        ring = [(self._at + step) % len(self._candidates) for step in range(1, len(self._candidates))]
        for index in sorted(ring, key=lambda index: (index in self._slow, index in self._errors)):
            candidate = self._candidates[index]
            if (
                index in self._out
                or self._distrust[index]
                or candidate.endpoint is self.candidate.endpoint
                or any(self._delay(index))
            ):
                continue
            known = self._slow.get(index) or self._servers.of(candidate.origin).rate
            if known is None or known > throughput.BETTER * rate:
                return index
        return None

    async def failed(self, reason: Exception, candidate: Candidate) -> None:
        """Note that a candidate failed, and wait until the next may be asked.

        What is broken off at a candidate that was left for another is not a failure.

        Raises:
            FastociError: nobody is left.
            MemoryError: that was the reason, which is not the fault of a server.
        """
        if candidate is not self.candidate:
            return
        error = self._note(reason)
        enough = self._policy.retry.progress
        fresh = self._received  # since the last MiB: cuts that come a bit sooner are progress, too
        if fresh >= enough:
            self._received = 0
        self._drop_twins(error)
        if self._rules_out(error):
            self._out.add(self._at)
        elif fresh >= enough and not isinstance(error, RegistryError):
            self._policy.budget.earn()
            return  # it works, with cuts
        following, backoff_s = self._next(self._at), None
        if following is not None and following <= self._at:  # all were asked
            backoff_s = self._backoff_s(error)
            if backoff_s is None:
                self._drop_rank(following)
                following = self._next(self._at)
        if following is None:
            raise self._final_error()
        await self._go_on(following, error, backoff_s)

    def _note(self, reason: Exception) -> FastociError:
        """What failed, as an error, with what it says of the servers."""
        error = self._errors[self._at] = self._typed(reason)
        self._tries[self._at] += 1
        self._server(self._at).timeouts += isinstance(error, TimedOutError)
        if isinstance(error, RegistryError) and error.status and (wanted_s := error.retry_after_s):
            at = Origin.named(error.url) or self.candidate.origin
            self._servers.of(at).pause(wanted_s)  # in words it may be: its reader alone knows
        return error

    def _typed(self, reason: Exception) -> FastociError:
        if isinstance(reason, FastociError):
            return reason
        if isinstance(reason, MemoryError):
            raise reason
        error = unexpected(reason, self.candidate.server)
        error.__cause__ = reason
        return error

    def _rules_out(self, error: FastociError) -> bool:
        """Whether the candidate is not asked again: the error says so, or that has been enough of its kind."""
        if not error.retryable:
            return True
        if isinstance(error, RateLimitedError) and (error.retry_after_s or 0) > self._policy.max_wait_s:
            return True
        if isinstance(error, RegistryError) and error.expired:
            self._signed += 1
            return self._signed >= _SIGNED_TRIES
        if isinstance(error, (FormatError, IntegrityError)):
            self._wrong[self._at] += 1
            return self._wrong[self._at] >= _WRONG_TRIES
        return False

    def _backoff_s(self, error: FastociError) -> float | None:
        """Seconds before those are asked again that were asked already; None when they were asked often enough."""
        if isinstance(error, RateLimitedError) and error.status and error.retry_after_s is not None:
            limited_s = self._backoff.limited_s(self._server(self._at).answers_before)
            return None if limited_s is None else limited_s + self._wanted_s(self._at)
        # Silence has cost its whole timeout already.
        unreachable = not self._server(self._at).answered or isinstance(error, TimedOutError)
        return self._backoff.next_s(unreachable=unreachable)

    def _drop_rank(self, following: int) -> None:
        """Ask those no more that share their tries with ``following``; the others have all theirs."""
        self._out |= {index for index in range(len(self._candidates)) if self._rank(index) <= self._rank(following)}
        self._backoff.renew()

    async def _go_on(self, following: int, error: FastociError, backoff_s: float | None) -> None:
        """Ask another candidate, or the same again, after the longer of our wait and the one that the server wants.

        Args:
            backoff_s: our wait; None when not all were asked yet.
        """
        failed, self._at = self._at, following
        wait_s = max(backoff_s or 0.0, self._wanted_s(following))
        if failed != following:
            self._switched(self._candidates[failed], error.cause)
        if failed == following or backoff_s is not None or wait_s > 0:
            attempt = self._backoff.attempt + (backoff_s is None)
            self._retrying(self._candidates[failed], error.cause, attempt, wait_s)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _wanted_s(self, index: int) -> float:
        """Seconds for which a candidate wants no requests; 0 when they are too many: the request itself fails then."""
        server = self._server(index)
        wait_s = server.wait_s(manifest=self._manifest)
        return server.jittered(wait_s) if 0 < wait_s <= self._policy.max_wait_s else 0.0

    def _retrying(self, candidate: Candidate, cause: str, attempt: int, wait_s: float) -> None:
        self._policy.observer(
            Retrying(self._image, self._blob, candidate.server, cause, attempt, self._backoff.attempts, wait_s)
        )

    def _switched(self, candidate: Candidate, reason: str) -> None:
        self._policy.observer(
            CandidateSwitched(self._image, self._blob, candidate.server, self.candidate.server, reason)
        )

    def _next(self, after: int) -> int | None:
        """The candidate to ask after one: those that cannot be asked now come last, after all those that sent wrong.

        What may pass at one that a slow one was left for brings the slow one back no sooner than its tries are over.
        """
        count = len(self._candidates)
        left = [i % count for i in range(after + 1, after + 1 + count) if i % count not in self._out]
        return min(
            left,
            key=lambda index: (self._distrust[index], *self._delay(index), index in self._slow),
            default=None,
        )

    def _rank(self, index: int) -> tuple[int, bool]:
        """Candidates of one rank share their tries; those of the next are asked when these are over."""
        return self._distrust[index], index in self._slow

    def _delay(self, index: int) -> tuple[bool, float]:
        """What it costs to ask a candidate now: a timeout, as far as is known, and the wait that it asked for."""
        server = self._server(index)
        return server.unreachable, max(0.0, server.wait_s(manifest=self._manifest))

    def _server(self, index: int) -> Server:
        return self._servers.of(self._candidates[index].origin)

    def _drop_twins(self, error: FastociError) -> None:
        """Ask an endpoint by no other scheme when it speaks this one, or when its silence to http says nothing."""
        if self._server(self._at).speaks_scheme:
            self._out |= self._twins(self._at)
        elif isinstance(error, TimedOutError) and self.candidate.base.scheme == "http":
            self._out |= self._twins(self._at) - self._errors.keys()

    def _twins(self, index: int) -> set[int]:
        """The same endpoint by another scheme."""
        endpoint = self._candidates[index].endpoint
        return {i for i, each in enumerate(self._candidates) if i != index and each.endpoint is endpoint}

    def _final_error(self) -> FastociError:
        """The error that says most: the origin's, by its own scheme, one of a server that answered before one that did
        not.

        It says what the others said, and one of these is its cause when it has none of its own. That a server does not
        speak the other scheme is no news.
        """

        def weight(index: int) -> tuple[bool, bool, bool]:
            twins = any(self._server(twin).speaks_scheme for twin in self._twins(index))
            silent = isinstance(self._errors[index], TransportError)
            return (not self._candidates[index].endpoint.origin, twins, silent)

        chosen = min(self._errors, key=weight)
        error = self._errors[chosen]
        mute = {twin for twin in self._twins(chosen) if not self._server(twin).speaks_scheme}
        others = {index: each for index, each in self._errors.items() if index != chosen and index not in mute}
        error.tries = self._tries[chosen]
        error.elapsed_s = time.monotonic() - self._begun
        error.others = tuple(f"{self._candidates[index].server}: {each.cause}" for index, each in others.items())
        if error.__cause__ is None:
            error.__cause__ = next(iter(others.values()), None)
        return error

    def _log_order(self) -> None:
        """Who is asked in which order, and what is against whom."""
        for index, candidate in enumerate(self._candidates):
            unreachable, wait_s = self._delay(index)
            against = [
                *(["it sent wrong bytes"] if self._distrust[index] else []),
                *(["it is unreachable"] if unreachable else []),
                *([f"it wants a pause of {wait_s:.1f} s"] if wait_s else []),
            ]
            chosen = "chosen" if index == self._at else "in reserve"
            what = " ".join(filter(None, [self._image, self._blob]))
            _LOG.debug("%s: candidate %s is %s; against it: %s", what, candidate.server, chosen, against or "nothing")
