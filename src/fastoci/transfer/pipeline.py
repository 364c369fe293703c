"""One stream through the data plane: buffers in order, each hashed, then given to a sink.

The unit of work is one stage of one stream on one buffer. A buffer goes back to where it came from when the thread lets
go of it, whatever happens to the task that waits. Knows no blobs, layers or files.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from fastoci._core import Buffer
from fastoci.aio import wait_to_end
from fastoci.stream.sink import Sink, StoppableSink
from fastoci.stream.verify import Verified, Verifier, hash_buffers

T = TypeVar("T")

_NEWS = 8  # buffers after which the loop hears of a stream that makes its own


class Workers(Protocol):
    """What a pipeline asks of the threads that run it: ``workers.WorkerPool``."""

    async def run(self, work: Callable[[], T], *, stop: Callable[[], object] | None = None) -> T:
        """Run ``work`` on a thread to its end, also when this task is cancelled."""

    async def finish(self, work: Callable[[], object]) -> None:
        """Run ``work`` on a thread to its end while an error is on its way."""

    def schedule(self, pipeline: Pipeline) -> None:
        """Let a thread work on the pipeline's next buffer, unless one does already."""

    def count_maker(self, change: int) -> None:
        """One pipeline more (1) or fewer (-1) that makes its buffers."""


class Pipeline:
    """One stream's stage on the worker.

    Args:
        verifier: hashes the stream before ``sink`` has it; None for a stream that nothing was promised of.
        progressed: called on the loop with the bytes that are through the stage since.
    """

    waiting = 0  # buffers that may wait for another pipeline's

    def __init__(
        self, workers: Workers, sink: Sink, verifier: Verifier | None, *, progressed: Callable[[int], None]
    ) -> None:
        self.busy = False  # is queued, or at work; changed under the workers' lock
        self.sink = sink
        self.verifier = verifier
        self.error: BaseException | None = None  # whatever a thread raised first; nothing follows
        self.proof: Verified | None = None  # after ``finish``
        self._workers = workers
        self._progressed = progressed
        self._queue: deque[Buffer] = deque()
        self._through = self._reported = 0  # bytes that passed the stage, and that ``progressed`` was called with
        self._changed = asyncio.Event()

    async def _complete(self, *, stop: Callable[[], None] | None = None) -> None:
        """All buffers are through: close the sink, and hold the stream against what was promised."""
        self._raise()
        await self._workers.run(self.sink.finish, stop=stop)
        self._raise()  # what ``progressed`` said meanwhile
        if self.verifier is not None:
            self.proof = self.verifier.proof()

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def fail(self, error: BaseException) -> None:
        """On any thread: nothing more may be used; whoever waits for this pipeline gets the error."""
        self.error = self.error or error

    def take(self) -> Buffer | None:
        """On a thread: the next buffer, None when ``abort`` took it away."""
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def let_go(self, buffer: Buffer) -> None:
        """On a thread: the stage is done with a buffer."""
        buffer.release()

    def use(self, buffer: Buffer) -> None:
        """On a thread: give a buffer that was hashed to the sink, and let go of it."""
        try:
            if self.error is None:
                self.sink.feed(buffer)
                self._through += len(buffer)
        except BaseException as error:
            self.fail(error)
        try:
            self.let_go(buffer)
        except BaseException as error:  # it was released before, or is still lent to somebody
            self.fail(error)

    def wants_more(self) -> bool:
        """Under the workers' lock: there is another buffer to work on."""
        return bool(self._queue) and self.error is None

    @property
    def patient(self) -> bool:
        """Under the workers' lock: nobody waits for what it has; a thread may take it that hashes something else."""
        return False

    def has_news(self) -> bool:
        """On a thread, after work: whether the loop should hear of it."""
        return True

    def advanced(self) -> None:
        """On the loop, after a thread worked on a buffer."""
        self._changed.set()
        if self._through > self._reported:
            size, self._reported = self._through - self._reported, self._through
            try:
                self._progressed(size)
            except BaseException as error:
                self.fail(error)

    async def _wait_while(self, condition: Callable[[], bool]) -> None:
        while condition():
            self._changed.clear()
            if condition():  # what a thread changes is followed by ``advanced``
                await self._changed.wait()


