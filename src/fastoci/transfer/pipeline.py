"""One stream's way through the data plane: spans in order, hashed, then given to a sink, one at a time.

The unit of work is one stage of one stream on one span. A span goes back to where it came from when the thread lets go
of it, whatever happens to the task that waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from fastoci._core import Span
from fastoci.aio import settle
from fastoci.errors import IntegrityError
from fastoci.stream.sink import Sink, StoppableSink
from fastoci.stream.verify import Verified, Verifier, hash_spans

if TYPE_CHECKING:
    from fastoci.transfer.workers import Worker

_NEWS = 8  # spans after which the loop hears of a stream that makes its own


class Pipeline:
    """One stream's stage on the worker.

    Args:
        verifier: hashes the stream before ``sink`` has it; None for a stream that nothing was promised of.
        progressed: called on the loop with the bytes that are through the stage since.
    """

    def __init__(
        self, worker: Worker, sink: Sink, verifier: Verifier | None, *, progressed: Callable[[int], None]
    ) -> None:
        self.busy = False  # stands in the worker's line, or is at work; changed under the worker's lock
        self.sink = sink
        self.verifier = verifier
        self.error: Exception | None = None  # set by a thread; nothing follows
        self.proof: Verified | None = None  # after ``finish``
        self._worker = worker
        self._progressed = progressed
        self._queue: deque[Span] = deque()
        self._through = self._told = 0  # bytes that passed the stage, and that ``progressed`` knows of
        self._changed = asyncio.Event()

    async def _complete(self, *, stop: Callable[[], None] | None = None) -> None:
        """All spans are through: close the sink, and hold the stream against what was promised."""
        self._raise()
        await self._worker.run(self.sink.finish, stop=stop)
        if self.verifier is not None:
            self.proof = self.verifier.proof()

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def take(self) -> Span | None:
        """On a thread: the next span, None when ``abort`` took it away."""
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def let_go(self, span: Span) -> None:
        """On a thread: the stage is done with a span."""
        span.release()

    def passed(self, size: int) -> None:
        """On a thread: ``size`` bytes are through."""
        self._through += size

    def wants_more(self) -> bool:
        """Under the worker's lock: there is another span to work on."""
        return bool(self._queue) and self.error is None

    def has_news(self) -> bool:
        """On a thread, after work: whether the loop should hear of it."""
        return True

    def advanced(self) -> None:
        """On the loop, after a thread worked on a span."""
        self._changed.set()
        if self._through > self._told:
            size, self._told = self._through - self._told, self._through
            self._progressed(size)

    async def _wait_while(self, condition: Callable[[], bool]) -> None:
        while condition():
            self._changed.clear()
            if condition():  # what a thread changes is followed by ``advanced``
                await self._changed.wait()


class Fed(Pipeline):
    """A pipeline whose spans come from the loop.

    Args:
        depth: spans that may wait; then ``feed`` waits too, and with it whoever makes them.
    """

    def __init__(
        self, worker: Worker, sink: Sink, verifier: Verifier | None, *, depth: int, progressed: Callable[[int], None]
    ) -> None:
        super().__init__(worker, sink, verifier, progressed=progressed)
        self._depth = depth

    async def feed(self, span: Span) -> None:
        """Hand a span over, with its reference; waits while ``depth`` spans are queued.

        Raises: what the stage raised on an earlier span; ``abort`` gives this one back.
        """
        self._queue.append(span)
        self._worker.schedule(self)
        await self._wait_while(lambda: len(self._queue) >= self._depth and self.error is None)
        self._raise()

    async def finish(self) -> None:
        """Wait for all spans, close the sink, and hold the stream against what was promised.

        Raises: what the stage raises, on any span or at its end; IntegrityError.
        """
        await self._wait_while(lambda: self.busy)
        await self._complete()

    async def abort(self, *, keep: bool = False) -> None:
        """Wait for the thread to let go, give all spans back, abort the sink on a thread. Idempotent.

        Args:
            keep: the sink keeps what it got for a later attempt, so the spans that wait are worked off first.
        """
        if not keep:
            self._drop()
        await settle(self._wait_while(lambda: self.busy))
        self._drop()
        await self._worker.finish(self.sink.abort)

    def _drop(self) -> None:
        while (span := self.take()) is not None:
            span.release()


class SpanMaker(Protocol):
    """Turns what it has into spans, on a thread: the tar of a layer out of its compressed bytes."""

    ended: bool  # nothing more will be made

    @property
    def demanded(self) -> int:
        """Bytes of memory that must be granted before more is made; else 0."""

    def ready(self) -> bool:
        """Something can be made now."""

    def hungry(self) -> bool:
        """More input is wanted."""

    def make(self, out: Span) -> Span | None:
        """Append to ``out``; the span to be used next, ``out`` or another with its reference, or None: not yet.

        Raises:
            FormatError, UnsupportedError, UnpackError: nothing more can be made.
        """


