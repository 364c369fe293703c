"""Shows a job on stderr: as bars, as a line now and then, as JSON, or not at all."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol, TextIO

from fastoci import events
from fastoci.cli.formatting import plain
from fastoci.cli.progress.lines import overview, state, summary
from fastoci.cli.progress.notes import Trouble, log_line
from fastoci.cli.progress.state import MANY, QUIET_S, ProgressState

_EVERY_S: Final = 5.0  # between the lines of a log


class Display(Protocol):
    """Shows a job. Called on the event loop; raises nothing."""

    def __call__(self, event: events.Event) -> None:
        """See one event."""

    def tick(self) -> None:
        """Called some five times a second, also when nothing happens."""

    def restart(self) -> None:
        """Another run begins: nothing is kept of those before."""

    def log(self, text: str) -> None:
        """Write lines of the log; called on any thread, also when the job is over."""

    def aside(self) -> AbstractContextManager[None]:
        """Leave the terminal to others meanwhile."""

    def close(self) -> None:
        """The job is over."""

    def abandon(self) -> None:
        """Leave the terminal as it was, at once: the process is killed. Called while something else is being drawn."""


class Lines:
    """A display that draws nothing: lines that stay.

    This one writes warnings only.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Warned):
            self.log(summary(event, ProgressState()))

    def log(self, text: str) -> None:
        """Write lines."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def tick(self) -> None:
        """Nothing to draw."""

    def restart(self) -> None:
        """Nothing is kept."""

    def aside(self) -> AbstractContextManager[None]:
        """Lines are in nobody's way."""
        return nullcontext()

    def close(self) -> None:
        """Nothing to end."""

    def abandon(self) -> None:
        """Nothing to leave."""


class Log(Lines):
    """Writes a line when an image takes more than a second, every five seconds, at its end, and for each trouble.

    Of many images one line tells: how many are there, and how far all are. In a large job trouble is told with it: the
    last one, and how many more there were.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin with no images."""
        self._state = ProgressState()
        self._written: dict[str, float] = {}  # when there was last a line of the image; "" for the line of all
        self._troubles: list[Trouble] = []  # since that line, the last one only: ``_more`` others came before
        self._more = 0

    def __call__(self, event: events.Event) -> None:
        self._state.see(event, self._clock())
        if isinstance(event, events.JobStarted):
            self._written.clear()
        if isinstance(event, Trouble) and self._state.is_large:
            self._more += len(self._troubles)
            self._troubles = [event]
        elif text := log_line(event) if isinstance(event, Trouble) else summary(event, self._state):
            self.log(text)

    def tick(self) -> None:
        """Write the lines that are due."""
        now = self._clock()
        self._state.measure(now)
        if self._state.is_large or len(self._state.work) > MANY:
            began = self._state.since
            if began is not None and self._due("", began, now):
                self.log(overview(self._state))
                self._tell_trouble()
            return
        for image in self._state.active():
            if self._due(image.name, image.started, now):
                self.log(f"{plain(image.name)}: {state(image)}")

    def _tell_trouble(self) -> None:
        for trouble in self._troubles:
            self.log(log_line(trouble) + (f"; {self._more} more of the kind" if self._more else ""))
        self._troubles, self._more = [], 0

    def _due(self, name: str, started: float, now: float) -> bool:
        last = self._written.get(name)
        if now - started < QUIET_S if last is None else now - last < _EVERY_S:
            return False
        self._written[name] = now
        return True


def choose(mode: str, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> Display:
    """The display for a mode of ``options.MODES``, on ``stream`` or stderr.

    ``auto`` is bars on a terminal that can show them, unless CI is set, and a log elsewhere.
    """
    stream = sys.stderr if stream is None else stream
    if mode == "auto":
        plain_terminal = environ.get("CI") or environ.get("TERM") in (None, "", "dumb", "unknown")
        mode = "bar" if stream.isatty() and not plain_terminal else "log"
    match mode:
        case "json":
            from fastoci.cli.progress.stream import Json

            return Json(stream)
        case "none":
            return Lines(stream)
        case "log":
            return Log(stream)
    from fastoci.cli.progress.bars import Bars

    return Bars(stream)