class PushPipeline(Pipeline):
    """A pipeline whose buffers come from the loop.

    Args:
        depth: buffers that may wait; then ``feed`` waits too, and with it whoever makes them.
    """

    def __init__(
        self,
        workers: Workers,
        sink: Sink,
        verifier: Verifier | None,
        *,
        depth: int,
        progressed: Callable[[int], None],
    ) -> None:
        super().__init__(workers, sink, verifier, progressed=progressed)
        self._depth = depth

    def let_wait(self, count: int) -> None:
        """Hash so many buffers, of those fed last, no sooner than there is another one's to hash beside them."""
        self._depth += count - self.waiting
        self.waiting = count

    @property
    def patient(self) -> bool:
        """Under the workers' lock: nobody waits for what it has; a thread may take it that hashes something else."""
        return 0 < self.waiting >= len(self._queue)

    def let_go(self, buffer: Buffer) -> None:
        """On a thread: the stage is done with a buffer."""
        buffer.release()
        super().let_go(buffer)

    async def feed(self, buffer: Buffer) -> None:
        """Hand a buffer over, with its reference; waits while ``depth`` buffers are queued.

        Raises: what the stage raised on an earlier buffer; ``abort`` gives this one back.
            ValueError: it was released before.
        """
        # A reference of its own: else, when a source releases what it gave away, the memory is another's between the
        # hash and the sink.
        self._queue.append(buffer.retain())
        self._workers.schedule(self)
        await self._wait_while(lambda: len(self._queue) >= self._depth and self.error is None)
        self._raise()

    async def used(self) -> None:
        """Wait until all buffers that were fed are through. Raises: as ``feed``."""
        self._hurry()
        await self._wait_while(lambda: self.busy)
        self._raise()

    async def finish(self) -> None:
        """Wait for all buffers, close the sink, and hold the stream against what was promised.

        Raises: what the stage raises, on any buffer or at its end; IntegrityError.
        """
        await self.used()
        await self._complete()

    async def abort(self, *, keep: bool = False) -> None:
        """Wait for the thread to let go, give all buffers back, abort the sink on a thread. Idempotent.

        Args:
            keep: the sink keeps what it got for a later attempt, so the buffers that wait are worked off first.
        """
        if not keep:
            self._drop()
        self._hurry()
        await wait_to_end(self._wait_while(lambda: self.busy))
        self._drop()
        await self._workers.finish(self.sink.abort)

    def _hurry(self) -> None:
        """Let nothing wait any more."""
        if self.waiting:
            self.let_wait(0)
            self._workers.schedule(self)

    def _drop(self) -> None:
        while (buffer := self.take()) is not None:
            with suppress(ValueError):  # the source has released it, too
                self.let_go(buffer)


class BufferMaker(Protocol):
    """Turns what it has into buffers, on a thread: the tar of a layer out of its compressed bytes."""

    ended: bool  # nothing more will be made

    @property
    def demanded(self) -> int:
        """Bytes of memory that must be granted before more is made; else 0."""

    def ready(self) -> bool:
        """Something can be made now."""

    def hungry(self) -> bool:
        """More input is wanted."""

    def make(self, out: Buffer) -> Buffer | None:
        """Append to ``out``; the buffer to be used next, ``out`` or another with its reference, or None: not yet.

        Raises:
            FormatError, UnsupportedError, UnpackError: nothing more can be made.
        """


