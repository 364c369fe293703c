"""The data plane's one contract: buffers go in, in order, on a worker thread.

Knows neither what a stream means nor who feeds it.
"""

from __future__ import annotations

from typing import Protocol

from fastoci._core import Buffer


class Sink(Protocol):
    """A consumer of buffers: synchronous, called from one worker thread at a time.

    It borrows a buffer during ``feed`` only: to keep it longer it must ``retain`` it, and ``release`` it later. After
    an exception from ``feed`` or ``finish`` only ``abort`` may be called. ``abort`` is idempotent, frees
    everything, and changes nothing after ``finish``.
    """

    def feed(self, buffer: Buffer) -> None:
        """Take the next bytes of the stream."""

    def finish(self) -> None:
        """The stream ended here: demand that it may, complete the work."""

    def abort(self) -> None:
        """Give up; nothing of the stream stays visible."""


class StoppableSink(Sink, Protocol):
    """A sink that may work long on what little it is fed."""

    def stop(self) -> None:
        """From any thread: the call under way, and every later one but ``abort``, ends soon with an exception."""