class Making(Pipeline):
    """A pipeline that makes its spans itself, on the worker's threads, in memory that it keeps for them.

    Args:
        outs: empty spans with their references, given back by ``finish`` and ``abort``. With one, making and using
            take turns; with more, they run side by side when threads are idle.
        grant: called on the loop with what the maker demands; returns when it may have it.
    """

    def __init__(
        self,
        worker: Worker,
        sink: StoppableSink,
        verifier: Verifier | None,
        *,
        maker: SpanMaker,
        outs: Sequence[Span],
        grant: Callable[[int], Awaitable[None]],
        progressed: Callable[[int], None],
    ) -> None:
        super().__init__(worker, sink, verifier, progressed=progressed)
        self.making = False  # as ``busy``, for the other stage
        self._stop_sink = sink.stop
        self._maker = maker
        self._grant = grant
        self._own = frozenset(outs)
        self._free = list(outs)
        self._partial: Span | None = None  # begun, and waits for more input
        self._failure: Exception | None = None  # of the maker; counts when what it made before is through
        self._stopped = False
        self._turns = 0
        worker.count_maker(1)

    async def run_while(self, more: Callable[[], bool]) -> None:
        """Make and use spans while ``more`` says so and no error came; wakes with the loop's news of this stream.

        Raises: what either stage raised.
        """
        while True:
            self._worker.schedule(self)
            await self._wait_while(lambda: more() and not self._over() and not self._maker.demanded)
            self._raise()
            demand = self._maker.demanded
            if not demand:
                return
            await self._wait_while(lambda: self.busy or self.making or bool(self._queue and self.error is None))
            self._raise()
            self._shrink()
            await self._grant(demand)

    async def finish(self) -> None:
        """Wait until all is made and through, close the sink, and hold the stream against what was promised.

        Raises: what the stages raise, on any span or at the end; IntegrityError.
        """
        await self.run_while(lambda: True)
        await self._complete(stop=self._stop_sink)
        self._give_back()

    async def abort(self) -> None:
        """Wait for the threads to let go (soon), give all spans back, abort the sink on a thread. Idempotent."""
        self._stopped = True
        self._stop_sink()
        await settle(self._wait_while(lambda: self.busy or self.making))
        self._give_back()
        await self._worker.finish(self.sink.abort)

    def fail(self, error: Exception) -> None:
        """On the loop: nothing more may be made or used."""
        self.error = self.error or error
        self._stop_sink()

    def make(self) -> None:
        """On a thread: one span."""
        out = self._free.pop() if self._partial is None else self._partial
        self._partial = None
        try:
            made = None if self._stopped else self._maker.make(out)
        except Exception as error:
            self._failure = error
            made = out if len(out) else None
        if made is not None:
            self._queue.append(made)
        if made is not out:
            self._partial = out

    def can_make(self) -> bool:
        """Under the worker's lock: there is something to make, and room for it."""
        if self._stopped or self._failure is not None or self.error is not None:
            return False
        return (self._partial is not None or bool(self._free)) and self._maker.ready()

    def take(self) -> Span | None:
        """On a thread: the next span, None after ``abort``."""
        return None if self._stopped else super().take()

    def let_go(self, span: Span) -> None:
        """On a thread: the stage is done with a span."""
        if span in self._own:
            span.clear()
            self._free.append(span)
        else:
            span.release()

    def wants_more(self) -> bool:
        """Under the worker's lock: there is another span to use."""
        return super().wants_more() and not self._stopped

    def has_news(self) -> bool:
        """On a thread, after work: at the end, when the maker waits for input, and now and then."""
        self._turns += 1
        return (
            self._stopped
            or self._over()
            or self._maker.hungry()
            or bool(self._maker.demanded)
            or self._turns % _NEWS == 0
        )

    def _shrink(self) -> None:
        """Between spans: give back those that are not needed to go on; others may need them before the grant comes."""
        while self._free:
            span = self._free.pop()
            self._own -= {span}
            span.release()

    def _over(self) -> bool:
        if self.busy or self.making:
            return False
        return self.error is not None or (not self._queue and (self._maker.ended or self._failure is not None))

    def _raise(self) -> None:
        super()._raise()
        if self._failure is not None and not self._queue:
            raise self._failure

    def _give_back(self) -> None:
        if not self._own:
            return
        for span in self._queue:
            if span not in self._own:
                span.release()
        self._queue.clear()
        for span in self._own:
            span.release()
        self._own = frozenset()
        self._free, self._partial = [], None
        self._worker.count_maker(-1)


def advance(pipelines: list[Pipeline]) -> None:
    """On a thread: hash one span of each pipeline, all in lanes, then give each to its sink, and let go of it."""
    work = [(pipeline, span) for pipeline in pipelines if (span := pipeline.take()) is not None]
    try:
        _hash(work)
        for pipeline, span in work:
            if pipeline.error is not None:
                continue
            try:
                pipeline.sink.feed(span)
                pipeline.passed(len(span))
            except Exception as error:
                pipeline.error = pipeline.error or error
    finally:
        for pipeline, span in work:
            pipeline.let_go(span)


def _hash(work: list[tuple[Pipeline, Span]]) -> None:
    """Hash the spans of the pipelines that may go on; the others get their error."""
    pairs = []
    for pipeline, span in work:
        if pipeline.verifier is None:
            continue
        try:
            pipeline.verifier.expect(span)
            pairs.append((pipeline.verifier, span))
        except IntegrityError as error:
            pipeline.error = error
    hash_spans(pairs)