class PullPipeline(Pipeline):
    """A pipeline that makes its buffers itself, on the workers' threads, in memory that it keeps for them.

    Args:
        buffers: empty buffers with their references, given back by ``finish`` and ``abort``. With one, making and using
            alternate; with more, they run side by side when threads are idle.
        grant: called on the loop with what the maker demands; returns when it may have it.
    """

    def __init__(
        self,
        workers: Workers,
        sink: StoppableSink,
        verifier: Verifier | None,
        *,
        maker: BufferMaker,
        buffers: Sequence[Buffer],
        grant: Callable[[int], Awaitable[None]],
        progressed: Callable[[int], None],
    ) -> None:
        super().__init__(workers, sink, verifier, progressed=progressed)
        self.making = False  # as ``busy``, for the other stage
        self._stop_sink = sink.stop
        self._maker = maker
        self._grant = grant
        self._own = frozenset(buffers)
        self._free = list(buffers)
        self._most = len(self._own)  # of them that it may keep
        self._partial: Buffer | None = None  # begun, and waits for more input
        self._failure: BaseException | None = None  # of the maker; counts when what it made before is through
        self._stopped = False
        self._steps = 0
        workers.count_maker(1)

    def keep(self, most: int) -> None:
        """On the loop: give buffers back until there are ``most``; now, and those in use when they are free."""
        self._most = most
        self._give_back_spare()

    def advanced(self) -> None:
        """On the loop, after a thread worked on a buffer."""
        super().advanced()
        self._give_back_spare()

    async def run_while(self, more: Callable[[], bool]) -> None:
        """Make and use buffers while ``more`` says so and no error came; wakes with the loop's news of this stream.

        Raises: what either stage raised.
        """
        while True:
            self._workers.schedule(self)
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

        Raises: what the stages raise, on any buffer or at the end; IntegrityError.
        """
        await self.run_while(lambda: True)
        await self._complete(stop=self._stop_sink)
        self._give_back()

    async def abort(self) -> None:
        """Wait for the threads to let go (soon), give all buffers back, abort the sink on a thread. Idempotent."""
        self._stopped = True
        self._stop_sink()
        await wait_to_end(self._wait_while(lambda: self.busy or self.making))
        self._give_back()
        await self._workers.finish(self.sink.abort)

    def fail(self, error: BaseException) -> None:
        """On any thread: nothing more may be made or used; whoever waits for this pipeline gets the error."""
        super().fail(error)
        self._stop_sink()

    def make(self) -> None:
        """On a thread: one buffer."""
        try:
            out = self._free.pop() if self._partial is None else self._partial
        except IndexError:  # the last free one was given back meanwhile; another becomes free
            return
        self._partial = None
        try:
            made = None if self._stopped else self._maker.make(out)
        except BaseException as error:
            self._failure = error
            made = out if len(out) else None
        if made is not None:
            self._queue.append(made)
        if made is not out:
            self._partial = out

    def can_make(self) -> bool:
        """Under the workers' lock: there is something to make, and a buffer for it."""
        if self._stopped or self._failure is not None or self.error is not None or len(self._own) > self._most:
            return False
        return (self._partial is not None or bool(self._free)) and self._maker.ready()

    def take(self) -> Buffer | None:
        """On a thread: the next buffer, None after ``abort``."""
        return None if self._stopped else super().take()

    def let_go(self, buffer: Buffer) -> None:
        """On a thread: the stage is done with a buffer."""
        if buffer in self._own:
            buffer.clear()
            self._free.append(buffer)
        else:
            buffer.release()

    def wants_more(self) -> bool:
        """Under the workers' lock: there is another buffer to use."""
        return super().wants_more() and not self._stopped

    def has_news(self) -> bool:
        """On a thread, after work: at the end, when the maker waits for input or a buffer is due, and now and then."""
        self._steps += 1
        return (
            self._stopped
            or self._over()
            or self._maker.hungry()
            or bool(self._maker.demanded)
            or len(self._own) > self._most
            or self._steps % _NEWS == 0
        )

    def _shrink(self) -> None:
        """Between buffers: give back those not needed to go on; others may need them before the grant comes."""
        while self._free:
            buffer = self._free.pop()
            self._own -= {buffer}
            buffer.release()

    def _give_back_spare(self) -> None:
        with suppress(IndexError):  # a thread took the last one meanwhile
            while len(self._own) > self._most:
                buffer = self._free.pop()
                self._own -= {buffer}
                buffer.release()
                if len(self._own) == self._most:
                    self._workers.schedule(self)  # nothing was made until now

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
        for buffer in self._queue:
            if buffer not in self._own:
                buffer.release()
        self._queue.clear()
        for buffer in self._own:
            buffer.release()
        self._own = frozenset()
        self._free, self._partial = [], None
        self._workers.count_maker(-1)


def advance(pipelines: list[Pipeline]) -> None:
    """On a thread: hash one buffer of each pipeline, all in lanes, then give each to its sink, and let go of it.

    Whatever is raised meanwhile becomes the error of the pipeline that it is of, and of all when nobody can know which.
    """
    work = []
    for pipeline in pipelines:
        try:
            if (buffer := pipeline.take()) is not None:
                work.append((pipeline, buffer))
        except BaseException as error:
            pipeline.fail(error)
    try:
        _hash(work)
    except BaseException as error:  # no memory: nobody knows which hashes went on
        for pipeline, _ in work:
            pipeline.fail(error)
    for pipeline, buffer in work:
        pipeline.use(buffer)


def _hash(work: list[tuple[Pipeline, Buffer]]) -> None:
    """Hash the buffers of the pipelines that may go on; the others get their error."""
    pairs = []
    for pipeline, buffer in work:
        if pipeline.verifier is None:
            continue
        try:
            pipeline.verifier.expect(buffer)
            pairs.append((pipeline.verifier, buffer))
        except BaseException as error:
            pipeline.fail(error)
    hash_buffers(pairs)
